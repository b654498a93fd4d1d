"""What the report says of judges: who predicts votes better than whom, with which interval, and only where it is so."""

from pathlib import Path
from typing import Any

import pytest
import reports_world as world

from reports.sections.common import Prose
from reports.sections.judges import held_out
from reports.tables import Sweep, read_sweep

NO_TEST = {"p_value": None, "p_adjusted": None}


def rows(
    values: dict[str, float],
    p_values: dict[frozenset[str], float],
    metric: str = "log_loss",
    adjusted: float | None = None,
) -> list[Any]:
    """The table of judges for these values: in either order, intervals 0.004 wide, adjusted p equal by default."""
    found = []
    for a, value in values.items():
        base = {"judge": a, "metric": metric, "n": 500, "coverage": 1.0}
        found.append({**base, "against": "", "value": value, "ci_low": None, "ci_high": None, **NO_TEST})
        for b, other in values.items():
            ends = {"ci_low": value - other - 0.002, "ci_high": value - other + 0.002}
            if a != b:
                p = p_values[frozenset((a, b))]
                tested = {"p_value": p, "p_adjusted": p if adjusted is None else adjusted}
                found.append({**base, "against": b, "value": value - other, **tested, **ends})
    return found


def said(table: list[Any]) -> list[str]:
    (of,) = held_out([Sweep(name="s", judges=table, metrics=world.METRICS)])
    return [text(sentence) for sentence in of["sentences"]]


def text(sentence: Prose) -> str:
    return "".join(part if isinstance(part, str) else part.text for part in sentence)


def test_the_better_judge_comes_first_with_difference_interval_and_p() -> None:
    (sentence,) = said(rows({"llm": 0.68, "pairrm": 0.67}, {frozenset(("llm", "pairrm")): 0.03}))
    assert sentence.startswith("pairrm predicts held-out votes better than llm: difference in log-loss −0.0100 nats")
    assert "(interval −0.0120 to −0.0080, adjusted p = 0.030, n = 500)" in sentence


def test_a_difference_is_sure_by_its_adjusted_p_value_alone() -> None:
    (sentence,) = said(rows({"llm": 0.68, "pairrm": 0.67}, {frozenset(("llm", "pairrm")): 0.03}, adjusted=0.06))
    assert sentence.startswith("pairrm and llm are not separable")
    assert "adjusted p = 0.060" in sentence


def test_judges_that_are_not_separable_are_said_to_be_so() -> None:
    (sentence,) = said(rows({"llm": 0.6701, "reward-model": 0.6702}, {frozenset(("llm", "reward-model")): 0.6}))
    assert sentence.startswith("llm and reward-model are not separable")
    assert "one score" not in sentence


def test_higher_is_better_for_the_accuracy() -> None:
    (sentence,) = said(rows({"llm": 0.6, "pairrm": 0.7}, {frozenset(("llm", "pairrm")): 0.001}, "accuracy"))
    assert sentence.startswith("pairrm predicts held-out votes better than llm: difference in accuracy +0.100")


@pytest.mark.parametrize(("p", "scalar", "explained"), [(0.001, 0.69, True), (0.2, 0.69, False), (0.001, 0.66, False)])
def test_why_a_scalar_score_loses_is_said_only_where_it_does(p: float, scalar: float, explained: bool) -> None:
    sentences = said(rows({"pairrm": 0.67, "reward-model": scalar}, {frozenset(("pairrm", "reward-model")): p}))
    assert any("gives each response one score" in sentence for sentence in sentences) is explained


def test_each_pair_is_shown_once_and_judges_best_first(tmp_path: Path) -> None:
    (of,) = held_out([read_sweep(world.language_sweep(tmp_path))])
    losses, accuracies = of["metrics"]
    assert [line["row"]["judge"] for line in losses["judges"]] == ["llm", "pairrm", "reward-model"]
    assert [line["row"]["judge"] for line in accuracies["judges"]] == ["llm", "pairrm", "reward-model"]
    pairs = [(line["row"]["judge"], line["row"]["against"], line["sure"]) for line in losses["differences"]]
    assert pairs == [("llm", "reward-model", True), ("pairrm", "reward-model", True), ("llm", "pairrm", False)]
    assert all(line["value"].value < 0 for line in losses["differences"])
    assert all(line["value"].value > 0 for line in accuracies["differences"])


def test_an_unknown_metric_is_shown_without_a_claim() -> None:
    (of,) = held_out([Sweep(name="s", judges=rows({"a": 1.0, "b": 2.0}, {frozenset("ab"): 0.001}, "mystery"))])
    assert of["sentences"] == []
    assert of["metrics"][0]["metric"].label == "mystery"


def test_without_a_table_there_is_nothing() -> None:
    assert held_out([Sweep(name="s")]) == []
