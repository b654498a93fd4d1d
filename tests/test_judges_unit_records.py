"""Records, figures of agreement, prompts and fingerprints, each against its definition written out again."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judges.audit.agreement import accuracy, calibration_error, length_bias, log_loss
from judges.judge import Judge, Question, deciding_empty, last_turn, messages_of, prompt_text
from judges.verdicts import Answer, Order, Verdicts

quick = settings(max_examples=40, deadline=None)

sixteenths = st.integers(0, 16).map(lambda n: n / 16)
answers = st.one_of(sixteenths.map(Answer), st.sampled_from(["timeout", "refusal"]).map(Answer.failure))
both = st.lists(st.tuples(answers, answers), min_size=1, max_size=8)
voted = st.lists(st.tuples(st.one_of(sixteenths, st.just(math.nan)), sixteenths), min_size=1, max_size=20)


def record(pairs: list[tuple[Answer, Answer]]) -> Verdicts:
    n = len(pairs)
    order: list[Order] = [*["original"] * n, *["swapped"] * n]  # type: ignore[list-item]
    return Verdicts.of(n, [*range(n), *range(n)], order, [a for a, _ in pairs] + [b for _, b in pairs])


def columns(rows: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p for p, _ in rows]), np.array([s for _, s in rows])


# Records


@quick
@given(both)
def test_the_mean_of_a_pair_is_over_both_orders_in_its_own_naming_and_missing_where_one_failed(
    pairs: list[tuple[Answer, Answer]],
):
    expected = [(forth.preference + 1 - back.preference) / 2 for forth, back in pairs]
    np.testing.assert_array_equal(record(pairs).mean(), expected)


@quick
@given(both)
def test_a_flip_is_a_pair_whose_first_place_wins_or_loses_both_times(pairs: list[tuple[Answer, Answer]]):
    def flipped(forth: float, back: float) -> bool:
        return (forth > 0.5 and back > 0.5) or (forth < 0.5 and back < 0.5)

    expected = [flipped(forth.preference, back.preference) for forth, back in pairs]
    assert record(pairs).flips().tolist() == expected


@quick
@given(both)
def test_coverage_and_failures_account_for_every_question(pairs: list[tuple[Answer, Answer]]):
    verdicts = record(pairs)
    statuses = [answer.status for pair in pairs for answer in pair]
    assert verdicts.coverage() == statuses.count("ok") / len(statuses)
    assert sum(verdicts.failures().values()) == len(statuses) - statuses.count("ok")
    assert verdicts.failures() == {kind: statuses.count(kind) for kind in set(statuses) - {"ok"}}
    assert list(verdicts.failures()) == sorted(verdicts.failures())


@quick
@given(both)
def test_swapping_the_naming_of_the_pairs_complements_means_and_keeps_flips(pairs: list[tuple[Answer, Answer]]):
    plain, renamed = record(pairs), record([(back, forth) for forth, back in pairs])
    np.testing.assert_array_equal(renamed.mean(), 1 - plain.mean())
    np.testing.assert_array_equal(renamed.flips(), plain.flips())
    assert renamed.coverage() == plain.coverage()


@quick
@given(
    st.lists(
        st.builds(
            Answer,
            preference=sixteenths,
            input_tokens=st.integers(0, 99),
            output_tokens=st.integers(0, 99),
            latency=st.floats(0, 9),
            cost=st.floats(0, 1),
            raw=st.text(max_size=5),
            truncated=st.booleans(),
        ),
        max_size=6,
    )
)
def test_answers_come_back_as_given(given_answers: list[Answer]):
    order: list[Order] = ["original"] * len(given_answers)
    verdicts = Verdicts.of(len(given_answers), list(range(len(given_answers))), order, given_answers)
    assert verdicts.answers() == given_answers
    assert all(type(each.input_tokens) is int and type(each.truncated) is bool for each in verdicts.answers())


@quick
@given(both)
def test_answers_of_swapped_rows_are_in_the_pairs_naming_and_keep_their_status(pairs: list[tuple[Answer, Answer]]):
    back = record(pairs).answers()[len(pairs) :]
    for (_, asked), found in zip(pairs, back, strict=True):
        assert found.status == asked.status
        np.testing.assert_array_equal(found.preference, 1 - asked.preference)


def test_a_frame_has_the_rows_of_the_record_with_types_to_compute_with():
    verdicts = record(
        [(Answer(0.25, cost=0.5, truncated=True), Answer.failure("timeout", "…")), (Answer(1), Answer(0))]
    )
    frame = verdicts.frame()
    assert len(frame) == len(verdicts) == 4
    assert frame["question"].tolist() == [0, 1, 0, 1]
    assert frame["order"].tolist() == ["original"] * 2 + ["swapped"] * 2
    np.testing.assert_array_equal(frame["preference"], [0.25, 1, np.nan, 1])
    assert frame["status"].tolist() == ["ok", "ok", "timeout", "ok"]
    assert frame["raw"].tolist() == ["", "", "…", ""]
    assert frame["cost"].sum() == 0.5
    assert frame["truncated"].dtype == bool
    assert "pairs" not in frame
    means = frame.groupby("question")["preference"].apply(lambda column: column.mean(skipna=False))
    np.testing.assert_array_equal(means, verdicts.mean())


def test_a_pair_nobody_asked_about_is_missing_and_no_flip():
    verdicts = Verdicts.of(3, [1], ["original"], [Answer(0.75)])
    np.testing.assert_array_equal(verdicts.mean(), [np.nan, 0.75, np.nan])
    assert verdicts.flips().tolist() == [False] * 3
    assert verdicts.coverage() == 1.0


@pytest.mark.parametrize("wrong", [1 + 1e-9, -1e-9, math.inf, -math.inf, math.nan])
def test_a_broken_preference_fails_and_keeps_all_else(wrong: float):
    given_answer = Answer(wrong, input_tokens=3, output_tokens=1, latency=0.25, cost=0.5, raw="r", truncated=True)
    (found,) = Verdicts.of(1, [0], ["original"], [given_answer]).answers()
    assert math.isnan(found.preference)
    assert found.status == ("not-a-number" if math.isnan(wrong) else "out-of-range")
    assert replace(found, preference=0.0, status="ok") == replace(given_answer, preference=0.0)


# Agreement


@quick
@given(voted)
def test_accuracy_is_counted_pair_by_pair(rows: list[tuple[float, float]]):
    right = [(p > 0.5) == (s > 0.5) and p != 0.5 for p, s in rows if not math.isnan(p) and s != 0.5]
    found = accuracy(*columns(rows))
    assert math.isnan(found) if not right else found == pytest.approx(sum(right) / len(right))


@quick
@given(voted)
def test_accuracy_and_log_loss_do_not_depend_on_which_response_is_first(rows: list[tuple[float, float]]):
    p, s = columns(rows)
    np.testing.assert_equal(accuracy(1 - p, 1 - s), accuracy(p, s))
    np.testing.assert_allclose(log_loss(1 - p, 1 - s), log_loss(p, s), rtol=1e-4)


@quick
@given(voted)
def test_log_loss_is_cross_entropy_pair_by_pair_and_least_at_the_share(rows: list[tuple[float, float]]):
    kept = [(min(max(p, 1e-12), 1 - 1e-12), s) for p, s in rows if not math.isnan(p)]
    losses = [-(s * math.log(p) + (1 - s) * math.log(1 - p)) for p, s in kept]
    if losses:
        assert log_loss(*columns(rows)) == pytest.approx(sum(losses) / len(losses), rel=1e-4, abs=1e-9)
    shares = np.array([s for _, s in kept])
    if len(shares):
        assert log_loss(shares, shares) <= log_loss(*columns(rows)) + 1e-9


def test_log_loss_of_a_coin_is_log_two_and_of_a_sure_mistake_is_bounded():
    assert log_loss(np.full(3, 0.5), np.array([0, 0.25, 1])) == pytest.approx(math.log(2))
    assert log_loss(np.array([0.0]), np.array([1.0])) == pytest.approx(12 * math.log(10), rel=1e-6)


@quick
@given(voted, st.sampled_from([1, 2, 4, 8]))
def test_calibration_error_is_summed_bin_by_bin(rows: list[tuple[float, float]], bins: int):
    kept = [(p, s) for p, s in rows if not math.isnan(p)]
    total = 0.0
    for b in range(bins):
        inside = [(p, s) for p, s in kept if b / bins <= p < (b + 1) / bins or (b == bins - 1 and p == 1)]
        if inside:
            mean_p, mean_s = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            total += len(inside) / len(kept) * abs(mean_p - mean_s)
    found = calibration_error(*columns(rows), bins=bins)
    assert math.isnan(found) if not kept else found == pytest.approx(total, abs=1e-12)


@quick
@given(voted)
def test_with_one_bin_calibration_error_is_the_gap_of_the_means_and_finer_bins_show_no_less(rows):
    p, s = columns([row for row in rows if not math.isnan(row[0])])
    if len(p):
        coarse = calibration_error(p, s, bins=1)
        assert coarse == pytest.approx(abs(p.mean() - s.mean()), abs=1e-12)
        assert calibration_error(p, s, bins=8) >= coarse - 1e-12
        assert calibration_error(s, s) == 0.0


@quick
@given(voted, st.randoms())
def test_length_bias_turns_with_the_responses_and_the_sign_of_the_gap(rows: list[tuple[float, float]], random):
    p, s = columns(rows)
    first = ["x" * random.randint(0, 3) for _ in rows]
    second = ["x" * random.randint(0, 3) for _ in rows]
    gaps = [
        (p[i] - s[i]) if len(a) > len(b) else (s[i] - p[i])
        for i, (a, b) in enumerate(zip(first, second, strict=True))
        if len(a) != len(b) and not math.isnan(p[i])
    ]
    found = length_bias(p, s, first, second)
    assert math.isnan(found) if not gaps else found == pytest.approx(sum(gaps) / len(gaps), abs=1e-12)
    np.testing.assert_allclose(length_bias(1 - p, 1 - s, second, first), found, atol=1e-12)


def test_length_bias_of_a_judge_of_length_against_votes_for_the_shorter_is_one():
    assert length_bias(np.array([1.0, 0.0]), np.array([0.0, 1.0]), ["long", "a"], ["b", "longer"]) == 1.0


# Prompts


@quick
@given(st.text(max_size=20))
def test_a_text_is_its_own_prompt_and_its_own_last_turn(text: str):
    assert prompt_text(text) == last_turn(text) == text
    assert prompt_text(messages_of(text)) == text
    assert messages_of(messages_of(text)) == messages_of(text)


@quick
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), st.text(max_size=6)), min_size=2))
def test_a_conversations_text_names_every_turn_and_its_last_turn_is_the_users(turns: list[tuple[str, str]]):
    chat = [{"role": role, "content": content} for role, content in turns]
    assert prompt_text(chat) == "\n\n".join(f"{role}: {content}" for role, content in turns)
    said = [content for role, content in turns if role == "user"]
    if said:
        assert last_turn(chat) == said[-1]
    else:
        with pytest.raises(ValueError, match="a prompt has no user's turn"):
            last_turn(chat)


def test_messages_lose_keys_that_are_no_part_of_a_turn():
    assert messages_of([{"role": "user", "content": "p", "name": "x"}]) == [{"role": "user", "content": "p"}]


@pytest.mark.parametrize(
    "broken", [[{}], [{"role": None, "content": "x"}], [{"content": "x"}], [["user", "x"]], [None]]
)
def test_every_reader_of_prompts_refuses_a_broken_message(broken: list):
    for reader in (prompt_text, messages_of, last_turn):
        with pytest.raises(ValueError, match="a chat message needs the texts 'role' and 'content'"):
            reader(broken)


def test_an_empty_response_loses_to_one_with_text_ties_with_another_and_only_the_others_are_put():
    put: list[str] = []
    advanced: list[int] = []

    def answer(questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        put.extend(each.first for each in questions)
        advance(len(questions))
        return [Answer(len(each.first) / 10) for each in questions]

    asked = [Question("p", a, b) for a, b in [("x", "y"), ("", "y"), ("x", " \n"), ("xyz", "y"), ("", "\t")]]
    found = deciding_empty(asked, advanced.append, answer)
    assert put == ["x", "xyz"]
    assert {each.status for each in found} == {"ok"}
    assert [each.preference for each in found] == [0.1, 0.0, 1.0, 0.3, 0.5]
    assert sum(advanced) == 5


def test_nothing_is_put_where_every_response_is_empty():
    def answer(*_: object) -> list[Answer]:
        raise AssertionError("asked")

    assert [each.preference for each in deciding_empty([Question("p", "", "")], lambda n: None, answer)] == [0.5]


# Fingerprints


@dataclass(eq=False)
class Reader(Judge):
    """Has a file, an option that matters and one that only changes the speed."""

    source: str
    extra: str | None = None
    sharpness: float = 1.0
    workers: int = 1
    paths: ClassVar[tuple[str, ...]] = ("source", "extra")
    tuning: ClassVar[tuple[str, ...]] = ("workers",)

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        return [Answer(0.5)] * len(questions)


def test_a_fingerprint_changes_with_each_option_and_not_with_tuning(tmp_path: Path):
    file = tmp_path / "f"
    file.write_text("one")
    plain = Reader(str(file))
    others = [replace(plain, sharpness=2.0), replace(plain, extra="name"), replace(plain, source="hub/name")]
    assert len({each.fingerprint() for each in [plain, *others]}) == 4
    assert replace(plain, workers=9).fingerprint() == plain.fingerprint()
    assert plain.options() == {"source": str(file), "extra": None, "sharpness": 1.0, "workers": 1}


def test_a_fingerprint_follows_the_content_of_a_file_and_comes_back_with_it(tmp_path: Path):
    file = tmp_path / "f"
    prints = []
    for time, content in enumerate(["one", "two", "one"]):  # equal sizes: only content and time differ
        file.write_text(content)
        os.utime(file, ns=(time * 10**9, time * 10**9))
        prints.append(Reader(str(file)).fingerprint())
    assert prints[0] == prints[2] != prints[1]


def test_a_file_is_known_by_content_wherever_it_lies_and_a_folder_by_the_names_in_it(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inner").write_text("same")
        (tmp_path / f"{name}.txt").write_text("same")
    file, folder = Reader(str(tmp_path / "a.txt")).fingerprint(), Reader(str(tmp_path / "a")).fingerprint()
    assert Reader(str(tmp_path / "b.txt")).fingerprint() == file
    assert Reader(str(tmp_path / "b")).fingerprint() == folder
    (tmp_path / "b" / "inner").rename(tmp_path / "b" / "renamed")
    assert Reader(str(tmp_path / "b")).fingerprint() != folder
    (tmp_path / "a" / "second").write_text("")
    assert Reader(str(tmp_path / "a")).fingerprint() != folder


def test_which_option_a_file_was_given_for_matters(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    assert Reader(str(one), str(two)).fingerprint() != Reader(str(two), str(one)).fingerprint()
