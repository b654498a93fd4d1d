"""What happened in training, how cells are called, and samples: on tables small enough to check by hand."""

from pathlib import Path
from typing import Any

import pytest
import reports_world as world
from test_reports_boards import prose

from harness.tables.alarms import ALARMS as RULES
from harness.tables.alarms import SHARE_LIMITS
from reports.charts import extent
from reports.numbers import metric
from reports.sections.caveats import caveats
from reports.sections.samples import marked, messages
from reports.sections.training import ALARMS, alarms, always_zero, dynamics, styles
from reports.sections.verdict import verdict
from reports.tables import Sweep, bare_names, read_sweep


def test_figures_of_training_are_placed_within_their_iteration(tmp_path: Path) -> None:
    base = {"sweep": "s", "cell": "c", "trainer": "dpo", "judge": "llm", "seed": 0, "phase": 1, "metric": "loss"}
    rows = [{**base, "iteration": i, "step": k, "value": 0.1 * k} for i in (1, 2) for k in range(4)]
    cell = {**world.cells(["dpo"], ["llm"], [0])[0], "cell": "c"}
    sweep = read_sweep(world.write(tmp_path, {"dynamics": rows}, {"cells.json": [cell]}))
    points = dynamics([sweep])[0]["panels"][0]["lines"][0]["points"]
    assert [point[0] for point in points] == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]


def figures(tmp_path: Path, heights: dict[str, float], judges: tuple[str, ...] = ("llm",)) -> Sweep:
    """A sweep with one training figure: an arm's reaches its height, the untrained policy's is 0.5, `longest`'s 0.9."""
    heights, controls = {**heights, "longest": 0.9}, (world.CONTROLS[0], world.CONTROLS[2])
    matrix = [
        *world.cells(heights, judges, [0])[: -len(judges)],
        *({**control, "state": "done"} for control in controls),
    ]
    rows = [
        {"cell": cell["cell"], "trainer": cell["trainer"], "metric": "loss", "iteration": i, "step": i, "value": value}
        for cell in matrix
        for i, value in enumerate((0.5, heights.get(cell["trainer"], 0.5)))
    ]
    return read_sweep(world.write(tmp_path, {"dynamics": rows}, {"cells.json": matrix}))


def test_one_judge_and_one_scale_share_a_panel_with_the_untrained_policy_as_a_line(tmp_path: Path) -> None:
    (facet,) = dynamics([figures(tmp_path, {"onpo": 1.0, "dpo": 2.0})])
    (panel,) = facet["panels"]
    assert [line["name"] for line in panel["lines"]] == ["onpo", "dpo"]
    assert panel["null"] == pytest.approx(_height(panel, 0.5), abs=0.2)


def _height(panel: dict[str, Any], value: float) -> float:
    """Where a value lies, from two ticks of the y axis."""
    (y1, text1), (y2, text2) = panel["y_ticks"][0], panel["y_ticks"][-1]
    share = (value - float(text1)) / (float(text2) - float(text1))
    return float(y1 + share * (y2 - y1))


def test_arms_of_very_different_size_have_panels_and_scales_of_their_own(tmp_path: Path) -> None:
    (facet,) = dynamics([figures(tmp_path, {"onpo": 40.0, "dpo": 1.0})])
    assert facet["own_scales"]
    assert [panel["title"] for panel in facet["panels"]] == ["onpo", "dpo"]


def test_several_judges_are_the_lines_of_an_arms_panel_on_a_common_scale(tmp_path: Path) -> None:
    (facet,) = dynamics([figures(tmp_path, {"onpo": 2.0, "dpo": 1.0}, ("llm", "panel"))])
    assert not facet["own_scales"]
    assert [[line["name"] for line in panel["lines"]] for panel in facet["panels"]] == [["llm", "panel"]] * 2


def test_cells_and_algorithms_are_called_by_readable_names(tmp_path: Path) -> None:
    matrix = [
        {**cell, "cell": f"pocket~1-{cell['seed']}", "algorithm": "pocket~1"}
        for cell in world.cells(["onpo"], ["llm"], [0, 1])
    ]
    sweep = read_sweep(world.write(tmp_path, {}, {"cells.json": matrix}))
    assert sweep.display_name("pocket~1-1") == "onpo · llm · seed 1"
    assert sweep.display_name("pocket~1") == "onpo · llm"
    assert sweep.display_name("anything else") == "anything else"


def test_words_that_the_other_side_lacks_are_marked_and_the_texts_stay_whole() -> None:
    before, after = "The cat sat on the mat.  So\nquiet", "The warm cat sat on a mat.  So\nquiet"
    left, right = marked(before, after)
    assert "".join(piece.text for piece in left) == before
    assert "".join(piece.text for piece in right) == after
    assert [piece.text for piece in left if piece.changed] == ["the"]
    assert [piece.text for piece in right if piece.changed] == ["warm", "a"]


def test_texts_with_little_in_common_and_long_texts_are_not_marked() -> None:
    assert not any(piece.changed for side in marked("one two three", "four five six") for piece in side)
    long = "word " * 500
    assert not any(piece.changed for side in marked(long, long + "end") for piece in side)
    assert marked("", "") == ([], []) or all(not piece.text for side in marked("", "") for piece in side)


def test_a_chat_prompt_is_shown_as_messages_and_anything_else_as_text() -> None:
    assert messages('[{"role": "user", "content": "Hi"}]') == [{"role": "user", "content": "Hi"}]
    assert messages("[not JSON") == [{"role": "", "content": "[not JSON"}]
    assert messages('"a JSON text"') == [{"role": "", "content": "a JSON text"}]
    assert messages("[1, 2]") == [{"role": "", "content": "[1, 2]"}]


def test_metrics_without_scale_are_written_with_four_digits() -> None:
    assert metric("average_length", world.METRICS["average_length"]).decimals is None


def test_the_verdict_says_where_the_lead_metric_is_not_compared(tmp_path: Path) -> None:
    findings = {
        found["where"]: prose(found["sentences"])
        for found in verdict([read_sweep(world.language_sweep(tmp_path))])["findings"]
    }
    assert "It is not compared with the untrained policy" in findings["alpaca-eval, graded by panel"]
    assert "not compared" not in findings["head-to-head, graded by panel"]
    assert "lm-eval · truth" in findings
    assert "lm-eval · summary" in findings


def test_the_caveats_say_how_many_prompts_a_score_rests_on(tmp_path: Path) -> None:
    text = prose(verdict([read_sweep(world.language_sweep(tmp_path))])["caveats"])
    assert "805 (alpaca-eval), 500 (arena-hard), 80 (mt-bench), 64 to 200 (lm-eval). The intervals say" in text


def test_arms_are_called_without_their_brackets_where_that_is_clear() -> None:
    assert bare_names(["dpo(beta=1.0)", "ipo-md(mixture=0)", "ipo-md(mixture=1)", "sft", "(x)"]) == {
        "dpo(beta=1.0)": "dpo",
        "ipo-md(mixture=0)": "ipo-md(mixture=0)",
        "ipo-md(mixture=1)": "ipo-md(mixture=1)",
        "sft": "sft",
        "(x)": "(x)",
    }


def test_style_shares_start_from_the_untrained_policy(tmp_path: Path) -> None:
    matrix = [*world.cells(["dpo"], ["llm"], [0]), {**world.CONTROLS[0], "state": "done"}]
    rows = [
        {"cell": cell, "trainer": trainer, "metric": "style:warm", "iteration": iteration, "value": value}
        for cell, trainer, iteration, value in (("sft", "sft", 0, 0.25), ("dpo-llm-0", "dpo", 1, 0.5))
    ]
    (facet,) = styles([read_sweep(world.write(tmp_path, {"dynamics": rows}, {"cells.json": matrix}))])
    assert [point[:2] for point in facet["panels"][0]["lines"][0]["points"]] == [(0, 0.25), (1, 0.5)]


def test_figures_that_are_zero_throughout_are_named_and_not_drawn(tmp_path: Path) -> None:
    sweep = figures(tmp_path, {"onpo": 1.0})
    sweep.dynamics.extend({**row, "metric": "pair/failed", "value": 0} for row in list(sweep.dynamics))
    assert [facet["name"] for facet in dynamics([sweep])] == ["loss"]
    assert always_zero([sweep]) == ["pairs without a verdict, because it failed"]


def test_an_alarm_says_what_rang_and_every_rule_has_its_words(tmp_path: Path) -> None:
    assert set(ALARMS) == {*RULES, *SHARE_LIMITS, "missing", "standstill"}
    cell = world.cells(["dpo"], ["llm"], [0])[0]
    at = {"cell": cell["cell"], "trainer": "dpo", "judge": "llm", "iteration": 1, "step": 0, "value": 1.0}
    rows = [{**at, "metric": f"alarm:{name}"} for name in ("one-style", "of_a_plugin")]
    sweep = read_sweep(world.write(tmp_path, {"dynamics": rows}, {"cells.json": [cell]}))
    names = [entry["name"] for entry in alarms([sweep])["triggered"]]
    assert names == ["one-style (nearly all answers in one style)", "of a plugin"]


def test_the_axis_of_a_share_ends_at_zero_and_one(tmp_path: Path) -> None:
    sweep = figures(tmp_path, {"onpo": 1.0, "dpo": 0.0})
    sweep.dynamics[:] = [{**row, "metric": "finished"} for row in sweep.dynamics]
    (facet,) = dynamics([sweep])
    for panel in facet["panels"]:
        assert (_height(panel, 0.0), _height(panel, 1.0)) == (panel["height"] - 24, 10)
    assert extent([0.2, 0.99], limits=(0, 1)) == (pytest.approx(0.1684), 1)
    assert extent([-0.2, 0.5], limits=(0, 1))[0] == -0.2  # what is there is drawn


@pytest.mark.parametrize("devices", [("cpu", "cpu"), ("cpu", "NVIDIA H100")])
def test_cells_made_on_different_kinds_of_device_are_told(tmp_path: Path, devices: tuple[str, str]) -> None:
    environments = [{"device": device, "threads": 1, "cells": [f"c{i}"]} for i, device in enumerate(devices)]
    files = {"cells.json": world.cells(["dpo"], ["llm"], [0]), "provenance.json": {"environments": environments}}
    notes = [prose(note) for note in caveats([read_sweep(world.write(tmp_path, {}, files))], [], [])]
    assert any("different kinds of device" in note and "NVIDIA H100 (1 cell)" in note for note in notes) == (
        devices[0] != devices[1]
    )
