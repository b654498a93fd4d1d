"""AlpacaEval figures equal the published table and upstream's own code, also on rows that failed."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from leaderboards_published import SHARED, annotations, length_files, needs_shared, write

from leaderboards.boards.alpaca_eval import rate_alpaca_eval, standard_error, win_probabilities, win_rates
from leaderboards.statistics.length_control import (
    LengthControl,
    _fit,
    _influence,
    _training_rows,
    length_controlled_winrate,
    read_length_control,
)
from leaderboards.statistics.paired import compare_checkpoints

MODELS = ("FuseChat-Llama-3.1-8B-Instruct", "claude-2.1", "gemma-7b-it", "alpaca-farm-ppo-human")
COUNTS = ("n_wins", "n_wins_base", "n_draws", "n_total")
KEYS = ("win_rate", "standard_error", "discrete_win_rate", "avg_length", *COUNTS)
MESSY = [1.0, 2.0, 1.5, 0, None, 1.2, 1.9999, -1, 3.0, 1.50001, 1, float("nan"), 1.03, 1.4, 1.7]


@pytest.fixture
def upstream():
    """alpaca-eval itself."""
    from alpaca_eval import metrics

    return metrics


@needs_shared
@pytest.mark.parametrize("model", MODELS)
def test_published_rows_come_out_of_the_published_annotations(model):
    with open(SHARED / "alpacaeval" / "leaderboard.csv") as file:
        published = next(row for row in csv.DictReader(file) if row[""] == model)
    found = next((SHARED / "alpacaeval" / "results" / model).rglob("annotations.json.gz"))
    rated = rate_alpaca_eval(found, SHARED)
    for key in KEYS:
        assert rated[key] == pytest.approx(float(published[key]), abs=1e-9)
    assert rated["length_controlled_winrate"] == pytest.approx(float(published["length_controlled_winrate"]), abs=1e-5)
    if published["lc_standard_error"]:  # the table has it for some models only
        assert rated["lc_standard_error"] == pytest.approx(float(published["lc_standard_error"]), abs=1e-5)
    assert rated["coverage"] == 1.0
    assert rated["ci"][0] < rated["win_rate"] < rated["ci"][1]
    low, high = rated["intervals"]["length_controlled_winrate"]
    assert low < rated["length_controlled_winrate"] < high


@needs_shared
def test_the_interval_is_two_published_standard_errors_to_each_side():
    found = next((SHARED / "alpacaeval" / "results" / MODELS[0]).rglob("annotations.json.gz"))
    rated = rate_alpaca_eval(found)
    assert rated["ci"][1] - rated["ci"][0] == pytest.approx(2 * 1.96 * rated["standard_error"], rel=0.06)


def test_win_rates_by_hand():
    """Wins 1, .75; a tie; a loss .25; one failed: graded (1 + .75 + .5 + .25) / 4, discrete (1 + 1 + .5 + 0) / 4."""
    preferences = win_probabilities([2, 1.75, 0, 1.25, 7])
    rates = win_rates(preferences)
    assert rates["win_rate"].value == 62.5
    assert rates["discrete_win_rate"].value == 62.5
    assert (rates["win_rate"].n, rates["win_rate"].coverage) == (4, 0.8)
    assert standard_error(preferences) == pytest.approx(np.std([1, 0.75, 0.5, 0.25], ddof=1) / 2)


def test_failed_rows_are_left_out_as_upstream_leaves_them_out(tmp_path, upstream):
    rows = annotations(MESSY)
    expected = upstream.get_winrate(rows)
    rated = rate_alpaca_eval(write(tmp_path / "a.json", rows))
    for key in ("win_rate", "standard_error", "discrete_win_rate", *COUNTS):
        assert rated[key] == pytest.approx(float(expected[key]), abs=1e-12)
    assert (rated["n_total"], rated["coverage"]) == (11, 11 / 15)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("failed", [0, 7])
def test_length_control_equals_upstream_to_the_digit(tmp_path, upstream, monkeypatch, failed):
    import sklearn
    from alpaca_eval.metrics import glm_winrate

    generator = np.random.default_rng(failed)
    preferences = [float(p) for p in 1 + generator.beta(0.6, 0.9, 120)]
    preferences[10 : 10 + failed] = [None] * failed
    rows = annotations(preferences)
    files = length_files(tmp_path / "files", 120)
    monkeypatch.setattr(glm_winrate, "hf_hub_download", lambda **_: str(next(files.rglob("df_gamed.csv"))))
    with sklearn.config_context():  # upstream changes scikit-learn's settings for good
        expected = glm_winrate.get_length_controlled_winrate(rows, save_weights_dir=None)
    rated = rate_alpaca_eval(write(tmp_path / "a.json", rows), files)
    assert rated["length_controlled_winrate"] == pytest.approx(expected["length_controlled_winrate"], abs=1e-9)
    assert rated["lc_standard_error"] == pytest.approx(expected["lc_standard_error"], abs=1e-9)
    assert rated["length_controlled_note"] == ""


def test_length_control_undoes_a_preference_that_is_for_length_alone(tmp_path):
    """Longer wins, whoever wrote it, and the model writes more: raw far above 50, controlled near 50."""
    generator = np.random.default_rng(1)
    control = read_length_control(length_files(tmp_path / "files", 300))
    delta = generator.normal(-400, 400, 300)
    liked = 1 / (1 + np.exp(1.5 * np.tanh(delta / delta.std(ddof=1))))
    rate = length_controlled_winrate(liked, delta, range(300), control).estimate
    assert 100 * liked.mean() > 65
    assert rate.value == pytest.approx(50, abs=2)


def test_length_controlled_interval_is_as_wide_as_refitting_on_resampled_prompts(tmp_path):
    """The one-step influences against 250 honest refits at the same penalty; the published error is too small."""
    generator = np.random.default_rng(2)
    n = 200
    control = read_length_control(length_files(tmp_path / "files", n))
    difficulty = np.array([control.difficulty[i] for i in range(n)])
    features = np.column_stack([np.tanh(generator.normal(-0.3, 1, n)), difficulty, np.ones(n)])
    y = generator.beta(0.5, 0.8, n)

    def rate(rows):
        coefficients = _fit(*_training_rows(features[rows], y[rows], control), penalty=20.0)
        return 100 / (1 + np.exp(-(features[rows] * [0, 1, 1]) @ coefficients)), coefficients

    predicted, coefficients = rate(np.arange(n))
    refitted = np.std([rate(generator.integers(n, size=n))[0].mean() for _ in range(250)])
    one_step = 100 * _influence(features, y, control, coefficients).std() / np.sqrt(n)
    assert one_step == pytest.approx(refitted, rel=0.15)
    assert predicted.std() / np.sqrt(n) < 0.6 * refitted


def test_two_models_length_controlled_rates_are_compared_prompt_by_prompt(tmp_path):
    """Same prompts, correlated verdicts: the paired interval is that of refitting both on resampled prompts."""
    generator = np.random.default_rng(5)
    n = 200
    control = read_length_control(length_files(tmp_path / "files", n))
    difficulty = np.array([control.difficulty[i] for i in range(n)])
    deltas = generator.normal(-0.3, 1, (2, n))
    one = generator.beta(0.5, 0.8, n)
    other = np.clip(one - 0.08 + 0.1 * generator.normal(size=n), 0, 1)
    rates = [length_controlled_winrate(y, d, range(n), control) for y, d in zip((one, other), deltas, strict=True)]
    for rate in rates:
        assert rate.prompt_values.mean() == pytest.approx(rate.estimate.value)
    paired = compare_checkpoints(rates[0].prompt_values, rates[1].prompt_values)

    def refitted(rows):
        values = []
        for y, delta in zip((one, other), deltas, strict=True):
            features = np.column_stack([np.tanh(delta / delta.std(ddof=1)), difficulty, np.ones(n)])[rows]
            coefficients = _fit(*_training_rows(features, y[rows], control), penalty=20.0)
            values.append(100 * np.mean(1 / (1 + np.exp(-(features * [0, 1, 1]) @ coefficients))))
        return values[0] - values[1]

    spread = np.std([refitted(generator.integers(n, size=n)) for _ in range(150)])
    assert paired.difference.value == pytest.approx(rates[0].estimate.value - rates[1].estimate.value)
    half = (paired.difference.ci_high - paired.difference.ci_low) / 2
    assert half == pytest.approx(1.97 * spread, rel=0.2)
    widths = [rate.estimate.ci_high - rate.estimate.ci_low for rate in rates]
    assert 2 * half < min(widths)  # overlapping intervals would miss what the pairs tell


def test_without_its_files_the_length_controlled_rate_is_null_with_a_reason(tmp_path):
    path = write(tmp_path / "a.json", annotations(MESSY))
    (tmp_path / "empty").mkdir()
    for rated in (rate_alpaca_eval(path), rate_alpaca_eval(path, tmp_path / "empty")):
        assert rated["length_controlled_winrate"] is None
        assert "df_gamed" in rated["length_controlled_note"]
        assert "length_controlled_winrate" not in rated["intervals"]


@pytest.mark.parametrize(("n", "note"), [(31, "have no difficulty, such as number 30"), (29, "29 rows for 30")])
def test_rows_that_do_not_match_the_difficulties_are_told(tmp_path, n, note):
    generator = np.random.default_rng(3)
    path = write(tmp_path / "a.json", annotations([float(p) for p in 1 + generator.random(n)]))
    rated = rate_alpaca_eval(path, length_files(tmp_path / "files", 30))
    assert note in rated["length_controlled_note"]
    assert (rated["length_controlled_winrate"] is None) == (n > 30)


def test_an_index_in_the_file_goes_before_the_row_number(tmp_path):
    """Fifty rows and thirty difficulties: row numbers run out of them, the file's own numbers do not."""
    files = length_files(tmp_path / "files", 30)
    rows = annotations([float(p) for p in 1 + np.random.default_rng(4).beta(3, 1, 50)])
    by_row = rate_alpaca_eval(write(tmp_path / "a.json", rows), files)
    numbered = [row | {"index": i % 30} for i, row in enumerate(rows)]
    by_index = rate_alpaca_eval(write(tmp_path / "b.json", numbered), files)
    assert by_row["length_controlled_winrate"] is None
    assert 50 < by_index["length_controlled_winrate"] < 100


def test_the_baseline_against_itself_is_at_fifty(tmp_path):
    rows = annotations([1.5] * 6, model="base")
    rated = rate_alpaca_eval(write(tmp_path / "a.json", rows), tmp_path)
    assert (rated["win_rate"], rated["length_controlled_winrate"]) == (50.0, 50.0)


def test_all_failed_is_null_and_never_a_number(tmp_path):
    rated = rate_alpaca_eval(write(tmp_path / "a.json", annotations([None, -1])))
    assert rated["win_rate"] is rated["standard_error"] is rated["discrete_win_rate"] is None
    assert (rated["n_total"], rated["coverage"], rated["ci"]) == (0, 0.0, [None, None])
    json.dumps(rated, allow_nan=False)


def test_lines_and_gzip_say_the_same_as_an_array(tmp_path):
    rows = annotations(MESSY)
    told = [
        rate_alpaca_eval(write(tmp_path / f"{lines}{packed}", rows, lines=lines, packed=packed))
        for lines in (False, True)
        for packed in (False, True)
    ]
    assert all(t == told[0] for t in told)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (annotations([1.0]) + annotations([2.0], model="other"), "2 generator_2s: new, other"),
        ([{"model": "x", "score": 3}], "no 'generator_1'"),
        ([annotations([1.0])[0] | {"preference": "good"}], "preference 'good'; it must be a number"),
        ([annotations([1.0])[0] | {"preference": True}], "preference True"),
        ([annotations([1.0])[0] | {"output_2": None}], "output_2 None; it must be a text"),
    ],
)
def test_files_of_another_kind_get_one_clear_message(tmp_path, rows, told):
    with pytest.raises(ValueError, match=told):
        rate_alpaca_eval(write(tmp_path / "a.json", rows))


def test_length_files_must_be_in_a_folder_and_be_unambiguous(tmp_path):
    path = write(tmp_path / "a.json", annotations(MESSY))
    with pytest.raises(ValueError, match="is not a folder"):
        rate_alpaca_eval(path, tmp_path / "nowhere")
    files = length_files(tmp_path / "files", 15)
    (files / "deep" / "df_gamed.csv").rename(files / "df_gamed_1.csv")
    (files / "df_gamed_2.csv").write_text("x\n")
    assert "2 files for df_gamed.csv" in rate_alpaca_eval(path, files)["length_controlled_note"]
    (files / "df_gamed_1.csv").unlink()
    (files / "df_gamed_2.csv").write_text("x\n1\n")
    assert "lacks a column" in rate_alpaca_eval(path, files)["length_controlled_note"]


def test_a_policy_whose_own_term_is_fitted_to_zero_keeps_its_uncertainty():
    """400 coin flips: the L1 fit may call the policy equal to the baseline, but the interval is the coin's."""
    generator = np.random.default_rng(0)
    n = 400
    control = LengthControl(
        difficulty=dict(enumerate(generator.normal(size=n))),
        gamed_features=np.column_stack([generator.normal(size=(n, 2)), np.zeros(n)]),
        gamed_preferences=np.full(n, 0.5),
    )
    flips = np.repeat([0.0, 1.0], n // 2)
    generator.shuffle(flips)
    rate = length_controlled_winrate(flips, generator.normal(size=n), range(n), control).estimate
    assert rate.value == pytest.approx(50, abs=0.01)
    assert rate.ci_high - rate.ci_low == pytest.approx(2 * 1.96 * 50 / np.sqrt(n), rel=0.15)
