"""Audits against human labels: figures by hand and published ones; judges that answer from files; ensembles."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from judges import EnsembleJudge, HumanJudge, Judge, PanelJudge, RecordedJudge
from judges.audit import ask, audit
from judges.files import LabelledPair, Verdict, read_labels, read_verdicts, write_verdicts

LLMBAR = Path(__file__).resolve().parents[2] / "shared" / "data" / "judge_agreement" / "llmbar_natural"


def pairs(*labels: str, prompts: list[str] | None = None) -> list[LabelledPair]:
    names = prompts or [f"p{i}" for i in range(len(labels))]
    return [LabelledPair(str(i), names[i], "long text", "short", (label,)) for i, label in enumerate(labels)]


def verdicts(original: list[float | None], swapped: list[float | None]) -> list[Verdict]:
    rows = []
    for order, column in (("original", original), ("swapped", swapped)):
        for i, p in enumerate(column):
            rows.append(Verdict(str(i), order, math.nan if p is None else p, "timeout" if p is None else "ok"))
    return rows


def test_every_figure_equals_its_definition_by_hand():
    labels = pairs("first", "first", "second", "tie", "second", "first")
    original = [0.9, 0.9, 0.2, 0.6, 0.7, None]
    swapped = [0.8, 0.1, None, 0.4, 0.9, None]
    figures = audit(labels, verdicts(original, swapped))
    # Mean preferences .85, .5, .2, .5, .8 and none: first, tie, second, tie, first.
    assert figures["n"] == 6
    assert figures["coverage"] == pytest.approx(9 / 12)
    assert figures["accuracy"] == pytest.approx(3 / 5)
    assert figures["accuracy_by_order"] == pytest.approx({"original": 3 / 5, "swapped": 1 / 4})
    assert figures["accuracy_without_ties"] == pytest.approx(2 / 3)
    assert figures["order_agreement"] == pytest.approx(2 / 4)
    assert figures["flip_rate"] == pytest.approx(2 / 4)
    placed_first = [0.9, 0.9, 0.6, 0.7, 1 - 0.8, 1 - 0.1, 1 - 0.4, 1 - 0.9]
    assert figures["position_bias"] == pytest.approx(np.mean(placed_first) - 0.5)
    assert (figures["judged"], figures["one_order_failed"], figures["failures"]) == (5, 1, {"timeout": 3})
    assert figures["length_bias"] == pytest.approx(np.mean([0.85 - 1, 0.5 - 1, 0.2 - 0, 0.5 - 0.5, 0.8 - 0]))
    # Said f t s t f, meant f f s t s: by chance they agree in 2/5 2/5 + 2/5 1/5 + 1/5 2/5 = 8/25.
    assert figures["kappa"] == pytest.approx((3 / 5 - 8 / 25) / (1 - 8 / 25))
    assert json.loads(json.dumps(figures)) == figures


def test_one_order_alone_can_be_audited_and_figures_of_nothing_are_null():
    figures = audit(pairs("first", "second"), verdicts([0.9, 0.8], []))
    assert (figures["accuracy"], figures["coverage"]) == (0.5, 1.0)
    assert figures["accuracy_by_order"] == {"original": 0.5, "swapped": None}
    assert figures["order_agreement"] is None
    nothing = audit(pairs("first"), [])
    assert (nothing["coverage"], nothing["accuracy"], nothing["kappa"]) == (0.0, None, None)
    assert nothing["intervals"]["accuracy"] == [None, None]


def test_a_failure_lowers_the_coverage_and_is_no_tie():
    labels = pairs("tie", "first")
    figures = audit(labels, verdicts([None, 0.9], [None, 0.9]))
    assert (figures["coverage"], figures["accuracy"]) == (0.5, 1.0)


def test_the_interval_resamples_prompts_and_not_pairs():
    labels = ["first"] * 40
    right = [0.9] * 20 + [0.1] * 20
    apart = audit(pairs(*labels), verdicts(right, []))["intervals"]["accuracy"]
    together = audit(pairs(*labels, prompts=["p"] * 20 + ["q"] * 20), verdicts(right, []))["intervals"]["accuracy"]
    # 40 independent pairs: 1/2 +- 1.96 sqrt(1/160); two prompts alone can draw 0, 1/2 or 1.
    assert apart == pytest.approx([0.5 - 0.155, 0.5 + 0.155], abs=0.03)
    assert together == [0.0, 1.0]


def test_unknown_ids_and_no_labels_are_refused():
    with pytest.raises(ValueError, match="a verdict is about id '1', which no labelled pair has"):
        audit(pairs("first"), verdicts([0.5, 0.5], []))
    with pytest.raises(ValueError, match="no labelled pairs"):
        audit([], [])


def convert_llmbar(folder: Path, out: Path) -> None:
    """LLMBar's data set and one evaluator's results as the two files: the last attempt of each order is its verdict."""
    labels, rows = [], []
    results = json.loads((folder / "GPT-4.Swap.result.json").read_text())
    for i, item in enumerate(results):
        texts = {"prompt": item["input"], "first": item["output_1"], "second": item["output_2"]}
        labels.append({"id": i, **texts, "label": {1: "first", 2: "second"}[item["label"]]})
        for order, key in (("original", "swap = False"), ("swapped", "swap = True")):
            winner = item["results"][-1][key]["winner"]
            preference = {"1": 1.0, "2": 0.0}.get(winner, math.nan)
            rows.append(Verdict(str(i), order, preference, "ok" if winner in ("1", "2") else "no-verdict"))
    (out / "labels.jsonl").write_text("\n".join(map(json.dumps, labels)))
    write_verdicts(out / "verdicts.jsonl", rows)


@pytest.mark.skipif(not LLMBAR.is_dir(), reason="LLMBar's files are not beside this checkout")
def test_gpt_4s_published_accuracy_and_order_agreement_on_llmbar_are_reproduced(tmp_path: Path):
    convert_llmbar(LLMBAR, tmp_path)
    labels, recorded = read_labels(tmp_path / "labels.jsonl"), read_verdicts(tmp_path / "verdicts.jsonl")
    figures = audit(labels, recorded)
    published = json.loads((LLMBAR / "GPT-4.Swap.statistics.json").read_text())

    def percent(name: str) -> float:
        return round(float(published[name].split("=")[-1].rstrip("%")) / 100, 6)

    assert figures["n"] == 100
    assert figures["coverage"] == 1.0
    assert figures["accuracy_by_order"]["original"] == percent("correct_False")
    assert figures["accuracy_by_order"]["swapped"] == percent("correct_True")
    assert np.mean(list(figures["accuracy_by_order"].values())) == pytest.approx(percent("correct_average"))
    assert figures["accuracy"] == percent("correct_both")
    assert figures["order_agreement"] == percent("equal")
    judge = RecordedJudge(tmp_path / "verdicts.jsonl", tmp_path / "labels.jsonl")
    assert audit(labels, ask(judge, labels)) == figures


# Judges from files


def labels_file(path: Path, *labels: object) -> Path:
    rows = [{"id": i, "prompt": "p", "first": f"a{i}", "second": "b", "label": each} for i, each in enumerate(labels)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_the_human_judge_gives_the_share_of_votes_in_both_orders_and_nothing_for_other_pairs(tmp_path: Path):
    judge = HumanJudge(labels_file(tmp_path / "l", ["first", "first", "tie"], "second"))
    record = judge.verdicts(["p", "p", "p"], ["a0", "b", "a9"], ["b", "a1", "b"])
    np.testing.assert_allclose(record.preference, [5 / 6, 1.0, np.nan])
    assert list(record.status) == ["ok", "ok", "unlabelled"]


def test_the_recorded_judge_answers_each_order_from_its_own_verdict(tmp_path: Path):
    pairs_file = labels_file(tmp_path / "l", "first", "first")
    rows = [Verdict("0", "original", 0.9, "ok"), Verdict("0", "swapped", 0.7, "ok")]
    write_verdicts(tmp_path / "v", [*rows, Verdict("1", "original", math.nan, "timeout")])
    judge = RecordedJudge(tmp_path / "v", pairs_file)
    record = judge.verdicts(["p"] * 2, ["a0", "a1"], ["b"] * 2, both_orders=True)
    np.testing.assert_allclose(record.preference, [0.9, np.nan, 0.7, np.nan])
    assert list(record.status) == ["ok", "timeout", "ok", "not-recorded"]
    write_verdicts(tmp_path / "v", [Verdict("7", "original", 0.5, "ok")])
    with pytest.raises(ValueError, match="id '7' is no pair of"):
        RecordedJudge(tmp_path / "v", pairs_file)


def panel(path: Path, coefficient: float) -> PanelJudge:
    spec = {
        "scale": 1,
        "features": {"n": {"length": True}},
        "annotators": [{"name": "x", "weight": 1, "utility": {"n": coefficient}}],
    }
    path.write_text(json.dumps(spec))
    return PanelJudge(path)


def test_an_ensemble_is_the_weighted_mean_and_keeps_its_members_verdicts(tmp_path: Path):
    members: list[Judge] = [panel(tmp_path / "a", 1.0), panel(tmp_path / "b", -2.0)]
    first, second = ["x y", "x"], ["x", "x y z"]
    separate = [member.compare(["p"] * 2, first, second) for member in members]
    record = EnsembleJudge(members, [3, 1]).verdicts(["p"] * 2, first, second)
    np.testing.assert_allclose(record.preference, 0.75 * separate[0] + 0.25 * separate[1], atol=1e-15)
    np.testing.assert_allclose([json.loads(raw) for raw in record.raw], np.stack(separate, axis=1))


def test_an_ensemble_fails_where_a_member_fails_with_that_members_status(tmp_path: Path):
    human = HumanJudge(labels_file(tmp_path / "l", "first"))
    record = EnsembleJudge([panel(tmp_path / "a", 1.0), human]).verdicts(["p"] * 2, ["a0", "a9"], ["b"] * 2)
    assert list(record.status) == ["ok", "unlabelled"]
    np.testing.assert_allclose(record.preference, [0.75, np.nan])


def test_an_ensembles_fingerprint_is_its_members_and_weights(tmp_path: Path):
    a, b = panel(tmp_path / "a", 1.0), panel(tmp_path / "b", 2.0)
    fingerprint = EnsembleJudge([a, b]).fingerprint()
    assert EnsembleJudge([a, b], [2, 2]).fingerprint() == fingerprint
    assert EnsembleJudge([a, b], [2, 1]).fingerprint() != fingerprint
    assert EnsembleJudge([b, a]).fingerprint() != fingerprint


@pytest.mark.parametrize(("n", "weights"), [(1, None), (2, [1]), (2, [1, 0]), (2, [1, math.nan])])
def test_impossible_ensembles_are_refused(tmp_path: Path, n: int, weights: list[float] | None):
    with pytest.raises(ValueError, match="an ensemble"):
        EnsembleJudge([panel(tmp_path / "a", 1.0)] * n, weights)
