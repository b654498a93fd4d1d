"""Files that go in and come out, the judges that answer from them, ensembles, and judges with a memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.pocket.judges import OPTIONS, PANEL, TEMPLATE
from harness.store.cached_judge import CachedJudge, compare_with
from harness.store.verdicts import VerdictStore, verdict_key
from judges import EnsembleJudge, HumanJudge, PanelJudge, RecordedJudge
from judges.files import LabelledPair, Verdict, read_labels, read_pairs, read_verdicts, write_verdicts
from judges.judge import Judge, Question
from judges.verdicts import Answer

quick = settings(max_examples=40, deadline=None)

PAIR = {"id": "1", "prompt": "p", "first": "a", "second": "b"}
VERDICT = {"id": "1", "order": "original", "preference": 0.5, "status": "ok"}
preferences = st.one_of(st.floats(0, 1), st.just(math.nan))


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


@dataclass(eq=False)
class Table(Judge):
    """Looks preferences up by the texts as placed; fails as "unknown" elsewhere. Counts what it is asked."""

    book: dict[str, float]
    tokens: int = 0
    cost: float = 0.0
    cut: bool = False

    def __post_init__(self) -> None:
        self.asked: list[str] = []

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        keys = [f"{each.first} {each.second}" for each in questions]
        self.asked += keys
        for _ in keys:
            advance(1)
        return [
            Answer(self.book[key], "ok", self.tokens, 1, 0.5, self.cost, key, self.cut)
            if key in self.book
            else Answer.failure("unknown")
            for key in keys
        ]


# Files


@quick
@given(st.lists(st.tuples(st.text(max_size=4), st.sampled_from(["original", "swapped"]), preferences)))
def test_verdicts_read_back_as_written(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, float]]):
    unique = {(name, order): p for name, order, p in rows}
    path = tmp_path_factory.getbasetemp() / "verdicts.jsonl"
    written = [Verdict(*key, p, "timeout" if math.isnan(p) else "ok") for key, p in unique.items()]
    write_verdicts(path, written)
    if not written:
        assert path.read_text() == ""
        return
    read = read_verdicts(path)
    assert [(v.id, v.order, v.status) for v in read] == [(v.id, v.order, v.status) for v in written]
    np.testing.assert_array_equal([v.preference for v in read], [v.preference for v in written])


@quick
@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_texts_of_a_pair_are_read_exactly(tmp_path_factory: pytest.TempPathFactory, prompt: str, a: str, b: str):
    path = lines(tmp_path_factory.getbasetemp() / "pairs.jsonl", {"id": 7, "prompt": prompt, "first": a, "second": b})
    (pair,) = read_pairs(path)
    assert (pair.id, pair.prompt, pair.first, pair.second) == ("7", prompt, a, b)


@quick
@given(st.lists(st.sampled_from(["first", "second", "tie"]), min_size=1, max_size=9))
def test_share_and_label_of_votes_by_counting(votes: list[str]):
    pair = LabelledPair("1", "p", "a", "b", tuple(votes))
    assert pair.share == pytest.approx((votes.count("first") + votes.count("tie") / 2) / len(votes))
    most = max(votes.count(vote) for vote in votes)
    leaders = {vote for vote in votes if votes.count(vote) == most}
    assert pair.label == (leaders.pop() if len(leaders) == 1 else "tie")
    turned = {"first": "second", "second": "first", "tie": "tie"}
    mirrored = LabelledPair("1", "p", "b", "a", tuple(turned[vote] for vote in votes))
    assert mirrored.share == pytest.approx(1 - pair.share)
    assert mirrored.label == turned[pair.label]


@pytest.mark.parametrize("key", ["id", "prompt", "first", "second"])
def test_each_key_of_a_pair_is_needed_and_named_with_its_line(tmp_path: Path, key: str):
    broken = {name: value for name, value in PAIR.items() if name != key}
    path = lines(tmp_path / "f", PAIR | {"id": "0"}, "", broken)
    with pytest.raises(ValueError, match=rf"f:3: the key '{key}' is missing"):
        read_pairs(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"id": 1,}', "f:2: not JSON"),
        ("null", "f:2: expected an object with keys and values, got None"),
        ('"text"', "f:2: expected an object"),
        (PAIR | {"second": None}, "f:2: 'second' must be a text, got None"),
        (PAIR | {"first": ["a"]}, "f:2: 'first' must be a text"),
        (PAIR | {"prompt": None}, "f:2: 'prompt' must be a text or a list of chat messages"),
        (PAIR | {"prompt": {"role": "user", "content": "p"}}, "f:2: 'prompt' must be"),
        (PAIR | {"prompt": ["p"]}, "f:2: a chat message needs"),
        (PAIR | {"prompt": [{"role": "user", "content": None}]}, "f:2: a chat message needs"),
    ],
)
def test_a_malformed_pair_is_named_with_its_line(tmp_path: Path, row: Any, message: str):
    with pytest.raises(ValueError, match=message):
        read_pairs(lines(tmp_path / "f", PAIR | {"id": "0"}, row))


@pytest.mark.parametrize(
    "change",
    [
        {"order": None},
        {"order": "ORIGINAL"},
        {"preference": "0.5"},
        {"preference": -0.01},
        {"preference": math.nan},
        {"preference": math.inf},
        {"preference": [0.5]},
        {"preference": None, "status": "ok"},
        {"status": "refusal"},
    ],
)
def test_a_malformed_verdict_is_named_with_its_line(tmp_path: Path, change: dict[str, Any]):
    with pytest.raises(ValueError, match=r"f:2: "):
        read_verdicts(lines(tmp_path / "f", VERDICT | {"id": "0"}, VERDICT | change))
    with pytest.raises(ValueError, match=r"f:1: a verdict needs an 'id'"):
        read_verdicts(lines(tmp_path / "f", {"order": "original", "preference": 1}))


def test_a_verdict_without_status_is_ok_or_failed_by_its_preference_and_integers_are_numbers(tmp_path: Path):
    rows = [{"id": 1, "order": "original", "preference": 1}, {"id": 1, "order": "swapped", "preference": None}]
    one, other = read_verdicts(lines(tmp_path / "f", *rows))
    assert one == Verdict("1", "original", 1.0, "ok")
    assert isinstance(one.preference, float)
    assert (other.status, math.isnan(other.preference)) == ("failed", True)


def test_ids_are_compared_as_texts_so_a_number_and_its_digits_are_one(tmp_path: Path):
    with pytest.raises(ValueError, match="the id '1' is there twice; ids name pairs"):
        read_pairs(lines(tmp_path / "f", PAIR, PAIR | {"id": 1}))


def test_a_labels_file_is_a_pairs_file(tmp_path: Path):
    path = lines(tmp_path / "f", PAIR | {"label": ["first", "tie"]}, PAIR | {"id": "2", "label": "tie"})
    assert [(p.id, p.first) for p in read_pairs(path)] == [(p.id, p.first) for p in read_labels(path)]


# Judges from files


def test_a_recorded_judge_repeats_another_judges_record(tmp_path: Path):
    book = {"a b": 0.75, "b a": 0.5, "c d": 0.125}
    original = Table(book).verdicts(["p", "q"], ["a", "c"], ["b", "d"], both_orders=True)
    pairs = lines(tmp_path / "p", PAIR, {"id": "2", "prompt": "q", "first": "c", "second": "d"})
    rows = zip(original.question, original.order, original.preference, original.status, strict=True)
    write_verdicts(tmp_path / "v", [Verdict(str(q + 1), order, p, status) for q, order, p, status in rows])
    judge = RecordedJudge(tmp_path / "v", pairs)
    again = judge.verdicts(["p", "q"], ["a", "c"], ["b", "d"], both_orders=True)
    np.testing.assert_array_equal(again.preference, original.preference)
    assert list(again.status) == list(original.status) == ["ok", "ok", "ok", "unknown"]
    np.testing.assert_array_equal(judge.compare(["p"], ["b"], ["a"]), [0.5])


def test_a_recorded_verdict_is_found_by_prompt_too_and_a_text_is_one_users_turn(tmp_path: Path):
    pairs = lines(tmp_path / "p", PAIR)
    write_verdicts(tmp_path / "v", [Verdict("1", "original", 0.25, "ok")])
    judge = RecordedJudge(tmp_path / "v", pairs)
    chat = [{"role": "user", "content": "p"}]
    record = judge.verdicts([chat, "other", "p"], ["a"] * 3, ["b", "b", "c"])
    np.testing.assert_array_equal(record.preference, [0.25, np.nan, np.nan])
    assert record.failures() == {"not-recorded": 2}


def test_fingerprints_of_judges_from_files_follow_the_files(tmp_path: Path):
    pairs = lines(tmp_path / "p", PAIR | {"label": "tie"})
    write_verdicts(tmp_path / "v", [Verdict("1", "original", 0.25, "ok")])
    write_verdicts(tmp_path / "w", [Verdict("1", "original", 0.75, "ok")])
    copy = lines(tmp_path / "copy", PAIR | {"label": "tie"})
    assert RecordedJudge(tmp_path / "v", pairs).fingerprint() == RecordedJudge(tmp_path / "v", copy).fingerprint()
    assert RecordedJudge(tmp_path / "v", pairs).fingerprint() != RecordedJudge(tmp_path / "w", pairs).fingerprint()
    changed = lines(tmp_path / "changed", PAIR | {"label": "first"})
    assert HumanJudge(pairs).fingerprint() == HumanJudge(copy).fingerprint() != HumanJudge(changed).fingerprint()


@quick
@given(st.lists(st.sampled_from(["first", "second", "tie"]), min_size=1, max_size=7))
def test_peoples_shares_of_the_two_orders_sum_to_one(tmp_path_factory: pytest.TempPathFactory, votes: list[str]):
    judge = HumanJudge(lines(tmp_path_factory.getbasetemp() / "labels.jsonl", PAIR | {"label": votes}))
    forth, back = judge.compare(["p"] * 2, ["a", "b"], ["b", "a"])
    assert forth == pytest.approx((votes.count("first") + votes.count("tie") / 2) / len(votes))
    assert forth + back == pytest.approx(1)


# Ensembles


@quick
@given(st.lists(st.tuples(st.floats(0.1, 0.9), st.floats(0.01, 100)), min_size=2, max_size=5))
def test_an_ensemble_is_numpys_weighted_average(members: list[tuple[float, float]]):
    judges = [Table({"a b": p}) for p, _ in members]
    (found,) = EnsembleJudge(judges, [w for _, w in members]).compare(["x"], ["a"], ["b"])
    assert found == pytest.approx(np.average([p for p, _ in members], weights=[w for _, w in members]))


@quick
@given(st.permutations([(0.25, 1.0), (0.5, 2.0), (1.0, 5.0)]))
def test_the_order_of_the_members_does_not_matter(members: list[tuple[float, float]]):
    ensemble = EnsembleJudge([Table({"a b": p}) for p, _ in members], [w for _, w in members])
    assert ensemble.compare(["x"], ["a"], ["b"])[0] == pytest.approx((0.25 + 1 + 5) / 8)


def test_an_ensemble_sums_costs_keeps_cuts_and_records_its_members():
    members = [Table({"a b": 0.25}, tokens=3, cost=0.5), Table({"a b": 0.75}, tokens=4, cost=0.25, cut=True)]
    record = EnsembleJudge(members).verdicts(["x", "x"], ["a", "a"], ["b", "c"])
    np.testing.assert_array_equal(record.input_tokens, [7, 0])
    np.testing.assert_array_equal(record.output_tokens, [2, 0])
    np.testing.assert_array_equal(record.cost, [0.75, 0])
    np.testing.assert_array_equal(record.latency, [1.0, 0])
    assert record.truncated.tolist() == [True, False]
    assert [json.loads(raw) for raw in record.raw] == [[0.25, 0.75], [None, None]]
    assert list(record.status) == ["ok", "unknown"]


def test_the_first_failing_member_gives_the_status_and_each_member_is_asked_once():
    members = [Table({"a b": 0.25, "b a": 1.0}), Table({"a b": 0.75})]
    record = EnsembleJudge(members).verdicts(["x"], ["a"], ["b"], both_orders=True)
    np.testing.assert_array_equal(record.preference, [0.5, np.nan])
    assert json.loads(record.raw[1]) == [1.0, None]
    assert all(member.asked == ["a b", "b a"] for member in members)


def test_an_ensemble_reports_progress_to_the_end():
    heard: list[tuple[int, int]] = []
    EnsembleJudge([Table({}), Table({})]).verdicts(
        ["x"] * 3, list("abc"), list("def"), progress=lambda *at: heard.append(at)
    )
    assert heard[-1] == (3, 3)


@pytest.mark.parametrize("weights", [[1, -1], [math.inf, 1], [0, 0], [1, 2, 3]])
def test_weights_that_do_not_fit_are_refused(weights: list[float]):
    with pytest.raises(ValueError, match="an ensemble"):
        EnsembleJudge([Table({}), Table({})], weights)


# Judges with a memory


def test_a_question_is_its_judge_its_prompt_and_its_texts_as_placed():
    questions = [Question("p", "a", "b"), Question("p", "b", "a"), Question("q", "a", "b"), Question("p", "ab", "")]
    keys = {verdict_key(judge, question) for judge in ("one", "two") for question in questions}
    assert len(keys) == 8
    assert verdict_key("one", Question("p", "a", "b")) in keys


def test_a_memory_answers_as_the_judge_does_and_is_the_judge_to_others(tmp_path: Path):
    inner = Table({"a b": 0.75, "b a": 0.5, "c d": 0.125}, tokens=5, cost=0.25, cut=True)
    judge = CachedJudge(inner, VerdictStore(tmp_path))
    assert judge.fingerprint() == inner.fingerprint()
    columns = (["p"] * 3, ["a", "c", "a"], ["b", "d", "x"])
    plain = Table(inner.book, 5, 0.25, True).verdicts(*columns, both_orders=True)
    for _ in range(2):
        record = judge.verdicts(*columns, both_orders=True)
        for name in ("preference", "input_tokens", "output_tokens", "latency", "cost", "truncated"):
            np.testing.assert_array_equal(getattr(record, name), getattr(plain, name))
        assert list(record.status) == list(plain.status)
        assert list(record.raw) == list(plain.raw)
    assert inner.asked == ["a b", "c d", "a x", "b a", "d c", "x a"]


def test_two_judges_share_a_table_without_sharing_answers(tmp_path: Path):
    table = VerdictStore(tmp_path)
    one, two = (CachedJudge(Table({"a b": p}), table) for p in (0.25, 0.75))
    found = [judge.compare(["p"], ["a"], ["b"])[0] for judge in (one, two, one, two)]
    assert found == [0.25, 0.75, 0.25, 0.75]


def test_a_question_twice_in_one_call_is_put_once_and_progress_counts_both(tmp_path: Path):
    inner, heard = Table({"a b": 0.25}), []
    judge = CachedJudge(inner, VerdictStore(tmp_path))
    record = judge.verdicts(["p"] * 3, ["a"] * 3, ["b"] * 3, progress=lambda *at: heard.append(at))
    assert inner.asked == ["a b"]
    assert record.preference.tolist() == [0.25] * 3
    assert heard[-1] == (3, 3)


def test_compare_with_takes_numpy_rows_in_any_order_and_repeats():
    class ByPrompt(Table):
        def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
            return [Answer(float(str(each.prompt))) for each in questions]

    compare = compare_with(ByPrompt({}), ["0", "0.25", "0.5"])
    np.testing.assert_array_equal(compare(np.array([2, 0, 1, 2]), list("abcd"), list("efgh")), [0.5, 0, 0.25, 0.5])


# The pocket world's judges


def test_the_pocket_judges_options_name_the_labels_their_question_offers():
    assert set(OPTIONS) == {"reward-model", "pairrm", "llm"}
    assert all(field in TEMPLATE for field in ("{{ prompt }}", "{{ first }}", "{{ second }}"))
    assert all(f" {label} :" in TEMPLATE for label in OPTIONS["llm"]["labels"])
    assert OPTIONS["llm"]["template"] == TEMPLATE


def test_the_pocket_panels_style_majority_is_a_cycle_by_its_own_coefficients():
    judge = PanelJudge(PANEL)
    prompt = "describe the cat"
    plain, rich, warm = "the cat is soft", "the soft cat drifts under silver mist", "oh dear friend the cat is so soft"
    forward = judge.compare([prompt] * 3, [plain, rich, warm], [rich, warm, plain])
    assert (forward > 0.5).all()
    rows = judge.utilities([prompt] * 3, [plain, rich, warm])
    gain = 4.0 * (rows - rows[[1, 2, 0]])
    np.testing.assert_allclose(forward, (1 / (1 + np.exp(-gain))) @ [0.4, 0.35, 0.25], atol=1e-12)


def test_votes_are_written_for_the_samples_that_differ_and_read_back_as_labels(tmp_path: Path):
    from harness.pocket.judges import VOTES_A_PAIR, write_votes

    pairs = [("the cat is soft", "oh dear"), ("same", "same"), ("silver mist", "the owl is wise"), ("soft", "wise")]
    drawn = [pairs[0] + pairs[1], pairs[2] + pairs[3]]
    policy = SimpleNamespace(
        model=SimpleNamespace(device="cpu"),
        encode=lambda prompt: prompt,
        sample=lambda encoded, k, options, generator: [
            [SimpleNamespace(text=text) for text in texts[:k]] for texts in drawn[: len(encoded)]
        ],
    )
    assert write_votes(policy, tmp_path, pairs=4, seed=5) == {"pairs": 3}
    labels = read_labels(tmp_path / "labels.jsonl")
    written = [(each.id, each.first, each.second) for each in labels]
    assert written == [("0", *pairs[0]), ("1", *pairs[2]), ("2", *pairs[3])]
    assert all(len(each.votes) == VOTES_A_PAIR and set(each.votes) <= {"first", "second"} for each in labels)
    assert all(each.prompt[-1]["role"] == "user" for each in labels)
    columns = [[getattr(each, name) for each in labels] for name in ("prompt", "first", "second")]
    votes = PanelJudge(PANEL).simulate_votes(*columns, votes=VOTES_A_PAIR, seed=5)
    np.testing.assert_allclose([each.share for each in labels], votes.mean(axis=1))


@dataclass(eq=False)
class Certain(Judge):
    """Always sure of the first."""

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        return [Answer(1.0) for _ in questions]


def test_rounding_never_carries_a_unanimous_ensemble_past_certainty() -> None:
    judge = EnsembleJudge([Certain() for _ in range(4)], weights=[2, 5, 3, 3])
    assert judge.compare(["p"], ["a"], ["b"]).tolist() == [1.0]
