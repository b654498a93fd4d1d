"""Panels piece by piece: every feature recounted independently, transforms against an empirical distribution."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from judges import PanelJudge
from judges.judge import Question
from judges.kinds.panel import FUNCTION_WORDS, KINDS, TRANSFORMS, Text, _Reader, read_panel

quick = settings(max_examples=40, deadline=None)

READER = _Reader(Path("p.yaml"))
words = st.lists(st.sampled_from(["cat", "Owl", "the", "soft", "wise", "QUICK", "is", "x1"]), max_size=12)
levels = st.lists(st.integers(-20, 20).map(lambda n: n / 4), min_size=2, max_size=12).map(sorted)


def measure(kind: str, value: Any, response: str, prompt: str = "") -> float:
    return KINDS[kind](READER, value, kind)(Text.of(prompt), Text.of(response))


def transform(kind: str, value: Any, raw: Any) -> np.ndarray:
    return TRANSFORMS[kind](READER, value, kind)(np.asarray(raw, dtype=float))


def spec(**changes: Any) -> dict[str, Any]:
    annotators = [
        {"name": "terse", "weight": 0.25, "utility": {"words": -0.5}},
        {"name": "formal", "weight": 0.75, "utility": {"words": 0.125, "shout": -2}},
    ]
    features = {"words": {"length": True}, "shout": {"pattern": "!"}}
    return {"scale": 2, "features": features, "annotators": annotators} | changes


def write(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "panel.yaml"
    path.write_text(yaml.safe_dump(spec(**changes)), encoding="utf-8")
    return path


# Words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("...!?", ()),
        ("Don't", ("don't",)),
        ("don’t", ("don’t",)),
        ("'quoted'", ("quoted",)),
        ("snake_case", ("snake", "case")),
        ("well-known", ("well", "known")),
        ("R2D2 has 3.5", ("r2d2", "has", "3", "5")),
        ("Über élan", ("über", "élan")),
        ("one\ntwo\tthree", ("one", "two", "three")),
    ],
)
def test_words_are_runs_of_letters_and_digits_with_inner_apostrophes(text: str, expected: tuple[str, ...]):
    assert Text.of(text).words == expected
    assert Text.of(text).text == text


def test_function_words_are_lower_case_single_words():
    assert all(Text.of(word).words == (word,) for word in FUNCTION_WORDS)
    assert {"the", "is", "you"} <= FUNCTION_WORDS
    assert not {"cat", "run", "blue"} & FUNCTION_WORDS


# Features


@quick
@given(words)
def test_shares_of_words_equal_a_count_with_a_counter(drawn: list[str]):
    text = ", ".join(drawn)
    counts = Counter(word.lower() for word in drawn)
    total = max(len(drawn), 1)
    assert measure("length", True, text) == len(drawn)
    assert measure("lexicon", ["CAT", "wise"], text) == (counts["cat"] + counts["wise"]) / total
    assert measure("unique_words", True, text) == len(counts) / total


@quick
@given(words)
def test_distinct_word_pairs_equal_a_set_of_neighbours(drawn: list[str]):
    neighbours = [f"{a}|{b}".lower() for a, b in itertools.pairwise(drawn)]
    expected = len(set(neighbours)) / len(neighbours) if neighbours else 0.0
    assert measure("distinct_2", True, " ".join(drawn)) == expected


@quick
@given(words, words)
def test_overlap_is_the_share_of_content_words_found_and_forgets_order_and_repeats(prompt: list[str], said: list[str]):
    content = {word.lower() for word in prompt} - {"the", "is"}
    expected = sum(word in {each.lower() for each in said} for word in content) / max(len(content), 1)
    assert measure("overlap", "prompt", " ".join(said), " ".join(prompt)) == expected
    assert measure("overlap", "prompt", " ".join(said[::-1] * 2), " ".join(prompt[::-1] * 3)) == expected


def test_overlap_of_a_prompt_of_function_words_alone_is_zero():
    assert measure("overlap", "prompt", "what is it", "what is it") == 0.0


@quick
@given(words, words)
def test_facts_equal_true_claims_among_claims(prompt: list[str], said: list[str]):
    facts = {"cat": ["soft", "Quick"], "OWL": ["wise", "quick"]}
    named = {word.lower() for word in prompt}
    claims = {word.lower() for word in said} & {"soft", "quick", "wise"}
    true = [claim for claim in claims if (claim != "wise" and "cat" in named) or (claim != "soft" and "owl" in named)]
    expected = len(true) / len(claims) if claims else 0.0
    assert measure("facts", facts, " ".join(said), " ".join(prompt)) == expected


@pytest.mark.parametrize(
    ("pattern", "text", "matches", "count"),
    [
        (r"!", "no! no! no", 2, 3),
        (r"aa", "aaaa", 2, 1),  # matches do not overlap
        (r"^- ", "- one\n- two", 1, 2),
        (r"(?m)^- ", "- one\n- two", 2, 2),
        (r"Cat", "cat Cat", 1, 2),  # a pattern sees the text as written
        (r"(?i)cat", "cat Cat", 2, 2),
        (r"(a)|(b)", "a b c", 2, 3),
    ],
)
def test_a_pattern_counts_matches_in_the_text_as_written(pattern: str, text: str, matches: int, count: int):
    assert measure("pattern", pattern, text) == matches / count


def test_a_pattern_that_matches_a_text_without_words_is_zero():
    assert measure("pattern", "!", "!!!") == 0.0


@quick
@given(words)
def test_every_share_lies_between_nought_and_one(drawn: list[str]):
    text = " ".join(drawn)
    facts = {"cat": ["soft"], "owl": ["wise"]}
    values = {"lexicon": ["cat"], "unique_words": True, "distinct_2": True, "overlap": "prompt", "facts": facts}
    for kind, value in values.items():
        assert 0 <= measure(kind, value, text, "the cat and an owl") <= 1


# Transforms


@quick
@given(levels.filter(lambda points: len(set(points)) == len(points)), st.lists(st.floats(-9, 9), min_size=1))
def test_distinct_quantiles_are_numpys_interpolation_of_equal_steps(points: list[float], raw: list[float]):
    expected = np.interp(raw, points, np.arange(len(points)) / (len(points) - 1))
    np.testing.assert_allclose(transform("quantiles", points, raw), expected, atol=1e-12)


@quick
@given(levels.filter(lambda points: len(set(points)) > 1))
def test_at_a_repeated_quantile_the_rank_is_the_middle_of_its_places(points: list[float]):
    below = np.array([sum(each < point for each in points) for point in points])
    ties = np.array([points.count(point) for point in points])
    expected = (below + (ties - 1) / 2) / (len(points) - 1)
    np.testing.assert_allclose(transform("quantiles", points, points), expected, atol=1e-12)


@quick
@given(levels.filter(lambda points: len(set(points)) > 1), st.lists(st.floats(-9, 9), min_size=2))
def test_ranks_rise_with_the_value_stay_in_bounds_and_are_flat_outside(points: list[float], raw: list[float]):
    ranks = transform("quantiles", points, sorted(raw))
    assert (np.diff(ranks) >= -1e-12).all()
    assert ((ranks >= 0) & (ranks <= 1)).all()
    ends = transform("quantiles", points, [points[0] - 100, points[0], points[-1], points[-1] + 100])
    assert ends[0] == ends[1]
    assert ends[2] == ends[3]


@quick
@given(levels.filter(lambda points: len(set(points)) > 1), st.integers(1, 9), st.integers(-9, 9))
def test_ranks_do_not_depend_on_unit_or_origin(points: list[float], unit: int, origin: int):
    raw = np.linspace(-6, 6, 25)
    moved = [unit * point + origin for point in points]
    np.testing.assert_allclose(
        transform("quantiles", moved, unit * raw + origin), transform("quantiles", points, raw), atol=1e-9
    )


@quick
@given(st.lists(st.floats(-9, 9), min_size=1), st.floats(-5, 0), st.floats(0.5, 5))
def test_clip_is_the_median_of_the_value_and_the_bounds(raw: list[float], low: float, high: float):
    expected = [sorted([low, value, high])[1] for value in raw]
    np.testing.assert_array_equal(transform("clip", [low, high], raw), expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("clip", [0]),
        ("clip", [0, 1, 2]),
        ("clip", [1, 0]),
        ("clip", 3),
        ("clip", ["a", 1]),
        ("clip", [0, math.inf]),
        ("quantiles", []),
        ("quantiles", [1]),
        ("quantiles", [1, 1, 1]),
        ("quantiles", [0, 2, 1]),
        ("quantiles", [0, True]),
        ("quantiles", [0, math.nan]),
        ("quantiles", {"low": 0}),
    ],
)
def test_a_transform_that_cannot_be_is_refused_with_its_place(kind: str, value: Any):
    with pytest.raises(ValueError, match=rf"^p\.yaml: {kind}: expected "):
        transform(kind, value, [0.0])


# The judge


def test_columns_are_the_files_features_and_annotators_in_the_files_order(tmp_path: Path):
    judge = PanelJudge(write(tmp_path))
    assert set(judge.feature_names) == {"words", "shout"}
    assert judge.annotators == ("terse", "formal")
    columns = dict(zip(judge.feature_names, judge.features(["p"] * 2, ["a b!", "c"]).T, strict=True))
    np.testing.assert_array_equal(columns["words"], [2, 1])
    np.testing.assert_array_equal(columns["shout"], [0.5, 0])


def test_a_panel_holds_weights_scale_and_a_zero_where_a_coefficient_is_not_named(tmp_path: Path):
    panel = read_panel(write(tmp_path))
    assert panel.scale == 2.0
    np.testing.assert_allclose(panel.weights, [0.25, 0.75])
    terse, formal = (dict(zip(panel.features, row, strict=True)) for row in panel.utility)
    assert terse == {"words": -0.5, "shout": 0.0}
    assert formal == {"words": 0.125, "shout": -2.0}


@quick
@given(st.integers(0, 30), st.integers(0, 30))
def test_preference_is_the_mixture_of_logistic_curves(tmp_path_factory: pytest.TempPathFactory, a: int, b: int):
    judge = PanelJudge(write(tmp_path_factory.getbasetemp()))
    terse, formal = 2 * -0.5 * (a - b), 2 * 0.125 * (a - b)
    expected = 0.25 / (1 + math.exp(-terse)) + 0.75 / (1 + math.exp(-formal))
    (found,) = judge.compare(["p"], ["w " * a], ["w " * b])
    assert found == pytest.approx(expected, abs=1e-12)
    assert judge.compare(["p"], ["w " * b], ["w " * a])[0] == pytest.approx(1 - expected, abs=1e-12)


def test_the_order_of_questions_and_what_was_asked_before_change_nothing(tmp_path: Path):
    texts = ["one", "two words", "three words here!", "", "one"]
    fresh, used = PanelJudge(write(tmp_path)), PanelJudge(write(tmp_path))
    used.features(["p"] * 2, ["two words", "other"])
    backwards = used.features(["p"] * 5, texts[::-1])[::-1]
    np.testing.assert_array_equal(fresh.features(["p"] * 5, texts), backwards)


def test_a_text_is_kept_apart_by_its_prompt(tmp_path: Path):
    features = {"topic": {"overlap": "prompt"}}
    annotators = [{"name": "x", "weight": 1, "utility": {"topic": 1}}]
    judge = PanelJudge(write(tmp_path, features=features, annotators=annotators))
    np.testing.assert_array_equal(judge.features(["cats", "dogs", "cats dogs"], ["cats"] * 3)[:, 0], [1, 0, 0.5])


def test_no_responses_give_no_rows(tmp_path: Path):
    judge = PanelJudge(write(tmp_path))
    assert judge.features([], []).shape == (0, 2)
    assert judge.utilities([], []).shape == (0, 2)
    assert judge.compare([], [], []).shape == (0,)


def test_progress_advances_by_the_questions_answered(tmp_path: Path):
    heard: list[int] = []
    answers = PanelJudge(write(tmp_path)).answer([Question("p", "a", "a"), Question("p", "a b", "a b")], heard.append)
    assert sum(heard) == 2
    assert [each.preference for each in answers] == [0.5, 0.5]  # a text against itself


def test_simulated_votes_are_seeded_and_certain_where_utilities_are_far_apart(tmp_path: Path):
    judge = PanelJudge(write(tmp_path, annotators=[{"name": "x", "weight": 1, "utility": {"words": 50}}]))
    votes = judge.simulate_votes(["p"] * 2, ["a b c", "a"], ["a", "a b c"], votes=40, seed=3)
    assert votes.shape == (2, 40)
    assert votes[0].all()
    assert not votes[1].any()
    even = [judge.simulate_votes(["p"], ["a"], ["b"], votes=64, seed=seed) for seed in (1, 1, 2)]
    assert (even[0] == even[1]).all()
    assert (even[0] != even[2]).any()


@pytest.mark.parametrize("weights", [[1e-3, 0.999], [1 / 3, 2 / 3], [0.1, 0.9]])
def test_weights_within_rounding_of_one_are_scaled_to_one(tmp_path: Path, weights: list[float]):
    annotators = [{"name": str(i), "weight": w, "utility": {"words": 1}} for i, w in enumerate(weights)]
    np.testing.assert_allclose(read_panel(write(tmp_path, annotators=annotators)).weights, weights, rtol=1e-9)


# Files


@pytest.mark.parametrize("key", ["features", "annotators", "scale"])
def test_each_key_of_the_file_is_needed(tmp_path: Path, key: str):
    path = tmp_path / "panel.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in spec().items() if name != key}))
    with pytest.raises(ValueError, match=f"panel.yaml: the file: the key '{key}' is missing"):
        read_panel(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "4"}, "scale: expected a finite number above 0, got '4'"),
        ({"scale": math.inf}, "scale: expected a finite number above 0, got inf"),
        ({"scale": None}, "scale: expected a finite number above 0, got None"),
        ({"features": ["words"]}, r"features: expected a mapping that is not empty, got \['words'\]"),
        ({"features": {"words": "length"}}, "features.words: expected keys and values, got 'length'"),
        ({"features": {"words": {}}}, "features.words: expected one of .*; got nothing"),
        (
            {"features": {"words": {"length": True, "clip": [0, 1], "quantiles": [0, 1]}}},
            "features.words: expected one of .*at most one of quantiles, clip",
        ),
        ({"features": {"words": {"zzzz": 1}}}, "unknown key 'zzzz'; choose among lexicon, pattern, length"),
        ({"features": {"words": {"lexicon": []}}}, "features.words.lexicon: expected a list that is not empty"),
        ({"features": {"words": {"lexicon": "cat"}}}, "features.words.lexicon: expected a list"),
        ({"features": {"words": {"facts": ["cat"]}}}, "features.words.facts: expected a mapping"),
        ({"features": {"words": {"facts": {"cat": ["a b"]}}}}, "features.words.facts.cat: 'a b' is not a single word"),
        ({"features": {"words": {"facts": {"cat": []}}}}, "features.words.facts.cat: expected a list"),
        ({"features": {"words": {"distinct_2": "yes"}}}, "features.words.distinct_2: the only value is true"),
        ({"features": {"words": {"unique_words": 2}}}, "features.words.unique_words: the only value is true, got 2"),
        ({"annotators": {"name": "x"}}, "annotators: expected a list that is not empty"),
        ({"annotators": ["x"]}, r"annotators\[0\]: expected keys and values, got 'x'"),
        (
            {"annotators": [{"name": "x", "weight": 1, "utility": {}}]},
            r"annotators\[0\].utility: expected a mapping that is not empty",
        ),
        (
            {"annotators": [{"name": "x", "weight": "1", "utility": {"words": 1}}]},
            r"annotators\[0\].weight: expected a finite number above 0, got '1'",
        ),
        (
            {"annotators": [{"name": "x", "weight": 1, "utility": {"words": True}}]},
            r"annotators\[0\].utility.words: expected a finite number, got True",
        ),
        (
            {"annotators": [{"name": "x", "weight": 1, "utility": {"words": 1}, "wieght": 1}]},
            r"annotators\[0\]: unknown key 'wieght'; did you mean 'weight'\?",
        ),
    ],
)
def test_a_bad_value_is_named_with_its_place(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        read_panel(write(tmp_path, **changes))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path):
    path = tmp_path / "panel.yaml"
    path.write_bytes(b"\xff\xfe\x00scale")
    with pytest.raises(ValueError, match=r"panel\.yaml is not UTF-8 text"):
        read_panel(path)
    with pytest.raises(ValueError, match="panel file not found"):
        read_panel(tmp_path)  # a folder
