"""Algorithms of other people on a language model's plan: slots, win rates and rewards that a refit has or refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from conftest import Workspace
from torch import Tensor

from harness.config import load_config
from harness.planning.plan import Plan, make_plan
from harness.planning.win_rates import check_win_rates
from harness.registry import load
from harness.stages.fit import Fit
from harness.stages.stream import Stream
from trainers.algorithm import Algorithm, PairBatch, Pairing, Phase, Player, Schedule

Plans = Callable[..., Plan]


@dataclass(frozen=True, kw_only=True)
class Theirs(Algorithm):
    """What a third party may declare."""

    name = "theirs"
    schedule = Schedule.REFIT
    phases = (Phase(start="policy", frozen=("previous", "earlier"), writes="policy"),)
    equation = source = ""

    def loss(self, pair: PairBatch) -> Tensor:
        return pair.log_ratio("earlier").square()


def declared(**attributes: Any) -> type[Algorithm]:
    return type("Theirs", (Theirs,), {"__module__": __name__, **attributes})


def against(*opponents: str, writes: str = "policy") -> tuple[Phase, ...]:
    return (Phase(start="policy", frozen=("previous",), writes=writes, opponents=opponents),)


@pytest.fixture
def plans(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Plans:
    """The plan of three iterations of one algorithm."""

    def planned(algorithm: type[Algorithm]) -> Plan:
        for room in ("harness.registry", "harness.components", "harness.planning.boards"):
            monkeypatch.setattr(
                f"{room}.load", lambda kind, name: algorithm if name == "theirs" else load(kind, name), raising=False
            )
        matrix = {"trainer": ["theirs"], "judge": [{"name": "panel", "panel": "panel.yaml"}]}
        return make_plan(load_config(workspace.config(matrix=matrix, iterations=3)))

    return planned


def test_earlier_is_the_policy_one_iteration_before_previous(plans: Plans) -> None:
    (cell,) = [cell for cell in plans(Theirs).cells if cell.algorithm is not None]
    fits = [stage for stage in cell.stages if isinstance(stage, Fit)]
    starts = [fit.start for fit in fits]
    assert [fit.frozen["previous"].policy for fit in fits] == starts
    assert [fit.frozen["earlier"].policy for fit in fits] == [starts[0], starts[0], starts[1]]


def test_a_stream_may_be_held_against_earlier_too(plans: Plans) -> None:
    (cell,) = [cell for cell in plans(declared(schedule=Schedule.STREAM)).cells if cell.algorithm is not None]
    streams = [stage for stage in cell.stages if isinstance(stage, Stream)]
    assert [s.frozen["earlier"] for s in streams] == [streams[0].start, streams[0].start, streams[1].start]


def test_responses_of_a_refit_are_drawn_at_the_algorithms_temperature(plans: Plans) -> None:
    (cell,) = [cell for cell in plans(declared(temperature=1.7)).cells if cell.algorithm is not None]
    assert {stage.sampling.temperature for stage in cell.stages if stage.kind == "sample"} == {1.7}
    assert {stage.sampling.temperature for stage in cell.stages if stage.kind == "answer"} == {1.0}


@pytest.mark.parametrize(
    ("player", "opponents"),
    [
        (Player.POLICY, ("previous",)),
        (Player.POLICY, ("policy",)),
        (Player.REFERENCE, ("reference",)),
        (Player.MIXTURE, ("mixture",)),
    ],
)
def test_win_rates_against_whoever_drew_the_responses_are_there(player: Player, opponents: tuple[str, ...]) -> None:
    check_win_rates(declared(player=player, phases=against(*opponents))())


@pytest.mark.parametrize(
    ("attributes", "fact"),
    [
        ({"phases": against("reference")}, "against 'reference'"),
        ({"phases": against("previous", "earlier")}, "against 'earlier'"),
        ({"phases": against("previous"), "player": Player.REFERENCE}, "against 'previous'"),
        ({"phases": against() + against("policy")}, "against 'policy'"),  # which the first phase has changed
        ({"phases": against("previous"), "temperature": 2.0}, "a temperature of its own"),
        ({"phases": against("previous"), "reward": lambda self, preference: preference.logit()}, "has a `reward`"),
    ],
)
def test_rewards_that_a_refit_does_not_have_are_refused_when_planned(
    plans: Plans, attributes: dict[str, Any], fact: str
) -> None:
    pairing = Pairing(protocol="best-worst")
    with pytest.raises(ValueError, match="theirs: ") as refused:
        plans(declared(pairing=pairing, **attributes))
    assert fact in str(refused.value)
    assert "stream schedule" in str(refused.value)
