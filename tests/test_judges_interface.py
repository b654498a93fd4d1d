"""The judge interface: what is recorded, what counts as a failure, what a fingerprint sees."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from judges import Answer, Judge, PanelJudge, Question, Verdicts
from judges.judge import last_turn, messages_of, prompt_text


@dataclass(eq=False)
class Scripted(Judge):
    """Answers with the given answers, in order, and remembers what it was asked."""

    answers: Sequence[Answer] = ()

    def __post_init__(self) -> None:
        self.asked: list[Question] = []

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> Sequence[Answer]:
        self.asked += questions
        for _ in questions:
            advance(1)
        return self.answers[: len(questions)]


@dataclass(eq=False)
class FileJudge(Judge):
    """A judge with a file, an option that matters and one that does not."""

    model: str
    sharpness: float = 1.0
    batch_size: int = 8
    paths: ClassVar[tuple[str, ...]] = ("model",)
    tuning: ClassVar[tuple[str, ...]] = ("batch_size",)

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> Sequence[Answer]:
        return [Answer(0.5)] * len(questions)


def test_both_orders_are_separate_questions_recorded_in_the_pairs_own_naming():
    judge = Scripted([Answer(0.9), Answer(0.2), Answer(0.4), Answer(0.7)])
    verdicts = judge.verdicts(["p", "q"], ["a", "c"], ["b", "d"], both_orders=True)
    assert [(each.prompt, each.first, each.second) for each in judge.asked] == [
        ("p", "a", "b"),
        ("q", "c", "d"),
        ("p", "b", "a"),
        ("q", "d", "c"),
    ]
    assert list(verdicts.order) == ["original", "original", "swapped", "swapped"]
    np.testing.assert_allclose(verdicts.preference, [0.9, 0.2, 0.6, 0.3], atol=1e-15)
    np.testing.assert_allclose(verdicts.mean(), [0.75, 0.25], atol=1e-15)
    assert not verdicts.flips().any()


def test_a_judge_that_compares_rates_against_the_last_reference_in_both_orders():
    """1 + 9 (.9 + .7)/2 = 8.2; one order failed, both failed and no reference are failures."""
    placed = [Answer(0.9), Answer(1.0), Answer.failure("a"), Answer(0.3), Answer.failure("t"), Answer.failure("b")]
    judge = Scripted(placed)
    rated = judge.rate(["p", "q", "r", "s"], ["x"] * 4, [("old", "ref"), None, ["ref"], ["ref"]])
    np.testing.assert_allclose(rated.rating, [8.2, np.nan, np.nan, np.nan])
    assert rated.status == ["ok", "no-reference", "t", "a+b"]
    assert [(each.prompt, each.first, each.second) for each in judge.asked[:1] + judge.asked[3:4]] == [
        ("p", "x", "ref"),
        ("p", "ref", "x"),
    ]


def test_ratings_need_one_answer_and_one_reference_a_prompt():
    with pytest.raises(ValueError, match="got 1 prompts, 2 answers, 1 references"):
        Scripted().rate(["p"], ["x", "y"], [None])
    assert Scripted().rate(["p"], ["x"], [None]).status == ["no-reference"]


def test_compare_is_the_original_order_alone():
    judge = Scripted([Answer(0.9)])
    np.testing.assert_array_equal(judge.compare(["p"], ["a"], ["b"]), [0.9])
    assert len(judge.asked) == 1


def test_a_pair_whose_orders_disagree_is_a_flip_and_a_tie_is_none():
    judge = Scripted([Answer(0.9), Answer(0.9), Answer(0.8), Answer(0.5)])
    verdicts = judge.verdicts(["p"] * 2, ["a"] * 2, ["b"] * 2, both_orders=True)
    np.testing.assert_array_equal(verdicts.flips(), [True, False])


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Answer(float("nan")), "not-a-number"),
        (Answer(1.5), "out-of-range"),
        (Answer(-0.1), "out-of-range"),
        (Answer(float("inf")), "out-of-range"),
        (Answer(0.5, status="refusal"), "refusal"),
        (Answer.failure("timeout"), "timeout"),
    ],
)
def test_what_is_no_probability_is_a_failure_with_its_kind_and_never_a_number(answer: Answer, status: str):
    verdicts = Scripted([answer, Answer(1.0)]).verdicts(["p"] * 2, ["a"] * 2, ["b"] * 2)
    assert np.isnan(verdicts.preference[0])
    assert list(verdicts.status) == [status, "ok"]
    assert verdicts.coverage() == 0.5
    assert verdicts.failures() == {status: 1}


def test_one_order_alone_is_no_mean_over_both_orders():
    judge = Scripted([Answer.failure("timeout"), Answer(0.5), Answer(0.25), Answer.failure("refusal")])
    verdicts = judge.verdicts(["p"] * 2, ["a"] * 2, ["b"] * 2, both_orders=True)
    np.testing.assert_array_equal(verdicts.mean(), [np.nan, np.nan])
    assert verdicts.failures() == {"refusal": 1, "timeout": 1}


def test_the_frame_has_a_row_a_question_with_everything_measured():
    answer = Answer(0.9, input_tokens=7, output_tokens=2, latency=0.5, cost=0.001, raw="A")
    frame = Scripted([answer]).verdicts(["p"], ["a"], ["b"]).frame()
    assert frame.to_dict("records") == [
        {
            "question": 0,
            "order": "original",
            "preference": 0.9,
            "status": "ok",
            "input_tokens": 7,
            "output_tokens": 2,
            "latency": 0.5,
            "cost": 0.001,
            "truncated": False,
            "raw": "A",
            "calls": 0,
        }
    ]


def test_a_failed_answer_keeps_what_was_measured():
    verdicts = Scripted([Answer(2.0, input_tokens=7, cost=0.5, raw="two")]).verdicts(["p"], ["a"], ["b"])
    assert (verdicts.input_tokens[0], verdicts.cost[0], verdicts.raw[0]) == (7, 0.5, "two")


def test_nothing_asked_gives_an_empty_record_and_no_coverage():
    judge = Scripted()
    verdicts = judge.verdicts([], [], [])
    assert isinstance(verdicts, Verdicts)
    assert len(verdicts) == 0
    assert np.isnan(verdicts.coverage())
    assert judge.compare([], [], []).shape == (0,)


def test_progress_counts_the_questions_of_both_orders():
    seen: list[tuple[int, int]] = []
    Scripted([Answer(0.5)] * 4).verdicts(
        ["p"] * 2, ["a"] * 2, ["b"] * 2, both_orders=True, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="got 2 prompts, 1 first, 2 second"):
        Scripted().compare(["p", "q"], ["a"], ["b", "c"])


def test_a_judge_that_skips_questions_is_named():
    with pytest.raises(ValueError, match="Scripted answered 1 of 2"):
        Scripted([Answer(0.5)]).compare(["p"] * 2, ["a"] * 2, ["b"] * 2)


def test_a_fingerprint_sees_options_and_contents_and_not_where_a_file_lies(tmp_path: Path):
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "weights").write_text("w")
    copy = Path(shutil.copytree(folder, tmp_path / "two"))
    fingerprint = FileJudge(str(folder)).fingerprint()
    assert FileJudge(str(copy)).fingerprint() == fingerprint
    assert FileJudge(str(folder), batch_size=64).fingerprint() == fingerprint
    assert FileJudge(str(folder), sharpness=2.0).fingerprint() != fingerprint
    assert FileJudge("hub/name").fingerprint() != fingerprint
    (copy / "weights").write_text("v, changed")
    assert FileJudge(str(copy)).fingerprint() != fingerprint
    assert len(fingerprint) == 64


def test_two_kinds_of_judge_with_equal_options_have_different_fingerprints():
    class Other(FileJudge):
        pass

    assert Other("m").fingerprint() != FileJudge("m").fingerprint()


def test_options_hidden_in_a_constructor_are_refused_rather_than_left_out_of_the_fingerprint():
    class Hidden(Scripted):
        def __init__(self, secret: int) -> None:
            self.secret = secret

    with pytest.raises(TypeError, match="Hidden has its own __init__"):
        Hidden(1).fingerprint()


def test_prompts_are_texts_or_chat_messages():
    chat = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "bye"},
    ]
    assert prompt_text("hello") == "hello" == prompt_text(chat[:1])
    assert prompt_text(chat) == "user: hello\n\nassistant: hi\n\nuser: bye"
    assert last_turn(chat) == "bye"
    assert messages_of("hello") == chat[:1]


@pytest.mark.parametrize("broken", [[{"role": "user"}], [{"role": "user", "content": 3}], ["hello"]])
def test_messages_without_role_and_content_are_refused(broken: list):
    with pytest.raises(ValueError, match="needs the texts 'role' and 'content'"):
        prompt_text(broken)


def test_a_conversation_without_a_users_turn_is_refused():
    with pytest.raises(ValueError, match="no user's turn"):
        last_turn([{"role": "system", "content": "be good"}])


def test_a_judges_own_hidden_state_does_not_reach_the_fingerprint(tmp_path: Path):
    panel = tmp_path / "panel.yaml"
    panel.write_text("{scale: 1, features: {n: {length: true}}, annotators: [{name: x, weight: 1, utility: {n: 1}}]}")
    judge = PanelJudge(panel)
    before = judge.fingerprint()
    judge.compare(["p"], ["a b"], ["a"])
    assert judge.fingerprint() == before == PanelJudge(str(panel)).fingerprint()


def test_importing_every_public_judge_loads_nothing_heavy():
    code = "import sys, judges; [getattr(judges, name) for name in judges.__all__]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "judges.kinds.llm" in loaded
    assert not {"torch", "transformers", "pandas", "scipy", "pyarrow", "openai"} & set(loaded)


@pytest.mark.slow
def test_importing_every_public_judge_is_cheap():
    """In 0.3 s; on a slower machine in 2.5 times what numpy alone, which is most of it, takes there."""
    code = (
        "import time; start = time.process_time(); import numpy; numpys = time.process_time() - start;"
        "import judges; [getattr(judges, name) for name in judges.__all__];"
        "print(numpys, time.process_time() - start)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(7)]
    outputs = [run.stdout.split() for run in runs]
    numpys, spent = (min(float(output[i]) for output in outputs) for i in range(2))
    assert spent < max(0.3, 2.5 * numpys)


def test_an_unknown_name_is_an_attribute_error():
    import judges

    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        judges.Nonsense  # noqa: B018
    assert "PanelJudge" in dir(judges)
