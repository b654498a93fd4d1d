"""No change of shared machinery goes unnoticed by the versions of the stages that rest on it."""

from __future__ import annotations

import json

import pytest
from code_lock import LOCK, changed, current, kinds, modules_of


@pytest.fixture(scope="module")
def now() -> dict:
    return current()


def test_machinery_is_as_it_was_when_the_versions_were_given(now: dict) -> None:
    stale = changed(json.loads(LOCK.read_text()), now)
    assert not stale, (
        f"shared code changed under kinds of stages: {stale}; "
        "raise their `version` and run `python tests/code_lock.py`, or add --same WHY where no result changes"
    )


def test_the_lock_knows_every_kind_with_its_version_and_every_module(now: dict) -> None:
    lock = json.loads(LOCK.read_text())
    assert lock["kinds"] == now["kinds"], "run `python tests/code_lock.py`"


def test_a_changed_loop_is_seen_by_the_fit_alone_and_a_raised_version_settles_it(now: dict) -> None:
    other = json.loads(json.dumps(now))
    other["modules"]["trainers.fitting.fit"] = "another"
    assert "fit" in changed(now, other)
    assert "rate" not in changed(now, other)
    other["kinds"]["fit"]["version"] += 1
    assert "fit" not in changed(now, other)


def test_a_fit_rests_on_loop_optimiser_and_log_probabilities_and_no_stage_on_leaf_code_or_the_runner() -> None:
    by_kind = {kind.kind: set(modules_of(kind)) for kind in kinds()}
    loop = {"trainers.fitting.fit", "trainers.fitting.optimise", "trainers.fitting.log_probs", "trainers.algorithm"}
    assert loop <= by_kind["fit"]
    assert "judges.tournament" in by_kind["pair"]
    for modules in by_kind.values():
        assert not [m for m in modules if m.startswith(("trainers.algorithms.", "judges.kinds.", "harness.run"))]
