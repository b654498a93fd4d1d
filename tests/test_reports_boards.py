"""What the report claims: ranks, separability, verdict sentences, caveats; on tables small enough to check by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import reports_world as world

from reports.boards import Group, against_start, better, boards, compared, groups, oriented, ranks, significant, versus
from reports.sections.comparisons import matrices, telling
from reports.sections.leaderboard import leaderboard
from reports.sections.matrix import cross_judge, shading, trainer_by_judge
from reports.sections.training import alarms
from reports.sections.verdict import verdict
from reports.tables import Sweep, read_sweep

Scores = dict[str, tuple[float, float, float]]  # cell: value, ci_low, ci_high


def sweep_of(scores: Scores, comparisons: list[dict[str, Any]] | None = None, **of_all: Any) -> Sweep:
    """A sweep of one board and grader; a cell is named trainer or trainer-judge or trainer-judge-seed."""
    rows = []
    for cell, (value, low, high) in scores.items():
        trainer, judge, seed = (*cell.split("/"), "", "")[:3]
        row = {"sweep": "s", "cell": cell, "policy": "p", "trainer": trainer, "options": "{}", "judge": judge}
        row |= {
            "seed": int(seed) if seed else (0 if judge else None),
            "grader": "panel",
            "iteration": 1,
            "category": "",
        }
        row |= {"leaderboard": "head-to-head", "metric": "win_rate", "value": value, "ci_low": low, "ci_high": high}
        rows.append(row | {"ci_level": 0.95, "n": 100, "coverage": 1, "samples": 1, "queries": 1, "steps": 1} | of_all)
    return Sweep(name="s", results=rows, comparisons=comparisons or [], metrics={"win_rate": world.METRICS["win_rate"]})


def only_group(sweep: Sweep) -> Group:
    (board,) = boards([sweep])
    (group,) = groups([sweep], board)
    return group


def comparison(a: str, b: str, difference: float, p: float | None, claim: str = "checkpoint") -> dict[str, Any]:
    ends = {"ci_low": difference - 0.02, "ci_high": difference + 0.02}
    row = {
        "leaderboard": "head-to-head",
        "metric": "win_rate",
        "grader": "panel",
        "a": a,
        "b": b,
        "difference": difference,
    }
    return row | ends | {"p_value": p, "p_adjusted": p, "n": 100, "claim": claim}


def prose(sentences: list[list[Any]]) -> str:
    return " ".join(
        "".join(part if isinstance(part, str) else part.text for part in sentence) for sentence in sentences
    )


def test_ranks_are_ranges_and_disjoint_intervals_separate() -> None:
    scores = {"a/j": (0.9, 0.85, 0.95), "b/j": (0.7, 0.6, 0.8), "c/j": (0.65, 0.55, 0.75), "d/j": (0.3, 0.2, 0.4)}
    assert ranks(only_group(sweep_of(scores))) == {"a/j": (1, 1), "b/j": (2, 3), "c/j": (2, 3), "d/j": (4, 4)}


def test_ranks_turn_round_where_lower_is_better() -> None:
    sweep = sweep_of({"a/j": (0.9, 0.85, 0.95), "b/j": (0.3, 0.2, 0.4)})
    sweep.metrics["win_rate"] = {"better": "lower"}
    group = only_group(sweep)
    assert [row["cell"] for row in group.ordered] == ["b/j", "a/j"]
    assert ranks(group) == {"b/j": (1, 1), "a/j": (2, 2)}


def test_a_paired_comparison_decides_before_intervals_that_overlap() -> None:
    scores = {"a/j": (0.56, 0.50, 0.62), "b/j": (0.52, 0.46, 0.58)}
    assert ranks(only_group(sweep_of(scores))) == {"a/j": (1, 2), "b/j": (1, 2)}
    assert ranks(only_group(sweep_of(scores, [comparison("b/j", "a/j", -0.04, 0.001)]))) == {
        "a/j": (1, 1),
        "b/j": (2, 2),
    }
    apart = {"a/j": (0.56, 0.55, 0.57), "b/j": (0.52, 0.51, 0.53)}
    assert ranks(only_group(sweep_of(apart, [comparison("a/j", "b/j", 0.04, 0.2)]))) == {"a/j": (1, 2), "b/j": (1, 2)}


def test_without_any_interval_the_order_of_the_values_is_the_rank_and_equals_share_it(tmp_path: Path) -> None:
    sweep = read_sweep(world.game_sweep(tmp_path))
    group = groups([sweep], boards([sweep])[0])[0]
    assert [ranks(group)[row["cell"]] for row in group.ordered] == [(1, 1), (2, 2), (3, 3)]
    for row in group.rows:
        row["value"] = 0.5
    assert set(ranks(group).values()) == {(1, 1)}


def test_groups_do_not_mix_start_policies_or_graders(tmp_path: Path) -> None:
    game = read_sweep(world.game_sweep(tmp_path / "game"))
    assert [group.policy for group in groups([game], boards([game])[0])] == ["game:cyc3", "game:rock-paper-scissors"]
    language = read_sweep(world.language_sweep(tmp_path / "language"))
    assert [group.grader for group in groups([language], boards([language])[0])] == ["panel", "llm"]


def test_the_lead_metric_has_a_direction_then_is_official_then_comes_first(tmp_path: Path) -> None:
    sweep = read_sweep(world.language_sweep(tmp_path))
    names = {board.name: [m.name for m in board.metrics] for board in boards([sweep])}
    rates = ["length_controlled_winrate", "win_rate", "discrete_win_rate"]
    assert names["alpaca-eval"] == [*rates, "average_length"]  # though earlier iterations have no controlled win rate
    assert names["arena-hard"] == ["win_rate", "prompt_win_rate"]  # an official metric leads, whatever comes first
    assert list(names) == ["head-to-head", "alpaca-eval", "arena-hard", "mt-bench", "lm-eval"]


def test_a_board_can_be_seen_as_each_metric_with_a_direction_ranks_it(tmp_path: Path) -> None:
    sweep = read_sweep(world.language_sweep(tmp_path))
    alpaca = next(board for board in boards([sweep]) if board.name == "alpaca-eval")
    assert [view.lead.name for view in alpaca.views] == [metric.name for metric in alpaca.metrics[:3]]
    assert all(set(view.metrics) == set(alpaca.metrics) for view in alpaca.views)
    assert compared([sweep], alpaca).lead.name == "win_rate"
    (first, *_) = groups([sweep], alpaca.views[2])
    assert {row["metric"] for row in first.rows} == {"discrete_win_rate"}


def test_a_board_that_scores_tasks_alone_has_a_metric_a_task(tmp_path: Path) -> None:
    sweep = read_sweep(world.language_sweep(tmp_path))
    board = next(board for board in boards([sweep]) if board.name == "lm-eval")
    assert [metric.label for metric in board.metrics] == ["truth · accuracy", "summary · exact match"]
    (group,) = groups([sweep], board)
    assert {(row["metric"], row["category"]) for row in group.rows} == {("acc", "truth")}
    assert versus(group, group.trained[0]["cell"], "sft") is not None
    twin = replace(board.metrics[0], category="another task")
    assert versus(replace(group, board=replace(board, metrics=(*board.metrics, twin))), "onpo-llm-0", "sft") is None


def test_the_tables_of_a_board_set_controls_apart_and_switch_the_metric(tmp_path: Path) -> None:
    sweep = read_sweep(world.language_sweep(tmp_path))
    found = {of["board"].name: of for of in leaderboard([sweep])}
    tables = found["alpaca-eval"]["tables"]
    assert [table["lead"].name for table in tables] == ["length_controlled_winrate", "win_rate", "discrete_win_rate"]
    assert [len(table["others"]) for table in tables] == [3, 0, 0]
    for table in tables:
        controls = [line["control"] for line in table["rows"] if line["row"]["grader"] == "panel"]
        assert controls == sorted(controls)
        assert sum(controls) == 3
    assert found["lm-eval"]["categories"] is None
    assert found["mt-bench"]["categories"]["names"] == ["maths", "roleplay"]
    own = {(line["row"]["judge"], line["row"]["grader"]) for line in tables[0]["rows"] if line["own"]}
    assert own == {("panel", "panel"), ("llm", "llm")}


def test_turning_a_comparison_round_twice_gives_it_back() -> None:
    row = comparison("a", "b", 0.03, 0.01)
    turned = oriented(row, "b")
    assert (turned["a"], turned["difference"], turned["ci_low"], turned["ci_high"]) == (
        "b",
        -0.03,
        -row["ci_high"],
        -row["ci_low"],
    )
    assert oriented(turned, "a") == row
    assert oriented(row, "a") is row


@pytest.mark.parametrize(
    ("p_adjusted", "p_value", "low", "high", "sure"),
    [
        (0.04, 0.001, -1, 1, True),
        (0.06, 0.001, 0.1, 1, False),
        (None, 0.04, -1, 1, True),
        (None, None, 0.1, 1, True),
        (None, None, -0.1, 1, False),
        (None, None, None, None, False),
    ],
)
def test_significance_is_adjusted_p_then_p_then_interval(
    p_adjusted: float | None, p_value: float | None, low: float | None, high: float | None, sure: bool
) -> None:
    row = {"p_adjusted": p_adjusted, "p_value": p_value, "ci_low": low, "ci_high": high}
    assert significant(row, 0.05) is sure


def test_standing_to_the_untrained_policy_uses_its_pair_its_score_or_the_null_value() -> None:
    scores = {"a/j": (0.60, 0.55, 0.65), "sft": (0.52, 0.47, 0.57)}
    group = only_group(sweep_of(scores))
    assert against_start(group, group.rows[0]) == 0
    group = only_group(sweep_of(scores, [comparison("sft", "a/j", -0.08, 0.001)]))
    assert versus(group, "a/j", "sft")["difference"] == 0.08  # type: ignore[index]
    assert against_start(group, group.rows[0]) == 1
    group = only_group(sweep_of({"a/j": (0.60, 0.55, 0.65), "b/j": (0.45, 0.42, 0.48), "c/j": (0.5, 0.4, 0.6)}))
    assert [against_start(group, row) for row in group.rows] == [1, -1, 0]
    group.sweep.metrics["win_rate"] = {"better": "higher"}
    assert against_start(only_group(group.sweep), group.rows[0]) is None


def test_a_score_without_interval_is_never_separable_from_one_with() -> None:
    group = only_group(sweep_of({"a/j": (0.9, None, None), "b/j": (0.1, 0.05, 0.15)}))  # type: ignore[dict-item]
    assert better(group, *group.rows) == 0


def test_the_verdict_names_the_best_its_margin_and_who_is_not_separable() -> None:
    scores = {
        "onpo/j": (0.60, 0.55, 0.65),
        "dpo/j": (0.58, 0.53, 0.63),
        "slic/j": (0.50, 0.46, 0.54),
        "sft": (0.5, 0.45, 0.54),
    }
    pairs = [comparison("onpo/j", "sft", 0.1, 0.0004), comparison("onpo/j", "dpo/j", 0.02, 0.3)]
    pairs += [
        comparison("onpo/j", "slic/j", 0.1, 0.001),
        comparison("dpo/j", "sft", 0.08, 0.01),
        comparison("slic/j", "sft", 0.0, 1.0),
    ]
    text = prose(verdict([sweep_of(scores, pairs)])["findings"][0]["sentences"])
    assert "onpo trained by j has the highest win rate, 0.600 (95% interval 0.550 to 0.650, n = 100)." in text
    assert "It beats the untrained policy: difference +0.100 (interval +0.080 to +0.120, adjusted p <" in text
    assert "Not separable from it: dpo · j." in text
    assert "2 of the 3 trained policies beat the untrained one in win rate: onpo · j and dpo · j." in text


SPREAD = {
    "onpo/j": (0.80, 0.75, 0.85),
    "dpo/j": (0.62, 0.58, 0.66),
    "slic/j": (0.3, 0.2, 0.4),
    "sft": (0.5, 0.45, 0.55),
}


def told(scores: Scores, pairs: list[dict[str, Any]] | None = None, better: str = "higher") -> str:
    sweep = sweep_of(scores, pairs)
    sweep.metrics["win_rate"] = {**sweep.metrics["win_rate"], "better": better}
    return prose(verdict([sweep])["findings"][0]["sentences"])


def test_where_nothing_is_tested_the_verdict_says_how_intervals_lie_and_claims_no_win() -> None:
    text = told(SPREAD)
    assert "Its interval lies above that of the untrained policy, which has 0.500." in text
    assert "Its interval lies above those of all 2 other trained policies." in text
    assert (
        "The intervals of 2 of the 3 trained policies lie above that of the untrained one in win rate: onpo · j and dpo"
        in text
    )
    assert "Below it: slic · j." in text
    close = told({**SPREAD, "dpo/j": (0.79, 0.74, 0.84), "sft": (0.7, 0.6, 0.8)})
    assert "Its interval overlaps that of the untrained policy" in close
    assert "Its interval overlaps those of dpo · j." in close
    assert not [word for word in ("beat", "worse", "separable") if word in text + close]


def test_intervals_lie_below_where_lower_is_better() -> None:
    text = told({"dpo/j": (0.2, 0.15, 0.25), "slic/j": (0.6, 0.55, 0.65), "sft": (0.4, 0.35, 0.45)}, better="lower")
    assert "Its interval lies below that of the untrained policy" in text
    assert "Its interval lies below those of all 1 other" in text
    assert "The intervals of 1 of the 2 trained policies lie below that of the untrained one in win rate: dpo" in text
    assert "Above it: slic · j." in text


def test_a_control_that_may_hold_the_best_ones_rank_is_named_beside_it_and_first_before_quoting() -> None:
    scores = {**SPREAD, "longest": (0.78, 0.72, 0.84), "constant": (0.2, 0.1, 0.3)}
    text = told(scores)
    control = "control longest (the longest of several untrained answers), without any training,"
    assert f"The {control} has 0.780, with an interval that overlaps the best trained one’s." in text
    assert "constant" not in text
    caveats = verdict([sweep_of(scores)])["caveats"]
    assert (
        prose(caveats[:1])
        == f"The {control} shares ranks with the best trained policy on head-to-head, graded by panel."
    )
    pairs = [comparison("onpo/j", "longest", 0.02, 0.4)]
    assert "has 0.780, not separable from the best trained one." in told(scores, pairs)
    assert "longest" not in told(scores, [comparison("onpo/j", "longest", 0.02, 0.001)])


def test_the_headline_says_first_that_nothing_trained_beats_the_untrained_policy_and_what_scores_as_high() -> None:
    scores = {
        "onpo/j": (0.56, 0.5, 0.62),
        "dpo/j": (0.4, 0.35, 0.45),
        "sft": (0.56, 0.5, 0.62),
        "constant": (0.6, 0.5, 0.7),
    }
    start = "No trained policy is separable from the untrained one: onpo trained by j has the highest win rate, 0.560"
    pairs = [comparison("onpo/j", "sft", 0.0, 1.0), comparison("dpo/j", "sft", -0.16, 0.4)]
    text = told(scores, pairs)
    assert text.startswith(start)
    assert "n = 100); the untrained policy has the same, 0.560; the control constant (one fixed answer)," in text
    assert (
        "without any training, has a higher one, 0.600, with an interval that overlaps the best trained one’s." in text
    )
    pairs[1]["p_adjusted"] = 0.001
    assert told(scores, pairs).startswith("No trained policy beats the untrained one, and 1 is worse: onpo")
    assert told(scores).startswith("No trained policy’s interval lies above that of the untrained one: onpo")


def test_the_verdict_and_the_comparisons_count_the_same_policies() -> None:
    scores = {
        "onpo/j": (0.80, 0.7, 0.85),
        "dpo/j": (0.62, 0.5, 0.66),
        "slic/j": (0.3, 0.2, 0.4),
        "sft": (0.5, 0.45, 0.55),
        "longest": (0.7, 0.6, 0.8),
    }
    pairs = [comparison(cell, "sft", value[0] - 0.5, 0.01) for cell, value in scores.items() if cell != "sft"]
    sweep = sweep_of(scores, pairs)
    # A second metric leads, in which nothing is compared and all intervals overlap.
    wide = [{**row, "metric": "official", "ci_low": 0.1, "ci_high": 0.9} for row in sweep.results]
    sweep.results.extend(wide)
    sweep.metrics["official"] = {"better": "higher", "official": True}
    text = prose(verdict([sweep])["findings"][0]["sentences"])
    assert "has the highest official" in text
    assert (
        "2 of the 3 trained policies beat the untrained one in win rate: onpo · j and dpo · j. Worse than it: slic"
        in text
    )
    ((count,),) = [block["counts"] for block in telling([sweep])]
    assert (count["better"], count["worse"], count["of"]) == (2, 1, 3)


def test_the_summary_names_each_judges_leader_its_difference_and_who_is_level_with_it() -> None:
    scores = {
        "onpo/a": (0.60, 0.55, 0.65),
        "dpo/a": (0.58, 0.53, 0.63),
        "slic/a": (0.40, 0.35, 0.45),
        "dpo/b": (0.52, 0.47, 0.57),
        "onpo/b": (0.40, 0.35, 0.45),
        "sft": (0.5, 0.45, 0.55),
    }
    pairs = [comparison("onpo/a", "sft", 0.1, 0.001), comparison("sft", "dpo/b", -0.02, 0.5)]
    (table,) = verdict([sweep_of(scores, [*pairs, comparison("onpo/a", "dpo/a", 0.02, 0.4)])])["summary"]
    squares = {row["judge"]: row["cells"][0] for row in table["rows"]}
    assert [squares[judge]["leader"] for judge in "ab"] == ["onpo", "dpo"]
    assert [(f.value, f.text) for f in squares["a"]["differences"]] == [(0.1, "+0.100")]
    assert [f.value for f in squares["b"]["differences"]] == [0.02]
    assert [squares[judge]["sure"] for judge in "ab"] == [True, False]
    assert [squares[judge]["level"] for judge in "ab"] == ["dpo", ""]


def test_there_is_no_summary_where_no_judge_trained_two_arms() -> None:
    assert verdict([sweep_of({"onpo/a": (0.6, 0.5, 0.7), "dpo/b": (0.6, 0.5, 0.7)})])["summary"] == []


def test_the_caveats_say_where_the_untrained_policy_stands_apart_from_the_baseline() -> None:
    scores = {"onpo/j": (0.83, 0.8, 0.86), "dpo/j": (0.82, 0.8, 0.86), "sft": (0.81, 0.78, 0.84)}
    apart = (
        "The untrained policy itself has a win rate of 0.810 on head-to-head, graded by panel: read differences from"
    )
    assert f"{apart} it, not from 0.500." in prose(verdict([sweep_of(scores)])["caveats"])
    assert "itself" not in prose(verdict([sweep_of({**scores, "sft": (0.51, 0.48, 0.54)})])["caveats"])
    (table,) = leaderboard([sweep_of(scores)])[0]["tables"]
    assert {line["null_x"] for line in table["rows"]} == {table["rows"][-1]["whiskers"][0]["x"]}


def test_the_caveats_name_the_least_and_the_most_work_where_they_are_far_apart() -> None:
    scores = dict.fromkeys(("onpo/j", "dpo/j", "ipo-md/j", "sft"), (0.5, 0.4, 0.6))
    sweep = sweep_of(scores, samples=150, queries=600)
    sweep.results[2]["queries"] = 100
    work = "The trainers of s did different amounts of work: queries a policy from 100 (ipo-md) to 600 (onpo and dpo)."
    assert work in prose(verdict([sweep])["caveats"])
    sweep.results[2]["queries"] = 400
    assert "amounts of work" not in prose(verdict([sweep])["caveats"])


def test_an_exact_game_has_no_caveat_of_seeds_or_samples(tmp_path: Path) -> None:
    text = prose(verdict([read_sweep(world.game_sweep(tmp_path))])["caveats"])
    assert "One seed" not in text
    assert "samples" not in text


def test_only_those_that_are_compared_by_prompt_are_called_separable() -> None:
    text = told(SPREAD, [comparison("onpo/j", "dpo/j", 0.18, 0.001), comparison("onpo/j", "sft", 0.3, 0.001)])
    assert "It beats the untrained policy: difference +0.300" in text
    assert "It is separable from all 1 that are compared with it by prompt." in text
    assert "Its interval lies above those of all 1 others." in text
    assert "The intervals of 2 of the 3 trained policies lie above" in text


def test_the_verdict_does_not_pick_the_luckiest_seed() -> None:
    scores = {f"lucky/j/{s}": (v, v - 0.01, v + 0.01) for s, v in enumerate((0.9, 0.5, 0.5))}
    scores |= {f"steady/j/{s}": (v, v - 0.01, v + 0.01) for s, v in enumerate((0.6, 0.61, 0.62))}
    found = verdict([sweep_of(scores)])
    assert "steady trained by j has the highest win rate at the median over 3 seeds: 0.600 to 0.620." in prose(
        found["findings"][0]["sentences"]
    )
    assert "One seed" not in prose(found["caveats"])


def test_only_comparisons_over_seeds_become_claims_on_algorithms() -> None:
    scores = {"onpo/j": (0.6, 0.55, 0.65), "dpo/j": (0.5, 0.45, 0.55)}
    pairs = [comparison("onpo", "dpo", 0.1, 0.001, "algorithm"), comparison("onpo", "slic", 0.01, 0.6, "algorithm")]
    text = prose(verdict([sweep_of(scores, pairs)])["algorithms"])
    assert "onpo beats dpo by a difference of +0.100" in text
    assert "Not separable on head-to-head, graded by panel: onpo and slic." in text
    assert verdict([sweep_of(scores, [comparison("onpo/j", "dpo/j", 0.1, 0.001)])])["algorithms"] == []


def test_caveats_name_one_seed_own_judge_failed_verdicts_and_controls_that_score() -> None:
    scores = {
        "onpo/panel": (0.55, 0.52, 0.58),
        "dpo/panel": (0.54, 0.51, 0.57),
        "longest": (0.70, 0.66, 0.74),
        "sft": (0.5, 0.5, 0.5),
    }
    text = prose(verdict([sweep_of(scores, coverage=0.875)])["caveats"])
    assert "One seed: these are statements on these checkpoints" in text
    assert "2 of 2 scores come from the very judge that trained the policy" in text
    assert "lowest coverage 0.8750 (onpo · panel on head-to-head, graded by panel)" in text
    control = "The control longest (the longest of several untrained answers)"
    assert f"{control} lies, by its interval alone, above the untrained policy and 2 of 2 trained policies" in text
    assert "0.700" in text
    pairs = [comparison("longest", cell, 0.15, 0.001) for cell in ("onpo/panel", "dpo/panel", "sft")]
    text = prose(verdict([sweep_of(scores, pairs)])["caveats"])
    assert f"{control} beats the untrained policy and 2 of 2 trained policies" in text


def test_caveats_name_cells_that_are_not_done_and_alarms_that_rang(tmp_path: Path) -> None:
    sweep = read_sweep(world.language_sweep(tmp_path))
    text = prose(verdict([sweep])["caveats"])
    assert "stories: 1 of 15 cells missing: slic · llm." in text
    assert "stories: 1 of 15 cells failed: slic · pairrm." in text
    assert "Training alarms rang in 3 cells: collapse." in text
    assert {entry["row"]["trainer"] for entry in alarms([sweep])["rang"]} == {"dpo"}


def test_nothing_to_rank_gives_no_finding() -> None:
    assert verdict([Sweep(name="empty")])["findings"] == []
    assert verdict([sweep_of({"sft": (0.5, 0.4, 0.6)})])["findings"] == []


def test_an_independent_grader_goes_before_the_judge_that_trained(tmp_path: Path) -> None:
    sweep = read_sweep(world.language_sweep(tmp_path, judges=["panel"], graders=["panel", "llm"]))
    assert verdict([sweep])["findings"][0]["where"] == "head-to-head, graded by llm"


def test_shades_are_signed_around_the_untrained_policy_then_a_near_null_value_and_from_the_worst_otherwise() -> None:
    rates = {"a/j": (0.6, 0, 1), "b/j": (0.45, 0, 1)}
    shade = shading(only_group(sweep_of(rates)))
    assert [shade([value]) for value in (0.6, 0.5, 0.45)] == [1, 0, -0.5]
    shade = shading(only_group(sweep_of({**rates, "sft": (0.7, 0, 1)})))
    assert [shade([value]) for value in (0.7, 0.6, 0.45)] == [0, -0.4, -1]
    sweep = sweep_of(rates)
    sweep.metrics["win_rate"] = {"better": "lower"}
    shade = shading(only_group(sweep))
    assert [shade([value]) for value in (0.6, 0.45)] == [0, 1]


def test_each_grader_has_a_scale_of_its_own() -> None:
    sweep = sweep_of({"a/j": (0.9, 0.85, 0.95), "sft": (0.8, 0.75, 0.84)})
    other = sweep_of({"a/j": (0.60, 0.58, 0.62), "sft": (0.62, 0.60, 0.64)}, grader="llm")
    sweep.results.extend(other.results)
    first, second = trainer_by_judge([sweep])
    assert [only["rows"][0]["cells"][0]["shade"] for only in (first, second)] == [1, -0.25]
    assert [only["around"]["value"].value for only in (first, second)] == [0.8, 0.62]
    (crossed,) = cross_judge([sweep])
    assert [(cell["shade"], cell["sure"]) for cell in crossed["rows"][0]["cells"]] == [(1, True), (-0.25, False)]


def test_a_difference_that_is_not_separable_is_paler_than_any_that_is() -> None:
    scores = {"a/j": (0.8, 0.4, 1), "b/j": (0.6, 0.58, 0.62), "sft": (0.5, 0.48, 0.52)}
    pairs = [
        comparison("a/j", "sft", 0.3, 0.3),
        comparison("b/j", "sft", 0.1, 0.001),
        comparison("a/j", "b/j", 0.2, 0.5),
    ]
    sweep = sweep_of(scores, pairs)
    (only,) = trainer_by_judge([sweep])
    assert [(row["cells"][0]["shade"], row["cells"][0]["sure"]) for row in only["rows"]] == [
        (0.25, False),
        (0.497, True),
    ]
    (matrix,) = matrices([sweep])
    squares = {
        (row["name"], name): cell
        for row in matrix["rows"]
        for name, cell in zip(matrix["names"], row["cells"], strict=True)
    }
    assert squares["a", "sft"]["shade"] == 0.25
    assert squares["b", "sft"]["shade"] == 0.497
    assert squares["a", "b"] | {"figure": None} == {"figure": None, "shade": 0.168, "sure": False}


def test_heat_maps_show_failed_and_missing_cells_and_the_range_over_seeds(tmp_path: Path) -> None:
    sweep = read_sweep(world.language_sweep(tmp_path))
    first = trainer_by_judge([sweep])[0]
    slic = next(row for row in first["rows"] if row["name"] == "slic")
    assert [cell["states"] for cell in slic["cells"]] == [[], ["missing"], ["failed"]]
    assert "loss is NaN" in slic["cells"][2]["reason"]
    scores = {f"onpo/j/{s}": (v, v, v) for s, v in enumerate((0.5, 0.7, 0.6))}
    (only,) = trainer_by_judge([sweep_of(scores)])
    assert [f.value for f in only["rows"][0]["cells"][0]["figures"]] == [0.5, 0.7]


def test_the_cross_view_marks_the_diagonal(tmp_path: Path) -> None:
    sweep = read_sweep(world.language_sweep(tmp_path))
    onpo = next(map for map in cross_judge([sweep]) if map["arm"] == "onpo")
    marks = {
        (row["name"], grader): cell["own"]
        for row in onpo["rows"]
        for grader, cell in zip(onpo["columns"], row["cells"], strict=True)
    }
    assert {pair for pair, own in marks.items() if own} == {("panel", "panel"), ("llm", "llm")}


def test_comparisons_with_the_untrained_policy_are_shown_with_the_trained_one_first(tmp_path: Path) -> None:
    sweep = read_sweep(world.language_sweep(tmp_path))
    blocks = telling([sweep])
    assert [block["board"].lead.name for block in blocks] == list(world.COMPARED.values())
    assert {line["row"]["b"] for block in blocks for line in block["rows"]} == {"sft"}


def test_matrices_are_split_by_the_judge_that_trained_where_no_two_judges_meet(tmp_path: Path) -> None:
    found = [of for of in matrices([read_sweep(world.language_sweep(tmp_path))]) if of["board"].name == "head-to-head"]
    assert [(of["judge"], of["grader"]) for of in found] == [
        *(("panel", "panel"), ("llm", "panel"), ("pairrm", "panel")),
        *(("panel", "llm"), ("llm", "llm"), ("pairrm", "llm")),
    ]
    assert found[0]["names"] == ["dpo", "inpo", "ipo-md", "onpo", "slic", "sft"]
