"""Every registered trainer through a whole sweep on a tiny language model."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
from conftest import Ended, Workspace

from harness.registry import load, names

Command = Callable[..., Ended]
TEXT = [name for name in names("trainers") if load("trainers", name).needs != "game"]
SAMPLES = {"ipo-md": 8, "dpo(regime=online)": 8, "self-play": 16, "nash-md": 16, "rl": 16, "egpo": 24}
"""Responses of one step over four prompts: two of the player, and two of the opponent (in egpo one) in each phase that
has one.
"""
CONTROLS = ("sft", "constant", "longest")
REFIT = 16  # four responses to each of four prompts


@pytest.mark.usefixtures("inline")
def test_every_trainer_that_can_trains_a_language_model_and_its_work_is_counted(
    workspace: Workspace, nashbench: Command
) -> None:
    more = ["{name: dpo, regime: online}", "{name: dpo, regime: offline}", "{name: ipo, log_prob: mean}"]
    listed = ", ".join([*TEXT, *more])
    settings = [f"matrix.trainer=[{listed}]", "sampling.k=4"]
    ended = nashbench(*workspace.arguments(workspace.config(), *(word for s in settings for word in ("--set", s))))
    assert ended.code == 0, ended.err
    results = pd.read_csv(workspace.out / "results.csv")
    final = results[(results.metric == "win_rate") & ~results.trainer.isin(CONTROLS)].set_index("trainer")
    assert set(final.index) == {*TEXT, "dpo(regime=online)", "dpo(regime=offline)", "ipo(log_prob=mean)"}
    assert final.value.between(0, 1).all()
    assert final.samples.to_dict() == {name: SAMPLES.get(name, REFIT) for name in final.index}
    assert final.steps.to_dict() == {name: 2 if name in ("onpo", "slic-hf") else 1 for name in final.index}
    assert (final.queries <= final.samples * 1.5).all()  # all six pairs of four, at the most; equal texts ask nothing


@pytest.mark.usefixtures("inline")
def test_a_trainer_of_games_is_refused_for_a_language_model(workspace: Workspace, nashbench: Command) -> None:
    ended = nashbench(*workspace.arguments(workspace.config(), "--set", "matrix.trainer=[omwu]"))
    assert ended.code == 2
    assert "omwu" in ended.err
    assert "exact game" in ended.err


@pytest.mark.usefixtures("inline")
def test_win_rate_losses_refuse_a_pairing_that_gives_no_win_rates(workspace: Workspace, nashbench: Command) -> None:
    settings = ("--set", "matrix.trainer=[sppo]", "--set", "pairs.protocol=iid")
    ended = nashbench(*workspace.arguments(workspace.config(), *settings))
    assert ended.code == 2
    assert "best-worst" in ended.err
