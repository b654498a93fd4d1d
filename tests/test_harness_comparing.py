"""Which policies are compared with which, and what is claimed."""

from dataclasses import replace

import numpy as np
import pytest

from harness.config import Config, ConfigError
from harness.matrix import expand
from harness.planning.named_pairs import named_pairs
from harness.stages.compare import _by_task
from harness.tables.comparisons import PolicyValues, algorithm_rows, aligned, compare_all
from leaderboards.records import GradedItem
from leaderboards.statistics.corrections import holm
from leaderboards.statistics.paired import compare_algorithms, compare_checkpoints, pooled_seed_variance

PROMPTS = 60


def graded(trainer: str, seed: int | None, mean: float, judge: str = "panel") -> PolicyValues:
    cell = "world~sft" if seed is None else f"world~{trainer}~{judge}~s{seed}"
    values = np.random.default_rng([sum(map(ord, cell)), seed or 0]).normal(mean, 0.1, PROMPTS)
    algorithm = cell if seed is None else f"world~{trainer}~{judge}"
    return PolicyValues(cell, algorithm, "world", trainer, "" if seed is None else judge, seed, values)


def test_one_seed_gives_only_claims_about_checkpoints():
    rows = compare_all([graded("sft", None, 0.5), graded("dpo", 0, 0.6), graded("onpo", 0, 0.7)])
    assert {(r["a"], r["b"]) for r in rows} == {
        ("world~dpo~panel~s0", "world~sft"),
        ("world~onpo~panel~s0", "world~sft"),
        ("world~dpo~panel~s0", "world~onpo~panel~s0"),
    }
    assert {r["claim"] for r in rows} == {"checkpoint"}


def test_two_seeds_add_claims_about_algorithms_named_without_the_seed():
    cells = [graded("sft", None, 0.5), *(graded(t, s, 0.6) for t in ("dpo", "onpo") for s in (0, 1))]
    claims = {(r["a"], r["b"]) for r in compare_all(cells) if r["claim"] == "algorithm"}
    assert claims == {
        ("world~dpo~panel", "world~sft"),
        ("world~onpo~panel", "world~sft"),
        ("world~dpo~panel", "world~onpo~panel"),
    }


def test_policies_trained_by_different_judges_or_seeds_are_not_paired():
    cells = [graded("dpo", 0, 0.6, "panel"), graded("dpo", 0, 0.6, "llm"), graded("dpo", 1, 0.6, "panel")]
    assert compare_all(cells) == []


def test_rows_carry_the_statistics_of_their_pair_and_holm_over_the_family():
    control, dpo, onpo = graded("sft", None, 0.5), graded("dpo", 0, 0.52), graded("onpo", 0, 0.7)
    rows = compare_all([control, dpo, onpo])
    pairs = [(dpo, control), (onpo, control), (dpo, onpo)]
    alone = [compare_checkpoints(a.values, b.values) for a, b in pairs]
    assert [r["difference"] for r in rows] == [c.difference.value for c in alone]
    assert [r["p_adjusted"] for r in rows] == holm([c.p_value for c in alone]).tolist()
    assert rows[1]["difference"] == pytest.approx(float(np.mean(onpo.values - control.values)), abs=1e-12)


def test_the_claim_about_an_algorithm_is_made_over_the_common_seeds():
    cells = [graded("dpo", s, 0.6) for s in (0, 1, 2)] + [graded("onpo", s, 0.7) for s in (1, 2)]
    (row,) = [r for r in compare_all(cells) if r["claim"] == "algorithm"]
    expected = compare_algorithms(np.stack([c.values for c in cells[1:3]]), np.stack([c.values for c in cells[3:]]))
    assert row["difference"] == expected.difference.value
    assert row["p_value"] == expected.p_value


def test_prompts_are_aligned_by_id_and_failures_stay_failures():
    values = aligned({"a": {"x": 1.0, "y": None, "z": 0.5}, "b": {"z": 0.25, "y": 0.0, "w": 1.0}})
    np.testing.assert_array_equal(values["a"], [np.nan, 0.5])
    np.testing.assert_array_equal(values["b"], [0.0, 0.25])


def test_a_policy_whose_name_holds_the_sign_between_labels_is_not_compared_with_anothers_control():
    def of(policy: str, trainer: str, seed: int | None) -> PolicyValues:
        values = np.random.default_rng([ord(policy[-1]), seed or 0]).normal(0.5, 0.1, PROMPTS)
        judge = "" if seed is None else "panel"
        return PolicyValues(f"{policy}~{trainer}~{seed}", f"{policy}~{trainer}", policy, trainer, judge, seed, values)

    cells = [of(policy, *which) for policy in ("m~x", "m~y") for which in (("sft", None), ("dpo", 0), ("dpo", 1))]
    rows = compare_all(cells)
    across = [(row["a"], row["b"]) for row in rows if row["a"][:3] != row["b"][:3]]
    assert across == [("m~x~sft~None", "m~y~sft~None")]
    assert len(rows) == 7


def rated(policy: str, trainer: str, mean: float, baseline: str = "") -> PolicyValues:
    values = np.random.default_rng([ord(policy), *map(ord, trainer)]).normal(mean, 1, 200)
    return PolicyValues(f"{policy}~{trainer}", f"{policy}~{trainer}", policy, trainer, "", None, values, baseline)


def test_two_models_rated_as_they_are_are_compared():
    (row,) = compare_all([rated("A", "sft", 0), rated("B", "sft", 5)])
    assert (row["a"], row["b"], row["claim"]) == ("A~sft", "B~sft", "checkpoint")
    assert row["difference"] == pytest.approx(-5, abs=0.4)
    assert row["p_adjusted"] < 1e-50


def test_values_against_different_baselines_are_never_compared_even_if_all_are_asked_for():
    models = [rated("A", "sft", 0, "A"), rated("B", "sft", 5, "B")]
    assert compare_all(models) == []
    assert compare_all(models, named=None) == []


def test_of_many_models_each_is_compared_with_the_first_and_all_with_each_other_where_that_is_asked_for():
    models = [rated(name, "sft", 0) for name in "ABCDEFGHI"]
    assert len(compare_all(models[:8])) == 28
    assert [(row["a"], row["b"]) for row in compare_all(models)] == [("A~sft", f"{name}~sft") for name in "BCDEFGHI"]
    assert len(compare_all(models, named=None)) == 36


def test_a_named_pair_that_cannot_be_compared_has_a_row_with_the_reason():
    models = [rated("A", "sft", 0, "A"), rated("B", "sft", 5, "B")]
    named = [frozenset(("A~sft", "B~sft")), frozenset(("A~sft", "gone"))]
    rows = compare_all(models, named=named)
    assert {(row["a"], row["b"]): row["not_compared"] for row in rows} == {
        ("A~sft", "B~sft"): "their values are against different baselines: A and B",
        ("A~sft", "gone"): "no value of gone",
    }
    assert all(np.isnan(row["difference"]) and np.isnan(row["p_adjusted"]) for row in rows)


def test_every_policy_is_compared_with_each_control_of_its_base_and_these_with_each_other():
    cells = [graded("sft", None, 0.5), graded("dpo", 0, 0.6)]
    longest = PolicyValues("world~longest", "world~longest", "world", "longest", "", None, cells[0].values + 0.1)
    pairs = {(r["a"], r["b"]) for r in compare_all([*cells, longest])}
    assert pairs == {
        ("world~dpo~panel~s0", "world~sft"),
        ("world~dpo~panel~s0", "world~longest"),
        ("world~sft", "world~longest"),
    }


def test_a_named_pair_is_compared_besides_with_the_claim_over_its_seeds_and_all_compares_every_pair_of_a_seed():
    cells = [graded("dpo", seed, 0.6, judge) for judge in ("panel", "llm") for seed in (0, 1)]
    named = {frozenset((f"world~dpo~panel~s{seed}", f"world~dpo~llm~s{seed}")) for seed in (0, 1)}
    rows = compare_all(cells, named=named)
    assert [(r["a"], r["b"], r["claim"]) for r in rows] == [
        ("world~dpo~panel~s0", "world~dpo~llm~s0", "checkpoint"),
        ("world~dpo~panel~s1", "world~dpo~llm~s1", "checkpoint"),
        ("world~dpo~panel", "world~dpo~llm", "algorithm"),
    ]
    assert len(compare_all(cells, named=None)) == 7  # six pairs of four cells, and the algorithms


def test_an_algorithm_that_lacks_a_seed_of_the_others_is_in_no_claim_over_seeds():
    cells = [graded(trainer, seed, 0.6) for trainer in ("dpo", "onpo", "inpo") for seed in (0, 1)][:-1]
    assert {(r["a"], r["b"]) for r in compare_all(cells) if r["claim"] == "algorithm"} == {
        ("world~dpo~panel", "world~onpo~panel")
    }
    assert [row["algorithm"] for row in algorithm_rows(cells, 1)] == ["world~dpo~panel", "world~onpo~panel"]


def test_algorithms_have_their_mean_over_seeds_and_name_the_seed_that_collapsed():
    cells = [graded(trainer, seed, 0.6) for trainer in ("dpo", "onpo") for seed in range(5)]
    fallen = [replace(of, values=of.values - 1) if of.cell == "world~onpo~panel~s3" else of for of in cells]
    first, second = algorithm_rows(fallen, 1)
    assert (first["collapsed"], second["collapsed"], first["seeds"]) == ("", "3", "0, 1, 2, 3, 4")
    assert first["value"] == pytest.approx(np.mean([of.values for of in cells[:5]]))
    assert [row["collapsed"] for row in algorithm_rows([replace(of, values=-of.values) for of in fallen], -1)] == [
        "",
        "3",
    ]


def test_what_is_not_separable_says_what_would_settle_it_and_what_is_says_nothing():
    cells = [graded("sft", None, 0.5), *(graded("dpo", seed, 0.501) for seed in (0, 1))]
    for row in compare_all(cells):
        assert row["p_adjusted"] >= 0.05
        assert row["detectable"] > abs(row["difference"])
        assert row["prompts_needed"] > PROMPTS
        assert ("seeds_needed" in row) == (row["claim"] == "algorithm")
    clear = compare_all([graded("sft", None, 0.5), graded("dpo", 0, 0.9)])
    assert "detectable" not in clear[0]


def test_the_second_interval_pools_all_trainers_of_the_base():
    cells = [graded(trainer, seed, 0.6) for trainer in ("dpo", "onpo", "inpo") for seed in (0, 1)]
    scores = np.stack([[of.values for of in cells[start : start + 2]] for start in (0, 2, 4)])
    expected = compare_algorithms(scores[0], scores[1], alike=pooled_seed_variance(scores)).if_alike
    row = next(r for r in compare_all(cells) if (r["a"], r["b"]) == ("world~dpo~panel", "world~onpo~panel"))
    assert expected is not None
    assert (row["alike_low"], row["alike_high"]) == (expected.ci_low, expected.ci_high)


TWO = {
    "name": "two",
    "policy": ["stories260k", "smol"],
    "matrix": {"trainer": ["dpo", "onpo"], "judge": ["panel", "llm"], "seed": [0, 1]},
    "leaderboards": ["head-to-head"],
}


def test_names_in_compare_are_ids_or_labels_and_stand_for_all_seeds_without_one():
    cells = expand(Config(**TWO))
    pairs = named_pairs(cells, [("stories260k~dpo~panel", "stories260k · dpo · llm")])
    assert pairs == [(f"stories260k~dpo~panel~s{seed}", f"stories260k~dpo~llm~s{seed}") for seed in (0, 1)]
    assert named_pairs(cells, [("stories260k~dpo~panel~s0", "smol~dpo~llm~s1")]) == [
        ("stories260k~dpo~panel~s0", "smol~dpo~llm~s1")
    ]
    assert named_pairs(cells, "all") is None
    with pytest.raises(ConfigError, match="no cell is called 'stories260k~dpo~panl'; did you mean"):
        named_pairs(cells, [("stories260k~dpo~panl", "smol~sft")])
    with pytest.raises(ConfigError, match="no two different cells"):
        named_pairs(cells, [("smol~sft", "smol~sft")])


def test_tasks_that_share_a_metric_are_compared_one_by_one_by_their_first_filter_and_all_together():
    values = {"t/0": 1.0, "t/1": 0.0, "u/0": None}
    items = [
        GradedItem(id=id, metric="acc", category=category, value=values[id])
        for category, id in [("t,strict", "t/0"), ("t,strict", "t/1"), ("t,flexible", "t/0"), ("u", "u/0")]
    ]
    by_task = _by_task({"acc": values, "f1": {"v/0": 0.5}}, items)
    assert by_task == {
        ("acc", ""): values,
        ("acc", "t,strict"): {"t/0": 1.0, "t/1": 0.0},
        ("acc", "u"): {"u/0": None},
        ("f1", ""): {"v/0": 0.5},
    }
    assert _by_task({"acc": values}, []) == {("acc", ""): values}
