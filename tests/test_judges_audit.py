"""Audits against human labels: figures by hand and published ones; judges that answer from files; ensembles."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from judges import EnsembleJudge, HumanJudge, Judge, PanelJudge, RecordedJudge
from judges.audit.audit import ask, audit, disagreements
from judges.files import LabelledPair, Verdict, read_labels, read_verdicts, write_verdicts

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "llmbar.py"
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


def test_a_pair_without_any_verdict_lowers_the_coverage_as_one_failure():
    figures = audit(pairs("first", "first", "first"), verdicts([0.9], [0.9]))
    assert (figures["coverage"], figures["judged"], figures["accuracy"]) == (0.5, 1, 1.0)


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


@pytest.mark.skipif(not LLMBAR.is_dir(), reason="LLMBar's files are not beside this checkout")
def test_gpt_4s_published_accuracy_and_order_agreement_on_llmbar_are_reproduced(tmp_path: Path):
    files = [str(LLMBAR / name) for name in ("dataset.json", "GPT-4.Swap.result.json")]
    subprocess.run([sys.executable, EXAMPLE, *files, "--out", tmp_path], check=True)
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


def test_intervals_are_there_for_every_share_and_hold_the_figure():
    generator = np.random.default_rng(0)
    labels = pairs(*generator.choice(["first", "second", "tie"], size=60).tolist())
    both = generator.random((2, 60)).round(1)
    figures = audit(labels, verdicts(both[0].tolist(), both[1].tolist()))
    by_order = {f"accuracy_{order}": value for order, value in figures["accuracy_by_order"].items()}
    for name, (low, high) in figures["intervals"].items():
        assert low < (figures | by_order)[name] < high, name


def test_kappas_interval_is_the_bootstrap_of_kappa_itself():
    labels = pairs(*["first", "second"] * 20)
    said = [0.9, 0.1] * 10 + [0.9, 0.9] * 10
    generator = np.random.default_rng(1)
    truth, guess = np.array([1, 0] * 20), np.array(said) > 0.5
    draws = []
    for _ in range(2000):
        rows = generator.integers(40, size=40)
        t, g = truth[rows], guess[rows]
        chance = t.mean() * g.mean() + (1 - t.mean()) * (1 - g.mean())
        draws.append(((t == g).mean() - chance) / (1 - chance))
    assert audit(labels, verdicts(said, []))["intervals"]["kappa"] == pytest.approx(
        np.quantile(draws, [0.025, 0.975]), abs=0.05
    )


def test_calibration_bins_hold_their_pairs_and_the_error_is_their_weighted_gap():
    labels = pairs("first", "second", "first", "tie")
    figures = audit(labels, verdicts([0.92, 0.98, 0.31, 0.35], []))
    assert figures["reliability"] == [
        {"low": 0.3, "high": 0.4, "n": 2, "preference": pytest.approx(0.33), "share": 0.75},
        {"low": 0.9, "high": 1.0, "n": 2, "preference": pytest.approx(0.95), "share": 0.5},
    ]
    assert figures["calibration_error"] == pytest.approx((0.42 + 0.45) / 2)


def test_matched_length_looks_at_pairs_of_like_length_only():
    rows = [("a" * 100, "b" * 91, "first"), ("a" * 100, "b" * 89, "first"), ("aa", "bb", "second"), ("c", "d", "tie")]
    labels = [LabelledPair(str(i), f"p{i}", a, b, (label,)) for i, (a, b, label) in enumerate(rows)]
    figures = audit(labels, verdicts([0.9, 0.1, 0.9, 0.9], []))
    assert figures["matched_length"] == {"accuracy": 0.5, "n": 2, "within": 0.1}


def test_the_length_curve_parts_all_pairs_by_length_difference():
    labels = [LabelledPair(str(i), f"p{i}", "a" * (10 + i), "b" * 30, ("first",)) for i in range(40)]
    preference = [i / 39 for i in range(40)]
    curve = audit(labels, verdicts(preference, []))["length_curve"]
    assert [row["n"] for row in curve] == [8] * 5
    assert [(row["low"], row["high"]) for row in curve] == [(8 * k - 20, 8 * k - 13) for k in range(5)]
    np.testing.assert_allclose(
        [row["preference"] for row in curve], [np.mean(preference[8 * k : 8 * k + 8]) for k in range(5)]
    )


def test_self_consistency_is_the_chance_that_two_repeats_agree():
    def repeated(order: str, *preferences: float) -> list[Verdict]:
        return [Verdict("0", order, p, "ok", repeat=r) for r, p in enumerate(preferences)]

    given = [*repeated("original", 0.9, 0.8, 0.2), *repeated("swapped", 0.7, 0.7), Verdict("1", "original", 0.9, "ok")]
    found = audit(pairs("first", "first"), given)["self_consistency"]
    # One of three pairs of repeats agrees, and one of one.
    assert found == {
        "questions": 2,
        "agreement": pytest.approx((1 / 3 + 1) / 2),
        "spread": pytest.approx(np.std([0.9, 0.8, 0.2], ddof=1) / 2),
    }
    assert audit(pairs("first"), given[:1])["self_consistency"]["reason"].startswith("every question was put once")


def test_the_verdict_of_repeats_is_the_mean_of_the_orders_means():
    given = [Verdict("0", "original", p, "ok", repeat=r) for r, p in enumerate([0.9, 0.9, 0.9])]
    figures = audit(pairs("second"), [*given, Verdict("0", "swapped", 0.05, "ok")])
    assert (figures["accuracy"], figures["coverage"]) == (1.0, 1.0)


def test_repeats_are_asked_as_often_as_said_and_counted_as_work(tmp_path: Path):
    given = ask(panel(tmp_path / "a", 1.0), pairs("first", "second"), repeats=3)
    assert sorted((v.id, v.order, v.repeat) for v in given) == [
        (i, order, r) for i in "01" for order in ("original", "swapped") for r in range(3)
    ]
    work = audit(pairs("first"), [Verdict("0", "original", 0.9, "ok", input_tokens=7, cost=0.5)])["work"]
    assert work == {"input_tokens": 7, "output_tokens": None, "cost": 0.5, "latency": None}


def test_disagreements_are_the_wrong_verdicts_with_the_furthest_first():
    labels = pairs("first", "first", "second", "first")
    found = disagreements(labels, verdicts([0.4, 0.9, 0.95, None], [0.4, 0.9, 0.95, None]))
    assert [(each["id"], each["label"]) for each in found] == [("2", "second"), ("0", "first")]
    assert (found[0]["preference"], found[0]["original"], found[0]["votes"]) == (0.95, 0.95, ["second"])
    assert found[0]["prompt"] == [{"role": "user", "content": "p2"}]


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


def test_votes_on_one_pair_of_texts_under_several_ids_are_pooled_in_either_naming(tmp_path: Path):
    rows = [("a", "b", ["first", "first"]), ("b", "a", "first"), ("a", "b", "tie"), ("c", "c", "first")]
    lines = [{"id": i, "prompt": "p", "first": a, "second": b, "label": x} for i, (a, b, x) in enumerate(rows)]
    (tmp_path / "l").write_text("\n".join(map(json.dumps, lines)))
    record = HumanJudge(tmp_path / "l").verdicts(["p"] * 3, ["a", "b", "c"], ["b", "a", "c"], both_orders=True)
    # Votes for a: 1, 1, 0, 1/2. Equal texts are 1/2, whoever was named.
    np.testing.assert_allclose(record.preference, [2.5 / 4, 1.5 / 4, 0.5] * 2)


def test_a_question_recorded_several_times_is_the_mean_of_its_answers_and_fails_only_where_all_did(tmp_path: Path):
    rows = [("a", "b"), ("b", "a"), ("c", "c"), ("d", "e"), ("d", "e")]
    lines = [{"id": i, "prompt": "p", "first": a, "second": b} for i, (a, b) in enumerate(rows)]
    (tmp_path / "p").write_text("\n".join(map(json.dumps, lines)))
    given = [("0", "original", 0.9), ("1", "swapped", 0.3), ("2", "original", 0.9), ("2", "swapped", 0.3)]
    failed = [Verdict("3", "original", math.nan, "timeout"), Verdict("4", "original", math.nan, "refusal")]
    write_verdicts(tmp_path / "v", [*(Verdict(*each, "ok") for each in given), *failed])
    record = RecordedJudge(tmp_path / "v", tmp_path / "p").verdicts(["p"] * 4, list("abcd"), list("bace"))
    # a before b was asked as pair 0 and as pair 1 swapped, where P(b beats a) = .3; b before a never.
    np.testing.assert_allclose(record.preference, [(0.9 + 0.7) / 2, np.nan, (0.9 + 0.7) / 2, np.nan])
    assert list(record.status) == ["ok", "not-recorded", "ok", "timeout"]


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
