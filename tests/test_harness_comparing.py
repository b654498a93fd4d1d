"""Which policies are compared with which, and what is claimed."""

import numpy as np
import pytest

from harness.tables.comparisons import PolicyValues, aligned, compare_all
from leaderboards.statistics.corrections import holm
from leaderboards.statistics.paired import compare_algorithms, compare_checkpoints

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
    assert len(rows) == 6
    assert all(row["a"][:3] == row["b"][:3] for row in rows)
