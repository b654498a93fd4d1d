"""Arena-Hard win rates equal the Bradley-Terry fit; both orders count, failures are counted, prompts are resampled."""

from __future__ import annotations

import json

import numpy as np
import pytest
from leaderboards_published import SHARED, game, games, needs_shared, write

from leaderboards.boards.arena_hard import rate_arena_hard, scores_of_games
from leaderboards.sources import read_records
from leaderboards.statistics.intervals import mean_estimate

LABELS = ("A>>B", "A>B", "A=B", "B>A", "B>>A")


def random_games(n, *, model="m", seed=0, labels=LABELS):
    generator = np.random.default_rng(seed)
    return [games(i, *(str(x) for x in generator.choice(labels, 2)), model=model) for i in range(n)]


@pytest.mark.parametrize(
    ("first", "second", "scores"),
    [
        ("B>A", "A>B", (1, 1)),  # the model wins in both places
        ("A>B", "B>A", (0, 0)),
        ("A>B", "A>B", (0, 1)),  # A wins both times: the place decided, the model gets half
        ("A=B", "B=A", (0.5, 0.5)),
        ("B>>A", "A=B", (1, 1, 1, 0.5)),  # decisive verdicts weigh three
        ("A<<B", "B<A", (1, 1, 1, 1)),  # labels written backwards
        ("A>>B", "B>>A", (0, 0, 0, 0, 0, 0)),
        (None, "A>B", ()),
        ("A>B", "C>D", ()),
    ],
)
def test_scores_of_two_games(first, second, scores):
    assert scores_of_games(first, second) == scores


def test_win_rate_by_hand(tmp_path):
    """Scores 1 1 1 0.5 and 0 1: 3.5 + 1 wins of 6."""
    rows = [games("p", "B>>A", "A=B"), games("q", "A>B", "A>B")]
    rated = rate_arena_hard(write(tmp_path / "j", rows, lines=True))["m"]
    assert rated["win_rate"] == pytest.approx(100 * 4.5 / 6)
    assert (rated["n"], rated["coverage"], rated["failed_games"], rated["baseline"]) == (2, 1.0, 0, None)
    assert rated["official"] is True


def test_exchanging_model_and_baseline_mirrors_the_win_rate(tmp_path):
    """Seen from the baseline its answer is A where the model's was: the two games change places."""
    rows = random_games(50)
    mirrored = [row | {"games": row["games"][::-1]} for row in rows]
    told, back = (rate_arena_hard(write(tmp_path / n, r))["m"]["win_rate"] for n, r in (("a", rows), ("b", mirrored)))
    assert told + back == pytest.approx(100)


@pytest.mark.parametrize("broken", ["lost", None, "", "A>C", ["A>B"]])
def test_a_prompt_with_a_failed_game_is_left_out_and_counted(tmp_path, broken):
    rows = [*random_games(9), games("broken", "B>>A", broken)]
    whole = rate_arena_hard(write(tmp_path / "a", rows[:9]))["m"]
    rated = rate_arena_hard(write(tmp_path / "b", rows))["m"]
    assert rated["win_rate"] == whole["win_rate"]
    assert (rated["n"], rated["coverage"], rated["failed_games"]) == (9, 0.9, 1)


def test_everything_failed_is_null(tmp_path):
    rated = rate_arena_hard(write(tmp_path / "j", [games("p", None, None)]))["m"]
    assert rated["win_rate"] is None
    assert (rated["n"], rated["coverage"], rated["failed_games"]) == (0, 0.0, 2)
    json.dumps(rated, allow_nan=False)


def test_the_newer_format_has_categories_each_with_its_baseline(tmp_path):
    def row(uid, category, baseline, labels):
        rated = {"uid": uid, "category": category, "baseline": baseline, "model": "m", "judge": "j"}
        return rated | {"games": [game(label) for label in labels]}

    rows = [
        row("u1", "hard_prompt", "o3-mini", ("B>A", "A>B")),
        row("u2", "hard_prompt", "o3-mini", ("A=B", "A=B")),
        row("u3", "creative_writing", "gemini", ("A>B", "B>A")),
    ]
    rated = rate_arena_hard(write(tmp_path / "j", rows))["m"]
    assert rated["categories"] == {"hard_prompt": 75.0, "creative_writing": 0.0}
    assert rated["win_rate"] == 50.0
    assert rated["baseline"] == ["gemini", "o3-mini"]
    assert rated["official"] is False  # a figure over two baselines is nobody's; those of the categories are


def test_a_folder_with_a_file_a_model_is_read_whole(tmp_path):
    write(tmp_path / "f" / "a.jsonl", random_games(20, model="a"), lines=True)
    write(tmp_path / "f" / "b.jsonl.gz", random_games(10, model="b", seed=1), lines=True, packed=True)
    (tmp_path / "f" / "notes.txt").write_text("not JSON")
    told = rate_arena_hard(tmp_path / "f")
    assert {model: (r["n"], r["coverage"]) for model, r in told.items()} == {"a": (20, 1.0), "b": (10, 0.5)}


def bradley_terry(records):
    """Win rates by fitting the logistic regression of all battles at once with Newton's method, baseline at 0."""
    baseline = records[0]["model_a"]
    models = sorted({r["model_b"] for r in records})
    x = np.array([[float(m == r["model_b"]) for m in models] for r in records])
    y = np.array([{"model_a": 0.0, "model_b": 1.0}.get(r["winner"], 0.5) for r in records])
    assert all(r["model_a"] == baseline for r in records)
    strength = np.zeros(len(models))
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ strength))
        strength += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, x.T @ (y - p))
    return dict(zip(models, 1 / (1 + np.exp(-strength)), strict=True))


@needs_shared
def test_real_battles_give_the_bradley_terry_win_rates():
    path = SHARED / "arena_hard" / "battles" / "arena_hard_battles.jsonl.gz"
    told = rate_arena_hard(path)
    reference = json.loads((SHARED / "arena_hard" / "battles" / "reference_bt.json").read_text())
    fitted = bradley_terry(read_records(path))
    assert told.keys() == fitted.keys() == reference["bt_winrate"].keys()
    for model, rated in told.items():
        assert rated["win_rate"] == pytest.approx(100 * fitted[model], abs=1e-9)
        assert rated["win_rate"] == pytest.approx(100 * reference["bt_winrate"][model], abs=1e-5)
        assert rated["baseline"] == "claude-3-haiku-20240307"


def test_battles_in_either_place_and_ties_of_both_kinds(tmp_path):
    def battle(q, a, b, winner):
        return {"question_id": q, "model_a": a, "model_b": b, "winner": winner}

    rows = [
        battle(1, "base", "m", "model_b"),
        battle(2, "m", "base", "model_a"),
        battle(3, "base", "m", "tie"),
        battle(4, "base", "m", "tie (bothbad)"),
        battle(5, "base", "x", "model_a"),
        battle(6, "base", "m", None),
    ]
    told = rate_arena_hard(write(tmp_path / "j", rows))
    assert (told["m"]["win_rate"], told["m"]["n"], told["m"]["failed_games"]) == (75.0, 4, 1)
    assert told["x"]["win_rate"] == 0.0


def test_resampling_rows_would_be_far_too_sure(tmp_path):
    """All games of a prompt say the same, three times over: the honest interval is that of the prompts."""
    generator = np.random.default_rng(5)
    wins = generator.random(200) < 0.4
    rows = [games(i, *(("B>>A", "A>>B") if won else ("A>>B", "B>>A"))) for i, won in enumerate(wins)]
    rated = rate_arena_hard(write(tmp_path / "j", rows))["m"]
    by_prompt, by_row = (mean_estimate(100.0 * w, bounds=(0, 100)) for w in (wins, np.repeat(wins, 6)))
    assert rated["ci"] == pytest.approx([by_prompt.ci_low, by_prompt.ci_high])
    assert rated["ci"][1] - rated["ci"][0] > 2 * (by_row.ci_high - by_row.ci_low)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"question_id": 1, "model": "m", "games": [game("A>B")]}], "record 0 does not hold two games"),
        ([{"question_id": 1, "model": "m", "score": 4}], "no 'games'"),
        ([{"question_id": {"a": 1}, "model": "m", "games": []}], "must be a text or an integer"),
        (
            [{"question_id": 1, "model_a": a, "model_b": b, "winner": "tie"} for a, b in ("xy", "yz", "zx")],
            "one baseline only",
        ),
    ],
)
def test_files_of_another_kind_get_one_clear_message(tmp_path, rows, told):
    with pytest.raises(ValueError, match=told):
        rate_arena_hard(write(tmp_path / "j", rows))
