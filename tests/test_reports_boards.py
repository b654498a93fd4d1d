"""What the report claims: ranks, separability, verdict sentences, caveats; on tables small enough to check by hand."""

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import reports_world as world

from reports.boards import Group, boards, compared, groups, oriented, significant
from reports.build import build
from reports.sections.comparisons import key_comparisons, matrices
from reports.sections.judges import judges
from reports.sections.leaderboard import leaderboard
from reports.sections.matrix import cross_judge, shading, trainer_by_judge
from reports.sections.verdict import verdict
from reports.seeds import seeds_of_most
from reports.standings import against_start, better, ranks, versus
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


def every_pair(scores: Scores, separable: float = 0.1) -> list[dict[str, Any]]:
    """The comparison of each two cells; those further apart than `separable` are separable."""
    differences = {(a, b): scores[a][0] - scores[b][0] for a, b in itertools.combinations(scores, 2)}
    return [comparison(*pair, by, 0.001 if abs(by) > separable else 0.5) for pair, by in differences.items()]


def test_ranks_are_ranges_of_what_comparisons_separate_and_there_are_none_without_them() -> None:
    scores = {"a/j": (0.9, 0.85, 0.95), "b/j": (0.7, 0.6, 0.8), "c/j": (0.65, 0.55, 0.75), "d/j": (0.3, 0.2, 0.4)}
    sweep = sweep_of(scores, every_pair(scores))
    assert ranks(only_group(sweep)) == {"a/j": (1, 1), "b/j": (2, 3), "c/j": (2, 3), "d/j": (4, 4)}
    assert ranks(only_group(sweep_of(scores))) == {}


def test_ranks_turn_round_where_lower_is_better() -> None:
    scores = {"a/j": (0.9, 0.85, 0.95), "b/j": (0.3, 0.2, 0.4)}
    sweep = sweep_of(scores, every_pair(scores))
    sweep.metrics["win_rate"] = {"better": "lower"}
    group = only_group(sweep)
    assert [row["cell"] for row in group.ordered] == ["b/j", "a/j"]
    assert ranks(group) == {"b/j": (1, 1), "a/j": (2, 2)}


def test_a_paired_comparison_decides_and_not_how_intervals_lie() -> None:
    scores = {"a/j": (0.56, 0.50, 0.62), "b/j": (0.52, 0.46, 0.58)}
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
    level = replace(group, rows=[{**row, "value": 0.5} for row in group.rows])
    assert set(ranks(level).values()) == {(1, 1)}


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
    of_two = replace(board, metrics=(*board.metrics, twin))
    assert versus(replace(group, board=of_two), "onpo-llm-0", "sft") is None
    sweep.comparisons.append(comparison("onpo-llm-0", "sft", 0.07, 0.001))
    sweep.comparisons[-1] |= {"leaderboard": "lm-eval", "metric": "acc", "category": "truth", "grader": ""}
    again = replace(group, sweep=replace(sweep), board=of_two)
    assert versus(again, "onpo-llm-0", "sft")["difference"] == 0.07  # type: ignore[index]


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


def test_standing_to_the_untrained_policy_uses_its_pair_or_the_null_value_where_it_has_no_score() -> None:
    scores = {"a/j": (0.60, 0.55, 0.65), "sft": (0.52, 0.47, 0.57)}
    group = only_group(sweep_of(scores))
    assert against_start(group, group.arms[0]) is None
    group = only_group(sweep_of(scores, [comparison("sft", "a/j", -0.08, 0.001)]))
    assert versus(group, "a/j", "sft")["difference"] == 0.08  # type: ignore[index]
    assert against_start(group, group.arms[0]) == 1
    group = only_group(sweep_of({"a/j": (0.60, 0.55, 0.65), "b/j": (0.45, 0.42, 0.48), "c/j": (0.5, 0.4, 0.6)}))
    assert {arm.name: against_start(group, arm) for arm in group.arms} == {"a/j": 1, "b/j": -1, "c/j": 0}
    group.sweep.metrics["win_rate"] = {"better": "higher"}
    assert against_start(only_group(group.sweep), group.arms[0]) is None


def test_a_score_without_interval_is_never_separable_from_one_with() -> None:
    group = only_group(sweep_of({"a/j": (0.9, None, None), "b/j": (0.1, 0.05, 0.15)}))  # type: ignore[dict-item]
    assert better(group, *group.arms) is None


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
    pairs = [comparison("a/j", "sft", 0.1, 0.001), {**comparison("a/j", "sft", -0.02, 0.5), "grader": "llm"}]
    sweep.comparisons.extend(pairs)
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


def test_heat_maps_show_failed_and_missing_cells_and_the_mean_over_seeds(tmp_path: Path) -> None:
    sweep = read_sweep(world.language_sweep(tmp_path))
    first = trainer_by_judge([sweep])[0]
    slic = next(row for row in first["rows"] if row["name"] == "slic")
    assert [cell["states"] for cell in slic["cells"]] == [[], ["missing"], ["failed"]]
    assert "loss is NaN" in slic["cells"][2]["reason"]
    scores = {f"onpo/j/{s}": (v, v, v) for s, v in enumerate((0.5, 0.7, 0.6))}
    (only,) = trainer_by_judge([sweep_of(scores)])
    assert [f.value for f in only["rows"][0]["cells"][0]["figures"]] == [pytest.approx(0.6)]


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
    blocks = key_comparisons([sweep])
    assert [block["board"].lead.name for block in blocks] == list(world.COMPARED.values())
    assert {line["row"]["b"] for block in blocks for line in block["rows"]} == {"sft"}


def test_matrices_are_split_by_the_judge_that_trained_where_no_two_judges_meet(tmp_path: Path) -> None:
    found = [of for of in matrices([read_sweep(world.language_sweep(tmp_path))]) if of["board"].name == "head-to-head"]
    assert [(of["judge"], of["grader"]) for of in found] == [
        *(("panel", "panel"), ("llm", "panel"), ("pairrm", "panel")),
        *(("panel", "llm"), ("llm", "llm"), ("pairrm", "llm")),
    ]
    assert found[0]["names"] == ["dpo", "inpo", "ipo-md", "onpo", "slic", "sft"]


def evaluated(directory: Path, policies: tuple[str, ...] = ("one", "two")) -> Path:
    """Policies rated as they are, with a control each: nothing is trained and nobody judges."""
    matrix = [
        {**control, "cell": f"{policy}~{control['cell']}", "policy": policy, "state": "done"}
        for policy in policies
        for control in world.CONTROLS[:2]
    ]
    of = {"leaderboard": "head-to-head", "metric": "win_rate", "grader": "panel", "iteration": 0}
    values = [0.38, 0.74, 0.48, 0.27]
    rows = [
        world.result(cell, value=value, ci_low=value - 0.1, ci_high=value + 0.1, **of)
        for cell, value in zip(matrix, values, strict=False)
    ]
    return world.write(directory, {"results": rows}, world.documents(matrix))


def test_a_sweep_without_trainers_has_no_empty_section_and_no_column_of_judges(tmp_path: Path) -> None:
    text = build([evaluated(tmp_path / "sweep", ("one",))], tmp_path / "out").read_text()
    sections = set(re.findall(r'<section id="(\w+)"', text))
    assert sections == {"verdict", "leaderboards", "judges", "cells", "provenance"}
    header = re.search(r"<thead>.*?</thead>", text[text.index('id="table-1"') :], re.DOTALL)
    assert header is not None
    assert re.findall(r"<th>(\w+)</th>", header[0]) == ["rank", "trainer", "grader"]
    assert "optimiser" not in text
    assert "sft is the untrained policy, constant is one fixed answer." in text
    caveats = verdict([read_sweep(tmp_path / "sweep")])["caveats"]
    assert prose(caveats).startswith("Prompts or questions behind a score: 256 (head-to-head). The intervals say")


def test_several_policies_are_named_in_the_tables_though_nothing_is_trained(tmp_path: Path) -> None:
    sweep = read_sweep(evaluated(tmp_path / "sweep"))
    (table,) = leaderboard([sweep])[0]["tables"]
    assert "policy" in table["varies"]
    assert [line["row"]["policy"] for line in table["rows"]] == ["one", "one", "two", "two"]
    text = build([tmp_path / "sweep"], tmp_path / "out").read_text()
    assert "Policies are ranked apart" in text
    assert "<td>one</td>" in text


def test_a_judge_gives_a_range_to_the_controls_of_several_policies(tmp_path: Path) -> None:
    (row,) = judges([read_sweep(evaluated(tmp_path))])["rows"]
    shown = [[figure.text for figure in figures] for figures in row["controls"]]
    assert shown == [
        ["0.380", "0.480"],
        ["0.270", "0.740"],
    ]


@pytest.mark.parametrize(
    ("seeds_by_arm", "expected"),
    [
        ([], ()),
        ([[0, 1, 2]], (0, 1, 2)),
        ([[0, 1], [0, 1], [0]], (0, 1)),  # one arm lacks a seed
        ([[0, 1, 2], [0, 1], [0, 1]], (0, 1)),  # one arm is ahead of the others
        ([[0, 1, 2], [1, 2]], (1, 2)),  # what both have
        ([[0, 1], [2, 3, 4]], (2, 3, 4)),
    ],
)
def test_the_seeds_of_most_arms_are_compared(seeds_by_arm: list[list[int]], expected: tuple[int, ...]) -> None:
    assert seeds_of_most(seeds_by_arm) == expected
