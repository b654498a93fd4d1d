"""Panels: features by hand, exact preference against counted votes, cycles, and what a wrong file says."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from judges import PanelJudge
from judges.tournament import cycle_rate

FEATURES = {
    "rich": {"lexicon": ["silver", "golden"]},
    "shout": {"pattern": "!+"},
    "words": {"length": True},
    "variety": {"unique_words": True},
    "flow": {"distinct_2": True},
    "topic": {"overlap": "prompt"},
    "truth": {"facts": {"cat": ["soft", "quick"], "owl": ["wise", "quick"]}},
}
CYCLE = [[1, 0.3, -0.9], [-0.9, 1, 0.3], [0.3, -0.9, 1]]


def write(path: Path, **changes: object) -> Path:
    spec = {
        "scale": 2.0,
        "features": FEATURES,
        "annotators": [
            {"name": "one", "weight": 0.7, "utility": {"rich": 3.0, "shout": -1.0}},
            {"name": "two", "weight": 0.3, "utility": {"words": 0.2, "truth": 1.0}},
        ],
    }
    path.write_text(yaml.safe_dump(spec | changes))
    return path


def cyclic(path: Path) -> PanelJudge:
    """Three annotators, each with a row of a cyclic matrix over the shares of three letters."""
    names = ["a", "b", "c"]
    annotators = [
        {"name": name, "weight": 1 / 3, "utility": dict(zip(names, row, strict=True))}
        for name, row in zip(names, CYCLE, strict=True)
    ]
    return PanelJudge(write(path, scale=4, features={n: {"lexicon": [n]} for n in names}, annotators=annotators))


def feature(tmp_path: Path, spec: dict, prompt: str, response: str) -> float:
    annotators = [{"name": "x", "weight": 1, "utility": {"f": 1}}]
    judge = PanelJudge(write(tmp_path / "panel.yaml", features={"f": spec}, annotators=annotators))
    return judge.features([prompt], [response])[0, 0]


@pytest.mark.parametrize(
    ("name", "response", "value"),
    [
        ("rich", "Silver and GOLDEN, silver!", 3 / 4),
        ("shout", "oh! my!! cat", 2 / 3),
        ("words", "don't stop: 3 cats", 4),
        ("variety", "the cat the cat", 2 / 4),
        ("flow", "the cat the cat", 2 / 3),
        ("topic", "a Cat sleeps", 1 / 2),
        ("truth", "soft soft wise", 1 / 2),
        ("truth", "nothing to claim", 0),
        *[(name, "", 0) for name in FEATURES],
        *[(name, "?!", 0) for name in FEATURES],
    ],
)
def test_features_equal_counts_by_hand(tmp_path: Path, name: str, response: str, value: float):
    assert feature(tmp_path, FEATURES[name], "describe the cat", response) == pytest.approx(value, abs=1e-15)


def test_a_conversations_prompt_is_its_last_users_turn(tmp_path: Path):
    judge = PanelJudge(write(tmp_path / "panel.yaml"))
    chat = [
        {"role": "user", "content": "the owl"},
        {"role": "assistant", "content": "wise"},
        {"role": "user", "content": "now the cat"},
    ]
    truth = judge.feature_names.index("truth")
    np.testing.assert_array_equal(judge.features([chat, chat], ["wise", "soft"])[:, truth], [0, 1])


@pytest.mark.parametrize(
    ("transform", "values"),
    [
        ({"quantiles": [0, 2, 4]}, {0: 0, 1: 0.25, 2: 0.5, 3: 0.75, 4: 1, 9: 1}),
        ({"quantiles": [0, 0, 0, 3]}, {0: 1 / 3, 3: 1, 1: 1 / 3 + 2 / 9}),
        ({"clip": [1, 3]}, {0: 1, 2: 2, 9: 3}),
    ],
)
def test_transforms_are_ranks_between_quantiles_and_bounds(tmp_path: Path, transform: dict, values: dict):
    for count, expected in values.items():
        assert feature(tmp_path, {"length": True} | transform, "", "w " * count) == pytest.approx(expected, abs=1e-15)


def test_preference_equals_the_formula_by_hand(tmp_path: Path):
    judge = PanelJudge(write(tmp_path / "panel.yaml"))
    one = 2 * (3 * 0.5 - 0)  # "silver mist" has half rich words, "soft cat" has none
    two = 2 * (0.2 * 2 - (0.2 * 2 + 1))
    expected = 0.7 / (1 + np.exp(-one)) + 0.3 / (1 + np.exp(-two))
    np.testing.assert_allclose(judge.compare(["the cat"], ["silver mist"], ["soft cat"]), [expected], atol=1e-14)
    np.testing.assert_allclose(judge.utilities(["the cat"], ["soft cat"]), [[0, 1.4]], atol=1e-14)


def test_exact_preference_is_the_share_of_simulated_votes(tmp_path: Path):
    judge = PanelJudge(write(tmp_path / "panel.yaml"))
    texts = ["silver cat", "the soft cat!", "a wise and quick cat", "golden golden !!"]
    first, second = zip(*[(a, b) for a in texts for b in texts if a != b], strict=True)
    prompts = ["the cat"] * len(first)
    exact = judge.compare(prompts, first, second)
    votes = judge.simulate_votes(prompts, first, second, votes=40_000, seed=1)
    assert votes.shape == (12, 40_000)
    # Four standard errors of the share of 40,000 votes, for each of the 12 pairs.
    np.testing.assert_array_less(abs(votes.mean(axis=1) - exact), 4 * np.sqrt(exact * (1 - exact) / 40_000))
    np.testing.assert_array_equal(votes, judge.simulate_votes(prompts, first, second, votes=40_000, seed=1))


def test_both_orders_of_a_pair_sum_to_one_and_huge_utilities_stay_probabilities(tmp_path: Path):
    judge = PanelJudge(write(tmp_path / "panel.yaml", scale=1e6))
    forth = judge.compare(["cat"] * 2, ["silver", "a b c"], ["soft", "d"])
    back = judge.compare(["cat"] * 2, ["soft", "d"], ["silver", "a b c"])
    np.testing.assert_allclose(forth + back, 1, atol=1e-15)
    assert ((forth >= 0) & (forth <= 1)).all()


def test_annotators_with_rows_of_a_cyclic_matrix_have_a_cyclic_majority(tmp_path: Path):
    judge = cyclic(tmp_path / "panel.yaml")
    forward = judge.compare(["p"] * 3, ["a", "b", "c"], ["b", "c", "a"])
    assert (forward > 0.5).all() or (forward < 0.5).all()
    rate = cycle_rate(
        lambda _, a, b: judge.compare(["p"] * len(a), a, b), [["a", "b", "c"]], np.random.default_rng(0), triples=10
    )
    assert rate == 1.0


def test_a_single_annotator_has_no_cycles(tmp_path: Path):
    annotators = [{"name": "x", "weight": 1, "utility": {"words": 1.0, "rich": 2.0}}]
    judge = PanelJudge(write(tmp_path / "panel.yaml", annotators=annotators))
    texts = ["silver", "a silver b", "c d e f", "golden golden", "g"]
    rate = cycle_rate(
        lambda _, a, b: judge.compare(["p"] * len(a), a, b), [texts], np.random.default_rng(0), triples=200
    )
    assert rate == 0.0


ONE = {"name": "one", "weight": 1.0, "utility": {"rich": 1.0}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sclae": 1}, r"the file: unknown key 'sclae'; did you mean 'scale'\?"),
        ({"scale": 0}, "scale: expected a finite number above 0, got 0"),
        ({"scale": True}, "scale: expected a finite number above 0, got True"),
        ({"features": {}}, "features: expected a mapping that is not empty"),
        ({"annotators": []}, "annotators: expected a list that is not empty"),
        ({"features": {"rich": {"lexicn": ["a"]}}}, r"features.rich: unknown key 'lexicn'; did you mean 'lexicon'\?"),
        ({"features": {"rich": {"lexicon": ["two words"]}}}, "features.rich.lexicon: 'two words' is not a single word"),
        ({"features": {"rich": {"lexicon": [True]}}}, "features.rich.lexicon: True is not a single word"),
        ({"features": {"rich": {"pattern": "(["}}}, r"features.rich.pattern: '\(\[' is not a regular expression"),
        ({"features": {"rich": {"pattern": 3}}}, "features.rich.pattern: 3 is not a regular expression"),
        ({"features": {"rich": {"length": False}}}, "features.rich.length: the only value is true, got False"),
        ({"features": {"rich": {"overlap": "answer"}}}, "features.rich.overlap: the only value is prompt"),
        ({"features": {"rich": {"clip": [0, 1]}}}, "features.rich: expected one of lexicon, .*; got clip"),
        ({"features": {"rich": {"length": True, "clip": [1, 1]}}}, r"features.rich.clip: expected \[low, high\]"),
        ({"features": {"rich": {"length": True, "quantiles": [2, 1]}}}, "features.rich.quantiles: .*do not fall"),
        ({"features": {"rich": {"length": True, "unique_words": True}}}, "features.rich: expected one of"),
        ({"annotators": [ONE, {**ONE, "weight": 0.5}]}, "the weights sum to 1.5, they must sum to 1"),
        ({"annotators": [{**ONE, "weight": 0.5}] * 2}, "two annotators have one name"),
        ({"annotators": [{**ONE, "weight": -1}]}, r"annotators\[0\].weight: expected a finite number above 0, got -1"),
        ({"annotators": [{"name": "one", "weight": 1}]}, r"annotators\[0\]: the key 'utility' is missing"),
        (
            {"annotators": [{**ONE, "utility": {"rihc": 1}}]},
            r"annotators\[0\].utility: unknown feature 'rihc'; did you mean 'rich'\?",
        ),
        (
            {"annotators": [{**ONE, "utility": {"rich": float("nan")}}]},
            r"annotators\[0\].utility.rich: expected a finite number, got nan",
        ),
    ],
)
def test_a_wrong_panel_file_is_refused_with_the_place_and_the_fix(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        PanelJudge(write(tmp_path / "panel.yaml", **changes))
    assert str(caught.value).startswith(str(tmp_path / "panel.yaml"))
    assert "\n" not in str(caught.value)


def test_a_missing_or_unreadable_file_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="panel file not found"):
        PanelJudge(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(ValueError, match=r"broken\.yaml is not YAML"):
        PanelJudge(broken)
    broken.write_text("just text")
    with pytest.raises(ValueError, match="expected keys and values, got 'just text'"):
        PanelJudge(broken)


@pytest.mark.parametrize("name", ["yes", "off", "null"])
@pytest.mark.parametrize(
    "text",
    [
        "features: {NAME: {length: true}}\nannotators: [{name: x, weight: 1, utility: {NAME: 1}}]",
        "features: {n: {length: true}}\nannotators: [{name: x, weight: 1, utility: {NAME: 1}}]",
        "features: {n: {length: true}}\nannotators: [{name: NAME, weight: 1, utility: {n: 1}}]",
        "features: {n: {facts: {NAME: [a]}}}\nannotators: [{name: x, weight: 1, utility: {n: 1}}]",
    ],
)
def test_a_name_that_yaml_reads_as_something_else_is_to_be_quoted(tmp_path: Path, text: str, name: str):
    file = tmp_path / "panel.yaml"
    file.write_text(f"scale: 1\n{text}".replace("NAME", name))
    with pytest.raises(
        ValueError, match=r"panel.yaml: (features|annotators).*(True|False|None) is no name; YAML reads"
    ):
        PanelJudge(file)


def test_numbers_and_quoted_words_are_names(tmp_path: Path):
    file = tmp_path / "panel.yaml"
    features, utility = '{1: {length: true}, "yes": {unique_words: true}}', '{1: 2.0, "yes": 1.0}'
    file.write_text(f"scale: 1\nfeatures: {features}\nannotators: [{{name: 7, weight: 1, utility: {utility}}}]")
    judge = PanelJudge(file)
    assert (judge.feature_names, judge.annotators) == (("1", "yes"), ("7",))
    np.testing.assert_allclose(judge.utilities(["p"], ["a a b c"]), [[2 * 4 + 0.75]])
