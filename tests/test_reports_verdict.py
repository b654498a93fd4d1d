"""The verdict's sentences, its summary and its caveats; on tables small enough to check by hand."""

import math
from pathlib import Path
from typing import Any

import reports_world as world
from test_reports_boards import Scores, comparison, prose, sweep_of

from reports.sections.comparisons import key_comparisons
from reports.sections.leaderboard import leaderboard
from reports.sections.training import alarms
from reports.sections.verdict import verdict
from reports.tables import Sweep, read_sweep


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
    assert "Not separable from this best one: dpo · j." in text
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


def test_where_nothing_is_tested_the_verdict_says_so_and_claims_no_win_however_far_intervals_lie_apart() -> None:
    text = told(SPREAD)
    assert "It is not compared with the untrained policy, which has 0.500." in text
    assert "Not compared with it prompt by prompt: dpo · j and slic · j." in text
    assert not [word for word in ("beat", "worse", "separable", "overlap") if word in text]


def test_where_the_untrained_policy_has_no_score_intervals_are_held_against_the_null_value() -> None:
    scores = {"dpo/j": (0.2, 0.15, 0.25), "slic/j": (0.6, 0.55, 0.65)}
    text = told(scores, better="lower")
    assert "Its interval lies on the better side of 0.500, where neither side is ahead." in text
    assert "The intervals of 1 of the 2 trained policies lie below the null value in win rate: dpo · j." in text
    assert "Above it: slic · j." in text


def test_a_control_that_may_hold_the_best_ones_rank_is_named_beside_it_and_first_before_quoting() -> None:
    scores = {**SPREAD, "longest": (0.78, 0.72, 0.84), "constant": (0.2, 0.1, 0.3)}
    control = "control longest (the longest of several untrained answers), without any training,"
    pairs = [comparison("onpo/j", "longest", 0.02, 0.4), comparison("onpo/j", "constant", 0.6, 0.001)]
    text = told(scores, pairs)
    assert f"The {control} has 0.780, not separable from the best trained one." in text
    assert "constant" not in text
    caveats = verdict([sweep_of(scores, pairs)])["caveats"]
    assert (
        prose(caveats[:1])
        == f"The {control} is not beaten by the best trained policy on head-to-head, graded by panel."
    )
    assert "longest" not in told(scores)
    assert "longest" not in told(scores, [comparison("onpo/j", "longest", 0.02, 0.001)])


def test_the_headline_says_first_that_nothing_trained_beats_the_untrained_policy_and_what_scores_as_high() -> None:
    scores = {
        "onpo/j": (0.56, 0.5, 0.62),
        "dpo/j": (0.4, 0.35, 0.45),
        "sft": (0.56, 0.5, 0.62),
        "constant": (0.6, 0.5, 0.7),
    }
    best = "onpo trained by j has the highest win rate of the trained, 0.560"
    start = f"No trained policy is separable from the untrained one: {best}"
    pairs = [comparison("onpo/j", "sft", 0.0, 1.0), comparison("dpo/j", "sft", -0.16, 0.4)]
    text = told(scores, [*pairs, comparison("onpo/j", "constant", -0.04, 0.6)])
    assert text.startswith(start)
    assert "n = 100); the untrained policy has the same, 0.560; the control constant (one fixed answer)," in text
    assert "without any training, has a higher one, 0.600, not separable from the best trained one." in text
    pairs[1]["p_adjusted"] = 0.001
    assert told(scores, pairs).startswith("No trained policy beats the untrained one, and 1 is worse: onpo")


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
    text = prose(verdict([sweep])["findings"][0]["sentences"])
    assert (
        "2 of the 3 trained policies beat the untrained one in win rate: onpo · j and dpo · j. Worse than it: slic"
        in text
    )
    ((count,),) = [block["counts"] for block in key_comparisons([sweep])]
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


def test_the_summary_names_no_more_than_all_others() -> None:
    scores = {f"{trainer}/a": (0.5, 0.4, 0.6) for trainer in ("onpo", "dpo", "slic", "inpo")}
    pairs = [comparison("onpo/a", f"{trainer}/a", 0.0, 1.0) for trainer in ("dpo", "slic", "inpo")]
    (table,) = verdict([sweep_of(scores, pairs)])["summary"]
    assert table["rows"][0]["cells"][0]["level"] == "all others"
    pairs[-1] = comparison("onpo/a", "inpo/a", 0.3, 0.001)
    (table,) = verdict([sweep_of(scores, pairs)])["summary"]
    assert table["rows"][0]["cells"][0]["level"] == "dpo and slic"


def test_no_arm_is_level_with_the_leader_where_values_are_exact() -> None:
    scores = {"onpo/a": (0.9, None, None), "dpo/a": (0.6, None, None), "slic/a": (0.6, None, None)}
    (table,) = verdict([sweep_of(scores)])["summary"]
    assert (table["rows"][0]["cells"][0]["leader"], table["rows"][0]["cells"][0]["level"]) == ("onpo", "")


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
    assert "It is separable from dpo · j." in text
    assert "Not compared with it prompt by prompt: slic · j." in text


def test_the_verdict_ranks_by_the_mean_over_seeds() -> None:
    scores = {f"lucky/j/{s}": (v, v - 0.01, v + 0.01) for s, v in enumerate((0.7, 0.5, 0.5))}
    scores |= {f"steady/j/{s}": (v, v - 0.01, v + 0.01) for s, v in enumerate((0.6, 0.61, 0.62))}
    found = verdict([sweep_of(scores)])
    sentence = "steady trained by j has the highest win rate, 0.610 in the mean of 3 seeds (seeds from 0.600 to 0.620)."
    assert sentence in prose(found["findings"][0]["sentences"])
    assert "One seed" not in prose(found["caveats"])


def test_of_two_seeds_the_mean_counts_and_not_the_worse_one() -> None:
    scores = {f"dpo/j/{s}": (v, v - 0.01, v + 0.01) for s, v in enumerate((0.36, 0.47))}
    scores |= {f"onpo/j/{s}": (v, v - 0.01, v + 0.01) for s, v in enumerate((0.35, 0.49))}
    text = prose(verdict([sweep_of(scores | {"sft": (0.394, 0.38, 0.40)})])["findings"][0]["sentences"])
    assert text.startswith("onpo trained by j has the highest win rate, 0.420 in the mean of 2 seeds")
    assert "the untrained policy has a higher one" not in text


def test_an_arm_that_lacks_a_seed_of_the_others_is_named_and_not_ranked() -> None:
    scores = {f"{trainer}/j/{seed}": (0.5, 0.4, 0.6) for trainer in ("dpo", "onpo") for seed in (0, 1)}
    sweep = sweep_of(scores | {"slic/j/0": (0.9, 0.8, 1.0)})
    text = prose(verdict([sweep])["findings"][0]["sentences"])
    assert "slic trained" not in text
    assert "Not ranked, since seeds of the others are missing: slic · j (seed 1)." in text
    lines = {line["arm"]: line for line in leaderboard([sweep])[0]["tables"][0]["rows"]}
    assert (lines["slic"]["rank"], lines["slic"]["lacking"], lines["dpo"]["lacking"]) == (None, "1", "")


def test_only_comparisons_over_seeds_become_claims_on_algorithms() -> None:
    scores = {"onpo/j": (0.6, 0.55, 0.65), "dpo/j": (0.5, 0.45, 0.55)}
    pairs = [comparison("onpo", "dpo", 0.1, 0.001, "algorithm"), comparison("onpo", "slic", 0.01, 0.6, "algorithm")]
    text = prose(verdict([sweep_of(scores, pairs)])["algorithms"])
    assert "onpo beats dpo by a difference of +0.100" in text
    assert "Not separable on head-to-head, graded by panel: onpo and slic." in text
    settled = {"detectable": 0.08, "prompts_needed": 900.0, "seeds_needed": 7.0}
    rows = [comparison("onpo", "dpo", 0.02, 0.6, "algorithm") | settled]
    text = prose(verdict([sweep_of(scores, rows)])["algorithms"])
    take = "a difference of 0.080 would have shown (power 80%), and this one would take about 900 prompts or 7 seeds."
    assert take in text
    rows[0] |= {"prompts_needed": math.inf, "seeds_needed": math.inf}
    text = prose(verdict([sweep_of(scores, rows)])["algorithms"])
    assert "no number of prompts or seeds alone would show this one." in text
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
    control = "The control longest (the longest of several untrained answers), without any training,"
    assert control not in text
    pairs = [comparison("longest", cell, 0.15, 0.001) for cell in ("onpo/panel", "dpo/panel", "sft")]
    text = prose(verdict([sweep_of(scores, pairs)])["caveats"])
    assert f"{control} beats the untrained policy and 2 of 2 trained policies" in text


def test_caveats_name_cells_that_are_not_done_and_alarms_that_rang(tmp_path: Path) -> None:
    sweep = read_sweep(world.language_sweep(tmp_path))
    text = prose(verdict([sweep])["caveats"])
    assert "stories: 1 of 15 cells missing: slic · llm." in text
    assert "stories: 1 of 15 cells failed: slic · pairrm." in text
    assert "The alarm collapse rang for dpo · panel, dpo · llm and dpo · pairrm." in text
    assert {entry["row"]["trainer"] for entry in alarms([sweep])["triggered"]} == {"dpo"}


def test_an_alarm_that_rang_for_the_best_one_stands_with_it() -> None:
    sweep = sweep_of(SPREAD)
    triggered = {
        "trainer": "dpo",
        "judge": "j",
        "seed": 0,
        "cell": "dpo/j",
        "metric": "alarm:collapse",
        "value": 1.0,
        "iteration": 1,
        "step": 1,
    }
    sweep.dynamics[:] = [triggered, triggered | {"cell": "slic/j", "value": 0.0}]
    assert "alarm" not in prose(verdict([sweep])["findings"][0]["sentences"])
    sweep.dynamics.append(triggered | {"cell": "onpo/j"})
    assert "An alarm rang in its training: collapse" in prose(verdict([sweep])["findings"][0]["sentences"])


def test_nothing_to_rank_gives_no_finding() -> None:
    assert verdict([Sweep(name="empty")])["findings"] == []
    assert verdict([sweep_of({"sft": (0.5, 0.4, 0.6)})])["findings"] == []


def test_a_highest_value_that_others_share_is_said_to_be_shared() -> None:
    scores = {"onpo/j": (0.9, 0.8, 1.0), "dpo/j": (0.9, 0.8, 1.0), "slic/j": (0.9, 0.8, 1.0), "ipo/j": (0.5, 0.4, 0.6)}
    assert "0.900 (95% interval 0.800 to 1.000, n = 100); dpo · j and slic · j have the same." in told(scores)
    assert "dpo · j has the same." in told({**scores, "slic/j": (0.8, 0.7, 0.9)})
    assert "the same" not in told({"onpo/j": (0.9, 0.8, 1.0), "ipo/j": (0.5, 0.4, 0.6)})


def test_it_is_said_once_that_none_beats_the_untrained_policy() -> None:
    scores = {"onpo/j": (0.5, 0.4, 0.6), "dpo/j": (0.3, 0.2, 0.4), "sft": (0.5, 0.45, 0.6)}
    pairs = [comparison("onpo/j", "sft", 0.0, 1.0), comparison("dpo/j", "sft", -0.2, 0.001)]
    text = told(scores, pairs)
    assert text.startswith("No trained policy beats the untrained one, and 1 is worse: ")
    assert text.endswith("Worse than the untrained policy: dpo · j.")
    assert "None of" not in text


def test_a_control_that_stands_out_on_several_boards_has_one_caveat() -> None:
    sweep = sweep_of({"onpo/j": (0.5, 0.45, 0.55), "sft": (0.4, 0.35, 0.44), "longest": (0.7, 0.65, 0.75)})
    sweep.comparisons.extend(comparison("longest", cell, 0.2, 0.001) for cell in ("onpo/j", "sft"))
    sweep.results.extend([{**row, "grader": "llm"} for row in sweep.results])
    sweep.comparisons.extend([{**row, "grader": "llm"} for row in sweep.comparisons])
    caveats = [prose([each]) for each in verdict([sweep])["caveats"]]
    (caveat,) = [text for text in caveats if " beats " in text]
    clause = "beats the untrained policy and 1 of 1 trained policy on head-to-head, graded"
    assert caveat == (
        "The control longest (the longest of several untrained answers), without any training, "
        f"{clause} by panel with 0.700; {clause} by llm with 0.700."
    )
