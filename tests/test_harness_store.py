"""The store: artifacts appear whole or not at all, and a verdict is kept once, under everything that determines it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_stages import fake

from harness.stage import Stage
from harness.store.artifacts import Store, content_hash
from harness.store.integrity import MANIFEST
from harness.store.scratch import scratch_prefix
from harness.store.verdicts import VerdictStore, verdict_key
from judges.judge import Question
from judges.verdicts import Answer

STAGE = fake("play", {"iterations": 3}, title="a game")
ROOT = Path(__file__).resolve().parents[1]


def files(store: Store) -> list[str]:
    return sorted(str(p.relative_to(store.root)) for p in store.root.rglob("*") if p.is_file())


def test_an_artifact_appears_whole_with_its_manifest_when_the_block_ends(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.writing(STAGE) as (folder, facts):
        (folder / "part").mkdir()
        (folder / "part" / "data.txt").write_text("three")
        facts["work"] = {"steps": 3}
        assert not store.has(STAGE)
        assert not store.path(STAGE).exists()
        assert not (folder / MANIFEST).exists()
    assert store.has(STAGE)
    manifest = store.manifest(STAGE)
    sha256 = hashlib.sha256(b"three").hexdigest()
    assert manifest["files"] == {"part/data.txt": {"bytes": 5, "sha256": sha256}}
    assert (manifest["key"], manifest["kind"], manifest["work"]) == (STAGE.key, "play", {"steps": 3})
    assert list((store.root / "tmp").iterdir()) == []


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def write_half() -> None:
        with store.writing(STAGE) as (folder, _):
            (folder / "data.txt").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert not store.has(STAGE)
    assert files(store) == ["format.json"]


def test_a_writer_killed_half_way_leaves_no_visible_artifact_and_does_not_stop_the_next(tmp_path: Path) -> None:
    script = f"""
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, "tests")
        from fake_stages import fake
        from harness.store.artifacts import Store
        with Store(Path({str(tmp_path)!r})).writing(fake("play", {{"iterations": 3}})) as (folder, _):
            (folder / "data.txt").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    store = Store(tmp_path)
    assert [Path(name).name for name in files(store)] == ["format.json", "data.txt"]  # in tmp/, where nobody looks
    assert not store.has(STAGE)
    assert not store.path(STAGE).exists()
    with store.writing(STAGE) as (folder, _):
        (folder / "data.txt").write_text("whole")
    assert (store.path(STAGE) / "data.txt").read_text() == "whole"


def test_of_two_writers_of_one_stage_the_quicker_ones_artifact_stands(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writing(STAGE) as (slow, _):
        (slow / "data.txt").write_text("slow")
        with store.writing(STAGE) as (quick, _):
            (quick / "data.txt").write_text("quick")
    assert (store.path(STAGE) / "data.txt").read_text() == "quick"
    assert list((store.root / "tmp").iterdir()) == []


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.path(STAGE).mkdir(parents=True)
    (store.path(STAGE) / "data.txt").write_text("half")
    assert not store.has(STAGE)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="cannot be written"):
        Store(tmp_path / "store").prepare()


def test_a_store_on_a_disk_that_cannot_be_written_says_so_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: object) -> None:
        raise OSError(30, "Read-only file system")

    Store(tmp_path).prepare()
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ValueError, match="cannot be written: Read-only file system"):
        Store(tmp_path).prepare()


def test_folders_of_dead_writers_are_cleared_away_and_those_of_living_and_of_other_hosts_stay_for_a_day(
    tmp_path: Path,
) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    own, host = scratch_prefix("fit"), scratch_prefix("fit").split("~")[2]
    names = [f"{own}a", f"fit~{dead.pid}~{host}~b", f"fit~{os.getpid()}~elsewhere~c", "fit~1~elsewhere~d", "fit-old"]
    for name in names:
        (tmp_path / "tmp" / name).mkdir(parents=True)
        (tmp_path / "tmp" / name / "data").touch()
    for name in (names[0], *names[3:]):  # not changed for two days
        for path in (tmp_path / "tmp" / name / "data", tmp_path / "tmp" / name):
            os.utime(path, (time.time() - 2e5,) * 2)
    Store(tmp_path).prepare()
    assert sorted(path.name for path in (tmp_path / "tmp").iterdir()) == sorted([names[0], names[2]])


# --- unfinished work ---------------------------------------------------------------------------------------------


def leave_unfinished(store: Store, stage: Stage, age: float) -> Path:
    """Work under way at a stage, as a killed process leaves it, last changed so many seconds ago."""
    state = store.unfinished(stage) / "step-3" / "state"
    state.parent.mkdir(parents=True)
    state.write_text("half way")
    for path in (state, state.parent, store.unfinished(stage)):
        os.utime(path, (time.time() - age,) * 2)
    return store.unfinished(stage)


def test_what_is_left_of_stages_that_are_done_is_cleared_away_and_the_work_of_others_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    stages = {name: fake("fit", {"name": name}) for name in ("done", "under way", "at work", "long dead")}
    age = {"done": 60.0, "under way": 1e6, "at work": -60.0, "long dead": -60.0}
    folders = {name: leave_unfinished(store, stage, age[name]) for name, stage in stages.items()}
    for name in ("done", "at work", "long dead"):
        with store.writing(stages[name]) as (out, _):
            (out / "data.txt").write_text(name)
    days = time.time() - 2e5
    os.utime(store.path(stages["long dead"]) / MANIFEST, (days, days))  # killed after the artifact came, days ago
    for path in (folders["long dead"], *folders["long dead"].rglob("*")):
        os.utime(path, (days + 60, days + 60))
    store.prepare()
    assert {name for name, folder in folders.items() if folder.exists()} == {"under way", "at work"}
    assert (folders["under way"] / "step-3" / "state").read_text() == "half way"
    assert all(store.has(stages[name]) for name in ("done", "at work", "long dead"))


def test_work_that_another_process_clears_away_at_the_same_moment_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    folder = leave_unfinished(store, STAGE, 60)
    with store.writing(STAGE):
        pass
    there = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        if path.name == "step-3":
            shutil.rmtree(folder)
        return there(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    store.prepare()
    assert not folder.exists()


# --- fingerprints of files ---------------------------------------------------------------------------------------


def test_content_hashes_follow_names_and_contents_but_not_hidden_files_or_times(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("abc")
    before = content_hash(tmp_path / "model")
    (tmp_path / "model" / ".cache").write_text("noise")
    os.utime(tmp_path / "model" / "weights", (1, 1))
    assert content_hash(tmp_path / "model") == before
    (tmp_path / "model" / "weights").rename(tmp_path / "model" / "renamed")
    assert content_hash(tmp_path / "model") != before


# --- verdicts ----------------------------------------------------------------------------------------------------


def hexkey(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def test_verdicts_are_found_again_in_full_by_another_process_failures_with_their_words_too(tmp_path: Path) -> None:
    good, bad = Answer(0.25, "ok", 12, 3, 0.5, 0.01, "B is better", True, 2), Answer.failure("unparsed", "hm \ud83d")
    store = Store(tmp_path)
    store.verdicts.add({hexkey("good"): good, hexkey("bad"): bad, hexkey("lost"): Answer.failure("timeout")})
    store.verdicts.close()
    found = VerdictStore(tmp_path / "verdicts").find(map(hexkey, ["good", "bad", "lost", "unknown"]))
    assert found.keys() == {hexkey("good"), hexkey("bad")}
    assert found[hexkey("good")] == replace(good, calls=0)  # nothing is called now
    assert repr(found[hexkey("bad")]) == repr(bad)
    kept = "".join(path.read_text() for path in (tmp_path / "verdicts").glob("*.jsonl"))
    assert '"status": "timeout"' in kept
    assert '"calls": 2' in kept


def test_the_first_answer_to_a_question_stands_and_a_failed_call_gives_way(tmp_path: Path) -> None:
    verdicts = Store(tmp_path).verdicts
    for answer in (Answer.failure("http-503"), Answer.failure("refusal"), Answer(0.25), Answer(0.75)):
        verdicts.add({hexkey("x"): answer})
        if answer.status != "http-503":
            verdicts.add({hexkey("y"): answer})
    found = verdicts.find([hexkey("x"), hexkey("y")])
    assert [answer.status for answer in found.values()] == ["refusal", "refusal"]
    verdicts.add({hexkey("z"): Answer.failure("timeout")})
    assert verdicts.find([hexkey("z")]) == {}
    verdicts.add({hexkey("z"): Answer(0.5)})
    assert verdicts.find([hexkey("z")]) == {hexkey("z"): Answer(0.5)}


def test_a_process_opens_a_stores_verdicts_and_replies_once(tmp_path: Path) -> None:
    one, two = Store(tmp_path), Store(tmp_path)
    assert one.verdicts is two.verdicts
    assert one.replies is two.replies
    assert list(tmp_path.iterdir()) == []


def test_a_verdicts_key_tells_judge_prompt_first_second_and_order_apart() -> None:
    question = Question("p", "a", "b")
    chat = Question([{"role": "user", "content": "p"}], "a", "b")
    others = [Question("q", "a", "b"), Question("p", "b", "a"), Question("p", "a", "c"), Question("pa", "", "b"), chat]
    assert len({verdict_key("judge", q) for q in [question, *others]} | {verdict_key("other", question)}) == 7


def test_a_manifest_is_readable_json_with_the_keys_of_the_inputs(tmp_path: Path) -> None:
    store, source = Store(tmp_path), fake("play", {"x": 1})
    with store.writing(fake("gap", {}, {"run": source})):
        pass
    (path,) = tmp_path.rglob(MANIFEST)
    assert json.loads(path.read_text())["identity"]["inputs"] == {"run": source.key}
