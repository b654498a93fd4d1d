"""What is imported is declared, what is declared is used, and constraints.txt leaves room for vLLM."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("harness", "trainers", "judges", "leaderboards", "reports")
DISTRIBUTIONS = {"yaml": "pyyaml", "sklearn": "scikit-learn"}  # of imports that are named otherwise
USED_WITHOUT_IMPORT = {
    "alpaca-eval",  # its evaluator's prompt and decoding are read as files (judges/protocols/alpaca_eval.py)
    "setuptools",  # pkg_resources, for alpaca-eval
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def declared(*extras: str) -> dict[str, Requirement]:
    """The plain install's requirements and those of these extras, by canonical name."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return {canonicalize_name(parsed.name): parsed for parsed in map(Requirement, lines)}


@cache
def imported(*folders: str) -> dict[str, str]:
    """Distributions that the code in these folders imports at any depth, each with a file that does."""
    own = {*ROOMS, "benchmarks", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    files = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    pairs = ((name, file) for file in files for name in imports(ast.parse(file.read_text(encoding="utf-8"))))
    return {
        canonicalize_name(DISTRIBUTIONS.get(name, name)): str(file.relative_to(ROOT))
        for name, file in pairs
        if name not in sys.stdlib_module_names and name not in own
    }


def imports(tree: ast.AST) -> Iterator[str]:
    """Top-level names of all absolute imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def undeclared(folders: Iterable[str], *extras: str) -> dict[str, str]:
    return {name: file for name, file in imported(*folders).items() if name not in declared(*extras)}


def test_every_import_of_the_five_packages_is_declared_by_the_plain_install_or_by_the_vllm_extra() -> None:
    assert undeclared(ROOMS, "vllm") == {}


def test_benchmarks_and_tests_import_only_what_their_extras_declare() -> None:
    assert undeclared(["benchmarks"], "vllm", "bench") == {}
    assert undeclared(["tests"], "dev") == {}


def test_every_declared_dependency_is_imported_or_its_files_are_read() -> None:
    assert declared("vllm").keys() == {*imported(*ROOMS), *USED_WITHOUT_IMPORT}
    assert not USED_WITHOUT_IMPORT & imported(*ROOMS).keys()


def test_every_dependency_and_tool_is_pinned_at_a_version_that_it_allows() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if line)}
    wrong = [str(asked) for name, asked in declared("dev").items() if pins.get(name, "") not in asked.specifier]
    assert wrong == []


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_vllm_resolves_beside_the_pinned_versions() -> None:
    if sys.platform != "linux" or pip("index", "versions", "vllm").returncode:
        pytest.skip("no package index that offers vllm is within reach")
    asked = [str(requirement) for requirement in declared("dev").values()]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    ended = pip("install", "--dry-run", "--ignore-installed", *constraints, "vllm==0.32.0", *asked)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "vllm-0.32.0" in ended.stdout.splitlines()[-1]
