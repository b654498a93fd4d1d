"""Stages of exact games: play, and the duality gap of every policy."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np

from harness.stages.context import Context, Facts


def play(context: Context) -> Facts:
    """An algorithm on an exact game."""
    from trainers.policies.tabular import play as play_game

    options = context.options
    matrix = np.array(options["preference"], dtype=np.float64)
    run = play_game(context.algorithm(), matrix, options["iterations"], step_size=options["lr"])
    np.save(context.out / "policies.npy", run.policies)
    return {"work": {"steps": options["iterations"]}}


def gap(context: Context) -> Facts:
    """The duality gap of every policy of a game; the untrained policy is uniform."""
    matrix = np.array(context.options["preference"], dtype=np.float64)
    board = context.board()
    policies = np.full((1, len(matrix)), 1 / len(matrix))
    if "run" in context.stage.inputs:
        policies = np.load(context.input("run") / "policies.npy")
    rows = [{"iteration": t} | asdict(s) for t, s in board.rate(matrix, policies, context.options["tau"])]
    (context.out / "scores.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return {}
