"""A judge with a memory, prompts and how they are dealt out, and the registry's checks."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from chat_server import Act, ChatServer, completion
from fake_stages import fake

from harness.prompts import iteration_rows, read_prompts
from harness.registry import load, make
from harness.specs import ComponentSpec
from harness.stages.context import Context, ModelCache
from harness.stages.text_metrics import text_figures
from harness.store.artifacts import Store
from harness.store.cached_judge import CachedJudge, compare_with
from harness.store.verdicts import VerdictStore, rating_key, verdict_key
from judges import LLMJudge
from judges.judge import Judge, Prompt, Question, Ratings, References
from judges.plugins import nearest
from judges.protocols.mt_bench import MTBenchProtocol
from judges.protocols.protocol import Reading
from judges.verdicts import Answer
from trainers import DPO


@dataclass(eq=False)
class Flaky(Judge):
    """Prefers the longer text by length; fails on the first question about each text in `fails_once`."""

    fails_once: set[str] = field(default_factory=set)
    asked: list[Question] = field(default_factory=list, init=False)

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        self.asked += questions
        answers = []
        for question in questions:
            advance(1)
            if question.first in self.fails_once:
                self.fails_once.remove(question.first)
                answers.append(Answer.failure("timeout"))
            else:
                answers.append(Answer(1 / (1 + math.exp(len(question.second) - len(question.first))), raw="because"))
        return answers

    def fingerprint(self) -> str:
        return "flaky"


def test_a_known_question_is_not_asked_again_by_another_judge_of_the_same_fingerprint(tmp_path: Path) -> None:
    first, second = Flaky(), Flaky()
    asked = (["p"] * 3, ["a", "bb", "a"], ["ccc", "a", "ccc"])
    before = CachedJudge(first, Store(tmp_path).verdicts).verdicts(*asked, both_orders=True)
    assert len(first.asked) == 4  # two distinct pairs, two orders each
    after = CachedJudge(second, Store(tmp_path).verdicts).verdicts(*asked, both_orders=True)
    assert second.asked == []
    np.testing.assert_array_equal(before.preference, after.preference)
    assert list(after.raw) == ["because"] * 6


def test_a_question_whose_call_failed_is_asked_again_the_next_time(tmp_path: Path) -> None:
    inner = Flaky(fails_once={"a"})
    judge = CachedJudge(inner, Store(tmp_path).verdicts)
    assert np.isnan(judge.compare(["p", "p"], ["a", "bb"], ["c", "c"])).tolist() == [True, False]
    assert np.isnan(judge.compare(["p", "p"], ["a", "bb"], ["c", "c"])).tolist() == [False, False]
    assert [q.first for q in inner.asked] == ["a", "bb", "a"]


def test_a_question_that_was_answered_unreadably_is_not_asked_again(tmp_path: Path) -> None:
    store, inner = Store(tmp_path), Mute(status="unparsed")
    first = CachedJudge(inner, store.verdicts).verdicts(["p"], ["a"], ["b"])
    store.verdicts.flush()
    again = CachedJudge(inner, VerdictStore(tmp_path / "verdicts")).verdicts(["p"], ["a"], ["b"])
    assert len(inner.asked) == 1
    for record in (first, again):
        assert (record.status, record.raw, np.isnan(record.preference).tolist()) == (["unparsed"], ["hm"], [True])


@dataclass(eq=False)
class Interrupted(Flaky):
    """Answers `chunk_size` questions at a time, and is interrupted at the third."""

    chunk_size = 5

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        if len(self.asked) == 10:
            raise KeyboardInterrupt
        assert len(questions) <= 5
        return super().answer(questions, advance)


def test_what_was_answered_before_an_interruption_is_not_asked_again(tmp_path: Path) -> None:
    texts = [f"{i:02}" for i in range(12)]
    first, second = Interrupted(), Flaky()
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        CachedJudge(first, store.verdicts).compare(["p"] * 12, texts, ["b"] * 12)
    store.verdicts.flush()  # what half a second does
    CachedJudge(second, VerdictStore(tmp_path / "verdicts")).compare(["p"] * 12, texts, ["b"] * 12)
    assert [q.first for q in first.asked + second.asked] == texts


@dataclass(eq=False)
class Overtaken(Flaky):
    """While it thinks, another stage asks the same and is answered 0.25 to everything."""

    table: VerdictStore | None = None

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        assert self.table is not None
        self.table.add({verdict_key(self.fingerprint(), question): Answer(0.25) for question in questions})
        return super().answer(questions, advance)


def test_of_two_answers_to_one_question_the_first_stored_is_everybodys(tmp_path: Path) -> None:
    store = Store(tmp_path)
    judge = CachedJudge(Overtaken(table=store.verdicts), store.verdicts)
    asked = (["p", "p"], ["a", "bbb"], ["cc", "d"])
    assert judge.compare(*asked).tolist() == [0.25, 0.25]
    assert CachedJudge(Flaky(), store.verdicts).compare(*asked).tolist() == [0.25, 0.25]


def test_progress_counts_every_question_known_or_not(tmp_path: Path) -> None:
    judge = CachedJudge(Flaky(), Store(tmp_path).verdicts)
    judge.compare(["p"], ["a"], ["b"])
    heard: list[tuple[int, int]] = []
    judge.verdicts(["p"] * 3, ["a", "b", "c"], ["b", "c", "d"], progress=lambda *at: heard.append(at))
    assert heard[-1] == (3, 3)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


def test_references_are_part_of_a_question_they_reach_the_judge_and_tell_its_verdicts_apart(tmp_path: Path) -> None:
    plain, told, other = (Question("p", "a", "b", references) for references in ((), ("c",), ("d",)))
    assert len({verdict_key("judge", question) for question in (plain, told, other)}) == 3
    assert verdict_key("judge", told) == verdict_key("judge", Question("p", "a", "b", ("c",)))
    kinds = {verdict_key("judge", Question("p", "a", "b", category=kind)) for kind in ("", "math", "writing")}
    assert len(kinds) == 3
    inner, table = Flaky(), Store(tmp_path).verdicts
    for references in (None, [["c"]], [["d"]], [["c"]], [None]):
        CachedJudge(inner, table).verdicts(["p"], ["a"], ["b"], references=references)
    assert inner.asked == [plain, told, other]


def losing(tmp_path: Path, questions: int, lost: int) -> CachedJudge:
    """A judge that was asked so many questions, of which so many ran into a timeout."""
    texts = [f"{number:04}" for number in range(questions)]
    judge = CachedJudge(Flaky(fails_once=set(texts[:lost])), Store(tmp_path).verdicts)
    judge.compare(["p"] * questions, texts, ["b"] * questions)
    return judge


def test_a_stage_may_lose_one_call_in_a_hundred_and_no_more(tmp_path: Path) -> None:
    judge = losing(tmp_path / "few", 200, 2)
    judge.check_losses()
    assert (judge.question_count, judge.failures) == (200, {"timeout": 2})
    with pytest.raises(ValueError, match=r"^3 of 200 questions .*timeout: 3.*more than 1%; run again"):
        losing(tmp_path / "many", 200, 3).check_losses()
    losing(tmp_path / "early", 20, 2).check_losses(planned=200)
    with pytest.raises(ValueError, match=r"^3 of 200"):
        losing(tmp_path / "hopeless", 20, 3).check_losses(planned=200)


@dataclass(eq=False)
class Mute(Flaky):
    """Fails always, in one way."""

    status: str = "unparsed"

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        self.asked += questions
        return [Answer.failure(self.status, "hm") for _ in questions]


@pytest.mark.parametrize(
    ("status", "passes"),
    [("unparsed", False), ("empty-response", False), ("http-400", False), ("http-503", True), ("rate-limit", True)],
)
def test_only_failures_of_the_call_are_worth_another_run(tmp_path: Path, status: str, passes: bool) -> None:
    judge = CachedJudge(Mute(status=status), Store(tmp_path).verdicts)
    judge.compare(["p"], ["a"], ["b"])
    assert judge.failures == {status: 1}
    with pytest.raises(ValueError, match=status) if passes else nullcontext():
        judge.check_losses()


@dataclass(eq=False)
class Rater(Flaky):
    """Has a protocol of its own for single answers: their lengths."""

    rated: list[str] = field(default_factory=list, init=False)
    supports_single_rating = True

    def rate(self, prompts: Sequence[Prompt], answers: Sequence[str], references: Sequence[References]) -> Ratings:
        self.rated += answers
        lost = ["timeout" if self.rated.count(answer) == 1 and answer == "lost" else "ok" for answer in answers]
        rating = [len(answer) if status == "ok" else math.nan for answer, status in zip(answers, lost, strict=True)]
        return Ratings(np.array(rating), lost, [f"of {answer}" for answer in answers])


def test_a_judges_own_ratings_are_kept_with_its_words_and_only_failed_calls_are_made_again(tmp_path: Path) -> None:
    inner, store = Rater(), Store(tmp_path)
    asked = (["p", "q", "q"], ["four", "lost", "four"], [None, ["r"], None])
    first = CachedJudge(inner, store.verdicts)
    np.testing.assert_array_equal(first.rate(*asked).rating, [4, math.nan, 4])
    assert (first.question_count, first.failures) == (3, {"timeout": 1})
    store.verdicts.flush()
    again = CachedJudge(inner, VerdictStore(tmp_path / "verdicts")).rate(*asked)
    assert (again.rating.tolist(), again.status) == ([4, 4, 4], ["ok"] * 3)
    assert again.raw == ["of four", "of lost", "of four"]
    assert inner.rated == ["four", "lost", "four", "lost"]
    assert CachedJudge(inner, store.verdicts).rate(["q"], ["lost"], [["s"]]).rating.tolist() == [4]
    assert inner.rated[4:] == ["lost"]  # with another reference it is another question


def test_a_rating_is_no_verdict_on_the_same_texts() -> None:
    question = Question("p", "a", "")
    assert rating_key("judge", question) != verdict_key("judge", question)


def test_a_judges_own_ratings_are_asked_for_without_a_comparison(tmp_path: Path) -> None:
    inner = Rater()
    judge = CachedJudge(inner, Store(tmp_path).verdicts)
    assert judge.rate(["p", "q"], ["four", "five."], [None, ["r"]]).rating.tolist() == [4, 5]
    assert (inner.rated, inner.asked) == (["four", "five."], [])
    assert (judge.question_count, judge.failures) == (2, {})


def test_ratings_by_comparison_with_the_reference_are_remembered(tmp_path: Path) -> None:
    """1 + 9 P(answer beats reference); of texts of lengths 3 and 1, P is the logistic of 2."""
    asked = (["p", "q"], ["abc", "b"], [["c"], None])
    first, second = Flaky(), Flaky()
    before = CachedJudge(first, Store(tmp_path).verdicts).rate(*asked)
    np.testing.assert_allclose(before.rating, [1 + 9 / (1 + math.exp(-2)), np.nan])
    assert before.status == ["ok", "no-reference"]
    assert [(q.first, q.second) for q in first.asked] == [("abc", "c"), ("c", "abc")]
    after = CachedJudge(second, Store(tmp_path).verdicts).rate(*asked)
    np.testing.assert_array_equal(after.rating, before.rating)
    assert second.asked == []


def test_compare_with_looks_prompts_up_by_number(tmp_path: Path) -> None:
    inner = Flaky()
    compare = compare_with(inner, ["zero", "one", "two"])
    compare([2, 0], ["a", "b"], ["c", "d"])
    assert [q.prompt for q in inner.asked] == ["two", "zero"]


def test_a_sweep_keeps_an_endpoints_replies_and_an_edited_parser_makes_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with ChatServer(lambda *_: Act(completion("It is [[A]], or [[B]]."))) as server:
        options = {"model": "m", "base_url": server.url, "protocol": "mt-bench"}
        members = [{"name": "llm", **options}, {"name": "llm", **options, "temperature": 0.5}]
        for chosen in ({"name": "llm", "options": options}, {"name": "ensemble", "options": {"judges": members}}):
            spec = ComponentSpec("judges", chosen["name"], chosen["options"], "paid", "paid")
            context = Context(fake("grade"), Store(tmp_path), tmp_path, lambda *_: None, ModelCache())
            with monkeypatch.context() as edited:
                before = context.judge(spec).verdicts(["p"] * 2, ["a", "b"], ["c", "d"])
                paid = server.total
                assert before.status == ["two-verdicts"] * 2
                edited.setattr(LLMJudge, "fingerprint", lambda _: "of an edited parser")
                edited.setattr(MTBenchProtocol, "read", lambda *_: Reading(0.75))
                after = context.judge(spec).verdicts(["p"] * 2, ["a", "b"], ["c", "d"])
            assert server.total == paid
            assert after.preference.tolist() == [0.75] * 2
        assert server.total == 4  # the ensemble's first member found its replies


# --- prompts -----------------------------------------------------------------------------------------------------


def test_iterations_deal_out_shuffled_passes_without_a_gap_or_a_repeat() -> None:
    dealt = [row for t in range(1, 8) for row in iteration_rows(10, 4, t, seed=3)]
    assert len(dealt) == 28
    assert all(sorted(dealt[i : i + 10]) == list(range(10)) for i in (0, 10))
    assert dealt[:10] != dealt[10:20]
    assert dealt[:10] != sorted(dealt[:10])
    assert iteration_rows(10, 4, 1, seed=4) != dealt[:4]


def test_an_iteration_may_ask_for_more_prompts_than_there_are() -> None:
    assert set(Counter(iteration_rows(3, 9, 2, seed=0)).values()) == {3}


def test_a_fifth_is_held_out_by_content_so_that_new_lines_move_no_old_prompt(tmp_path: Path) -> None:
    def split(texts: list[str]) -> dict[str, str]:
        path = tmp_path / "p.jsonl"
        path.write_text("".join(json.dumps({"prompt": t}) + "\n" for t in texts))
        return {str(r.prompt): r.split for r in read_prompts(str(path), 0)}

    texts = [f"prompt {i}" for i in range(50)]
    before = split(texts)
    assert Counter(before.values()) == {"train": 40, "heldout": 10}
    assert split(texts[::-1]) == before


def test_marked_splits_are_kept_and_ids_default_to_line_numbers(tmp_path: Path) -> None:
    lines = [{"prompt": "a", "split": "heldout"}, {"prompt": "b", "split": "train", "id": "x"}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    records = read_prompts(str(tmp_path / "p.jsonl"), 0)
    assert [(r.id, r.prompt, r.split) for r in records] == [("1", "a", "heldout"), ("x", "b", "train")]


# --- small parts -------------------------------------------------------------------------------------------------


def test_nearest_suggests_a_close_word_and_lists_all_where_none_is_close() -> None:
    assert nearest("iteratons", ["iterations", "seed"]) == "; did you mean 'iterations'?"
    assert nearest("zzz", ["seed", "name"]) == "; there is name, seed"


def test_make_builds_what_load_finds() -> None:
    assert load("trainers", "dpo") is DPO
    assert make("trainers", "dpo", {"beta": 0.5}) == DPO(beta=0.5)


def test_figures_of_collapse_are_word_pairs_repeats_and_words() -> None:
    figures = text_figures(["a b a b", "a b a b", "c"])
    assert figures["distinct_2"] == pytest.approx(2 / 6)  # ab, ba among three and three
    assert figures["repeated"] == pytest.approx(1 / 3)
    assert figures["words"] == pytest.approx(3)


def test_the_model_cache_keeps_the_two_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(
        "trainers.policies.causal_lm.CausalLM.load", lambda path, precision: loaded.append(path) or object()
    )
    cache = ModelCache()
    for path in ("a", "b", "a", "c", "a", "b"):
        cache.get(path, "fp32")
    assert loaded == ["a", "b", "c", "b"]
