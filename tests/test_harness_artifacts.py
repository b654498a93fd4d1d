"""Artifacts are checked when read; damage is moved away, told, and computed again; a full disk is one message."""

from __future__ import annotations

import errno
import json
import math
import os
import pickle
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended
from fake_stages import fake

from harness.stage import Stage
from harness.stages.context import Context, ModelCache
from harness.store import integrity
from harness.store.artifacts import DamagedArtifact, Store
from harness.store.integrity import MANIFEST, Difference, Verifier, file_hash

Command = Callable[..., Ended]
STAGE = fake("play", {"iterations": 3}, title="a game")


# --- damage ------------------------------------------------------------------------------------------------------


def fill(store: Store, stage: Stage = STAGE, content: str = "whole") -> Path:
    with store.writing(stage) as (out, facts):
        (out / "model").mkdir()
        (out / "model" / "weights").write_text("abc")
        (out / "data.txt").write_text(content)
        facts["seconds"] = 1.5
    return store.path(stage)


def overwrite(path: Path, content: str) -> None:
    """Change a file and its time of change, as whoever changes a file does, whatever the clock's steps are."""
    path.write_text(content)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))


def edit_manifest(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "seconds": 9.0}))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (lambda f: overwrite(f / "data.txt", "WHOLE"), "data.txt has another content: SHA-256 "),
    "truncated": (lambda f: overwrite(f / "data.txt", "wh"), "data.txt has 2 bytes, not the 5 of the manifest"),
    "longer": (lambda f: overwrite(f / "model" / "weights", "abcd"), "model/weights has 4 bytes, not the 3 of"),
    "empty": (lambda f: overwrite(f / "data.txt", ""), "data.txt has 0 bytes"),
    "missing": (lambda f: (f / "model" / "weights").unlink(), "model/weights is missing"),
    "missing folder": (lambda f: shutil.rmtree(f / "model"), "model/weights is missing"),
    "empty manifest": (lambda f: overwrite(f / MANIFEST, ""), "manifest.json is empty"),
    "truncated manifest": (lambda f: overwrite(f / MANIFEST, '{"kind": "pl'), "manifest.json is no JSON: "),
    "changed manifest": (edit_manifest, "manifest.json has another content than was written"),
    "bytes for a manifest": (lambda f: (f / MANIFEST).write_bytes(b"\xff\0\x80"), "manifest.json is no JSON: "),
    "a list for a manifest": (lambda f: overwrite(f / MANIFEST, "[]"), "manifest.json has another content"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "manifest.json is missing"),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_a_damaged_artifact_is_moved_away_told_and_computed_again(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage, difference = DAMAGE[fault]
    folder = fill(Store(tmp_path))
    damage(folder)
    left = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    store = Store(tmp_path)  # as the next process sees it
    with pytest.raises(DamagedArtifact, match=re.escape(difference)) as raised:
        store.open(STAGE)
    assert (raised.value.kind, raised.value.key) == (STAGE.kind, STAGE.key)
    assert not store.has(STAGE)
    (moved,) = (tmp_path / "quarantine").iterdir()
    assert moved.name.startswith(f"play-{STAGE.key}-")
    assert {path.relative_to(moved): path.read_bytes() for path in moved.rglob("*") if path.is_file()} == left
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert all(part in record.getMessage() for part in (str(folder), difference, str(moved)))
    fill(store)
    assert (store.open(STAGE) / "data.txt").read_text() == "whole"


@pytest.mark.parametrize("fault", ["empty manifest", "no manifest"])
def test_what_is_there_without_a_manifest_counts_as_missing_and_gives_way(tmp_path: Path, fault: str) -> None:
    store = Store(tmp_path)
    DAMAGE[fault][0](fill(store, content="left"))
    assert not store.has(STAGE)
    fill(store)
    assert (store.open(STAGE, "data.txt")).read_text() == "whole"
    (moved,) = (tmp_path / "quarantine").iterdir()
    assert (moved / "data.txt").read_text() == "left"


def test_the_manifest_of_another_stage_is_damage(tmp_path: Path) -> None:
    store, other = Store(tmp_path), fake("play", {"iterations": 4})
    shutil.copy(fill(store, other) / MANIFEST, fill(store) / MANIFEST)
    with pytest.raises(DamagedArtifact, match=f"is that of play {other.key}"):
        store.manifest(STAGE)
    assert not store.has(STAGE)
    assert store.has(other)


def test_facts_survive_the_manifests_own_checksum(tmp_path: Path) -> None:
    facts = {"by number": {10: (1, 2), 9: math.pi}, "text": "\ud800 \0 é", "nothing": float("nan")}
    with Store(tmp_path).writing(STAGE) as (_, written):
        written.update(facts)
    read = Store(tmp_path).manifest(STAGE)
    assert read["by number"] == {"10": [1, 2], "9": math.pi}
    assert read["text"] == facts["text"]
    assert math.isnan(read["nothing"])


def test_an_artifact_that_is_not_there_is_to_be_computed_and_nothing_is_moved(tmp_path: Path) -> None:
    with pytest.raises(DamagedArtifact, match="missing") as raised:
        Store(tmp_path).open(STAGE)
    assert not list(tmp_path.glob("quarantine/*"))
    assert pickle.loads(pickle.dumps(raised.value)).key == STAGE.key  # it comes from a worker process


def test_damage_that_another_process_has_repaired_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = Store(tmp_path), Store(tmp_path)
    overwrite(fill(ours) / "data.txt", "half")

    def check(self: Verifier, folder: Path, part: str = "") -> dict[str, object]:
        theirs.quarantine(folder, "seen first by another process")
        fill(theirs)
        raise Difference("data.txt has 4 bytes")

    with monkeypatch.context() as patch:
        patch.setattr(Verifier, "check", check)
        with pytest.raises(DamagedArtifact):
            ours.open(STAGE)
    assert (ours.open(STAGE) / "data.txt").read_text() == "whole"
    assert len(list((tmp_path / "quarantine").iterdir())) == 1


def test_a_stage_that_finds_its_input_damaged_says_which(tmp_path: Path) -> None:
    store = Store(tmp_path)
    overwrite(fill(store) / "data.txt", "half")
    reader = fake("gap", {}, {"run": STAGE})

    def compute() -> None:
        with store.writing(reader) as (out, _):
            Context(reader, store, out, lambda done, total: None, ModelCache()).read(STAGE)

    with pytest.raises(DamagedArtifact) as raised:
        compute()
    assert raised.value.key == STAGE.key
    assert not store.has(STAGE)
    assert list((tmp_path / "tmp").iterdir()) == []


# --- how often is looked -----------------------------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were hashed, in order."""
    names: list[str] = []

    def counting(path: Path) -> str:
        names.append(path.name)
        return file_hash(path)

    monkeypatch.setattr(integrity, "file_hash", counting)
    return names


def test_content_is_read_once_in_a_process_and_by_its_writer_as_it_writes(tmp_path: Path, hashed: list[str]) -> None:
    writer = Store(tmp_path)
    fill(writer)
    assert hashed == ["data.txt", "weights"]
    writer.open(STAGE)
    assert hashed == ["data.txt", "weights"]
    hashed.clear()
    reader = Store(tmp_path)
    assert reader.open(STAGE, "data.txt") == reader.path(STAGE) / "data.txt"
    assert hashed == ["data.txt"]
    reader.open(STAGE, "model")
    assert hashed == ["data.txt", "weights"]
    reader.open(STAGE)
    assert hashed == ["data.txt", "weights"]


def test_sizes_are_looked_at_every_time_and_content_again_when_the_file_is_younger(
    tmp_path: Path, hashed: list[str]
) -> None:
    store = Store(tmp_path)
    folder = fill(store)
    store.open(STAGE)
    overwrite(folder / "data.txt", "WHOLE")
    with pytest.raises(DamagedArtifact, match=r"data\.txt has another content"):
        store.open(STAGE)
    folder = fill(store)
    hashed.clear()
    (folder / "data.txt").write_text("w")
    with pytest.raises(DamagedArtifact, match="1 bytes"):
        store.open(STAGE, "model/weights")
    assert hashed == []


def test_large_files_are_read_once_for_all_processes_until_they_change(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "LARGE", 4)  # data.txt has 5 bytes
    folder = fill(Store(tmp_path))
    hashed.clear()
    Store(tmp_path).open(STAGE)
    assert hashed == ["weights"]
    os.utime(folder / "data.txt", (1, 1))
    Store(tmp_path).open(STAGE)
    Store(tmp_path).open(STAGE)
    assert hashed == ["weights", "data.txt", "weights", "weights"]
    (tmp_path / "verified.jsonl").write_text("to")  # a torn line
    Store(tmp_path).open(STAGE)
    assert hashed[-2:] == ["data.txt", "weights"]
    overwrite(folder / "data.txt", "WHOLE")
    with pytest.raises(DamagedArtifact):
        Store(tmp_path).open(STAGE)


def test_whether_an_artifact_is_there_is_one_look_at_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    fill(store)
    looks: list[object] = []
    there = os.stat
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda path, **options: looks.append(path) or there(path, **options))
        patch.setattr("builtins.open", None)
        assert store.has(STAGE)
    assert looks == [f"{store.path(STAGE)}/{MANIFEST}"]


# --- the disk ----------------------------------------------------------------------------------------------------


def test_files_are_on_the_disk_before_the_manifest_and_the_folder_after_its_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path).prepare()  # the format file is not what is looked at here
    done: list[tuple[str, Path]] = []
    fsync, rename, opened = os.fsync, os.rename, os.open
    paths: dict[int, Path] = {}

    def opening(path: Path, *arguments: int, **options: int) -> int:
        handle = opened(path, *arguments, **options)
        paths[handle] = Path(path)
        return handle

    def syncing(handle: int) -> None:
        done.append(("manifest there" if (inside(paths[handle]) / MANIFEST).exists() else "sync", paths[handle]))
        fsync(handle)

    def inside(path: Path) -> Path:
        return next((p for p in (path, *path.parents) if p.parent.name == "tmp"), path)

    def renaming(source: Path, target: Path) -> None:
        done.append(("rename", Path(target)))
        rename(source, target)

    for name, function in (("fsync", syncing), ("rename", renaming), ("open", opening)):
        monkeypatch.setattr(os, name, function)
    folder = fill(Store(tmp_path))
    before = done.index(("rename", folder))
    names = [(step, path.name) for step, path in done[:before]]
    tmp = done[0][1].parent.parent.name
    assert names == [
        ("sync", "weights"),
        ("sync", "model"),
        ("sync", "data.txt"),
        ("sync", tmp),
        ("manifest there", MANIFEST),
    ]
    assert [path for _, path in done[before + 1 :]] == [folder.parent]


def refusing(number: int, refused: Callable[[int], bool]) -> Callable[[int], None]:
    """An `os.fsync` that fails with an errno for some kinds of files, by their mode."""

    def fsync(handle: int) -> None:
        if refused(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))

    return fsync


def test_a_file_system_that_cannot_flush_folders_is_no_error_and_a_file_that_is_not_taken_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL, stat.S_ISDIR))
    fill(store)
    assert store.has(STAGE)
    other = fake("play", {"iterations": 4})
    for number, kind in ((errno.EINVAL, stat.S_ISREG), (errno.EIO, stat.S_ISREG), (errno.EIO, stat.S_ISDIR)):
        monkeypatch.setattr(os, "fsync", refusing(number, kind))
        with pytest.raises(OSError, match=re.escape(os.strerror(number))):
            fill(store, other)
        assert not store.has(other)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("moment", ["while the stage writes", "with the manifest"])
def test_a_full_or_read_only_disk_is_one_message_and_leaves_nothing_half_written(
    tmp_path: Path, number: int, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, kept = Store(tmp_path), fake("play", {"iterations": 4})
    fill(store, kept)

    def write() -> None:
        with store.writing(STAGE) as (out, _):
            (out / "data.txt").write_text("half")
            if moment == "while the stage writes":
                raise OSError(number, os.strerror(number))
            monkeypatch.setattr(os, "fsync", refusing(number, stat.S_ISREG))

    with pytest.raises(ValueError, match=f"the store .* cannot be written: {os.strerror(number)}; make room") as raised:
        write()
    assert "\n" not in str(raised.value)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert store.has(kept)
    assert not store.has(STAGE)


def test_a_library_that_words_a_full_disk_is_understood_and_errors_elsewhere_are_let_through(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    def fail(error: Exception) -> None:
        with store.writing(STAGE):
            raise error

    with pytest.raises(ValueError, match="cannot be written"):
        fail(RuntimeError("io error: No space left on device (os error 28)"))
    elsewhere = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/elsewhere/cache")
    for error in (elsewhere, PermissionError(errno.EACCES, "Permission denied", "prompts.jsonl"), RuntimeError("bug")):
        with pytest.raises(type(error)) as raised:
            fail(error)
        assert raised.value is error


def test_damage_that_cannot_be_moved_is_an_error_and_not_computed_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    folder = fill(store)
    overwrite(folder / "data.txt", "half")

    def rename(source: Path, target: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(source))

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(ValueError, match=r"data\.txt has 4 bytes.*cannot be written: Read-only"):
        store.open(STAGE)


def test_a_file_that_may_not_be_read_is_not_damage_and_one_that_the_disk_has_lost_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(Store(tmp_path))

    def failing(number: int) -> Callable[[Path], str]:
        def fail(path: Path) -> str:
            raise OSError(number, os.strerror(number), str(path))

        return fail

    monkeypatch.setattr(integrity, "file_hash", failing(errno.EACCES))
    with pytest.raises(PermissionError):
        Store(tmp_path).open(STAGE)
    assert Store(tmp_path).has(STAGE)
    monkeypatch.setattr(integrity, "file_hash", failing(errno.EIO))
    with pytest.raises(DamagedArtifact, match="cannot be read from the disk"):
        Store(tmp_path).open(STAGE)


def test_no_name_that_the_store_gives_is_longer_than_a_file_system_takes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    overwrite(fill(store) / "data.txt", "half")
    with pytest.raises(DamagedArtifact):
        store.open(STAGE)
    longest = 20  # characters of a kind's name
    assert all(len(path.name.encode()) + longest <= 255 for path in tmp_path.rglob("*"))


# --- the format --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda store: store.prepare(), fill], ids=["prepared", "written to"])
def test_a_new_store_gets_its_format_and_is_opened_again(tmp_path: Path, make: Callable[[Store], object]) -> None:
    (tmp_path / "notes.txt").write_text("a file of the user's is no store")
    make(Store(tmp_path))
    assert json.loads((tmp_path / "format.json").read_text()) == {"format": 2}
    make(Store(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["format.json", "notes.txt"]


def test_looking_at_a_store_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    assert not Store(tmp_path / "store").has(STAGE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ['{"format": 1}', '{"format": 3}', "", "\udcff", None])
def test_a_store_of_another_format_is_named_and_left_alone(tmp_path: Path, text: str | None) -> None:
    fill(Store(tmp_path))
    if text is None:  # from before there was a format
        (tmp_path / "format.json").unlink()
    else:
        (tmp_path / "format.json").write_bytes(text.encode(errors="surrogateescape"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))) as raised:
        Store(tmp_path)
    assert "--store NEW" in str(raised.value)
    assert "delete" in str(raised.value)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


# --- the commands ------------------------------------------------------------------------------------------------


def test_ls_counts_artifacts_bytes_and_seconds_by_kind(tmp_path: Path, nashbench: Command) -> None:
    store = Store(tmp_path)
    stages = [*(fake("play", {"iterations": i}) for i in range(3)), fake("gap", {})]
    for number, stage in enumerate(stages):
        os.utime(fill(store, stage) / MANIFEST, (1e9 + number, 1e9 + number))
    DAMAGE["truncated manifest"][0](fill(store, fake("gap", {"a": 1})))
    ended = nashbench("store", "ls", "--store", str(tmp_path), "--json")
    assert ended.code == 0
    listed = json.loads(ended.out)
    play = {"artifacts": 3, "bytes": 24, "seconds": 4.5, "newest": "2001-09-09T01:46:42+00:00"}
    gap = {"artifacts": 1, "bytes": 8, "seconds": 1.5, "newest": "2001-09-09T01:46:43+00:00"}
    assert listed["kinds"] == {"gap": gap, "play": play}
    assert listed["unreadable"] == [str(store.path(fake("gap", {"a": 1})))]
    shown = nashbench("store", "ls", "--store", str(tmp_path)).out
    assert "play" in shown
    assert "1 without a manifest that can be read" in shown
    assert store.has(fake("gap", {"a": 1}))


def test_verify_names_each_damaged_artifact_and_moves_it_only_when_asked(tmp_path: Path, nashbench: Command) -> None:
    store, stages = Store(tmp_path), {fault: fake("play", {"fault": fault}) for fault in DAMAGE}
    fill(store)
    assert nashbench("store", "verify", "--store", str(tmp_path)).code == 0
    for fault, stage in stages.items():
        DAMAGE[fault][0](fill(store, stage))
    ended = nashbench("store", "verify", "--store", str(tmp_path))
    assert ended.code == 1
    lines = [line for line in ended.out.splitlines() if line]
    assert lines[-1] == f"{len(DAMAGE) + 1} artifacts, {len(DAMAGE)} damaged"
    for fault, stage in stages.items():
        assert any(line.startswith(f"{store.path(stage)}: {DAMAGE[fault][1]}") for line in lines), fault
    assert not (tmp_path / "quarantine").exists()
    ended = nashbench("store", "verify", "--store", str(tmp_path), "--quarantine", "--json")
    assert ended.code == 1
    damaged = json.loads(ended.out)["damaged"]
    assert {row["path"] for row in damaged} == {str(store.path(stage)) for stage in stages.values()}
    assert all(Path(row["moved"]).is_dir() for row in damaged)
    ended = nashbench("store", "verify", "--store", str(tmp_path), "--json")
    assert (ended.code, json.loads(ended.out)["artifacts"]) == (0, 1)


def test_verify_reads_large_files_that_were_read_before(
    tmp_path: Path, nashbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "LARGE", 4)
    data = fill(Store(tmp_path)) / "data.txt"
    written = data.stat().st_mtime_ns
    data.write_text("WHOLE")
    os.utime(data, ns=(written, written))  # rotten, as no clock tells
    Store(tmp_path).open(STAGE)
    assert nashbench("store", "verify", "--store", str(tmp_path)).code == 1


def test_the_store_commands_name_a_store_that_is_not_there(tmp_path: Path, nashbench: Command) -> None:
    for command in ("ls", "verify"):
        ended = nashbench("store", command, "--store", str(tmp_path / "nowhere"))
        assert ended.code == 2
        assert "there is no store at" in ended.err
        assert not (tmp_path / "nowhere").exists()
        assert "[bold]Example" not in nashbench("store", command, "--help").out
