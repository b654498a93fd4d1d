"""What the command line imports is ours: no foreign folder and no other distribution is taken for it."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.cli.guards import HOME, ROOMS, _check_found, _check_overwritten, check_imports, leave_working_directory

FOREIGN = "raise RuntimeError('of another project')\n"


def packages(folder: Path, names: Sequence[str] = ROOMS[1:], text: str = FOREIGN) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(text)
    return folder


def run(*arguments: str, cwd: Path, path: Sequence[Path] = (HOME,)) -> subprocess.CompletedProcess[str]:
    """A Python process in a folder, with these on its PYTHONPATH."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def record(folder: Path, distribution: str, names: Sequence[str], text: str) -> None:
    """A wheel's RECORD: it installed these packages, with this as the text of their first files."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    (folder / f"{distribution}.dist-info").mkdir(parents=True)
    lines = [f"{name}/__init__.py,sha256={digest},{len(text)}\n" for name in names]
    (folder / f"{distribution}.dist-info" / "RECORD").write_text("".join([*lines, "README,,\n"]))


def test_a_sweep_among_foreign_folders_of_our_names_ends_with_its_report(tmp_path: Path) -> None:
    packages(tmp_path)
    (tmp_path / "game.yaml").write_text(
        "{name: game, policy: {game: cyc3}, iterations: 2, leaderboards: [duality-gap], "
        "matrix: {trainer: [omd], judge: [game]}}"
    )
    ended = run("-m", "harness", "sweep", "game.yaml", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / ended.stdout.strip()).is_file()


def test_a_foreign_package_on_pythonpath_is_one_message_before_anything_is_imported(tmp_path: Path) -> None:
    foreign = packages(tmp_path / "other", ["judges"])
    ended = run("-m", "harness", "list", "judges", cwd=tmp_path, path=[foreign, HOME])
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: an import of judges finds {foreign / 'judges'}, not nashbench's {HOME}")
    assert ended.stderr.count("\n") == 1


def test_a_folder_without_init_that_comes_first_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unheard_of").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    ours = packages(tmp_path / "site", ["unheard_of"])
    with pytest.raises(ValueError, match=r"unheard_of finds .*unheard_of, not nashbench's .*site.unheard_of; rename"):
        _check_found("unheard_of", ours)


def test_the_distribution_that_a_foreign_package_is_of_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(packages(tmp_path, ["unheard_of"]), "unheard-of-2.1", ["unheard_of"], FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"unheard_of of unheard-of-2\.1, not nashbench's"):
        _check_found("unheard_of", packages(tmp_path / "site", ["unheard_of"]))


def test_a_package_taken_away_with_another_distribution_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not whole: .*reports has no __init__\.py; run `pip install --force-reinst"):
        _check_found("reports", tmp_path)


def test_a_package_that_another_distribution_has_overwritten_is_refused(tmp_path: Path) -> None:
    record(packages(tmp_path, ROOMS, "ours"), "nashbench-0.1.0", ROOMS, "ours")
    record(tmp_path, "judges-3.0", ["judges"], FOREIGN)
    _check_overwritten(tmp_path)  # installed before ours, which overwrote it: ours is there
    (tmp_path / "judges" / "__init__.py").write_text(FOREIGN)
    with pytest.raises(ValueError, match=r"judges.__init__\.py is not nashbench's: judges-3\.0 has overwritten it"):
        _check_overwritten(tmp_path)


def test_an_installed_file_that_its_user_edits_is_no_other_projects(tmp_path: Path) -> None:
    record(packages(tmp_path, ROOMS, "ours"), "nashbench-0.1.0", ROOMS, "ours")
    (tmp_path / "trainers" / "__init__.py").write_text("ours, edited")
    _check_overwritten(tmp_path)


def test_an_installation_overwritten_by_a_judges_from_pypi_exits_2_from_its_own_files(tmp_path: Path) -> None:
    for room in ROOMS:
        shutil.copytree(HOME / room, tmp_path / "site" / room, ignore=shutil.ignore_patterns("__pycache__"))
    record(tmp_path / "site", "nashbench-0.1.0", ["judges"], (HOME / "judges" / "__init__.py").read_text())
    record(tmp_path / "site", "judges-3.0", ["judges"], FOREIGN)
    (tmp_path / "site" / "judges" / "__init__.py").write_text(FOREIGN)
    ended = run("-m", "harness", "list", "judges", cwd=tmp_path, path=[tmp_path / "site"])
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith(f"error: {tmp_path / 'site' / 'judges' / '__init__.py'} is not nashbench's")


@pytest.mark.parametrize("first", ["", "here"])
def test_the_working_directory_leaves_the_import_path_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = [first and str(tmp_path), "/lib", str(tmp_path)]  # the last one by PYTHONPATH or a .pth file
    leave_working_directory(path)
    assert path == ["/lib", str(tmp_path)]


@pytest.mark.parametrize("home", ["here", "elsewhere"])
def test_a_checkout_in_the_working_directory_and_a_scripts_folder_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = [str(tmp_path) if home == "here" else "/bin", "/lib"]
    kept = list(path)
    leave_working_directory(path, tmp_path if home == "here" else HOME)
    assert path == kept


def test_a_deleted_working_directory_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    check_imports()
    monkeypatch.chdir(tmp_path)  # or the fixture could not leave it


def test_the_guard_imports_none_of_our_packages_and_the_command_line_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, harness.cli; harness.cli.check_imports(); print(*{m.partition('.')[0] for m in sys.modules})"
    assert not set(run("-c", code, cwd=tmp_path).stdout.split()) & {*ROOMS[1:], "rich", "typer", "importlib_metadata"}
    loaded = run("-c", "import sys, harness.cli.app; print(*sys.modules)", cwd=tmp_path).stdout.split()
    assert "typer" in loaded
    heavy = {"torch", "transformers", "pandas", "numpy", "scipy", "sklearn", "openai", "pyarrow", "jinja2", "reports"}
    assert not heavy & set(loaded)
