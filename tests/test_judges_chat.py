"""LLMJudge over local models: in this process, and through a real server, `transformers serve`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_judges import save_chat_model, save_parrot
from transformers_serve import serving

from judges import LLMJudge

PAIR = ["the cat", "an owl"], ["the cat sat", "an owl"], ["a mat", "was wise"]


@pytest.mark.parametrize(
    ("protocol", "word", "value"),
    [
        ("mt-bench", "[[A]]", 1.0),
        ("mt-bench", "[[C]]", 0.5),
        ("arena-hard", "[[B>A]]", 0.25),
        ("arena-hard", "<think>[[A>B]]</think>[[B>>A]]", 0.0),
    ],
)
def test_a_local_models_written_verdict_is_read(tmp_path: Path, protocol: Any, word: str, value: float):
    judge = LLMJudge(save_parrot(tmp_path / "model", word), protocol=protocol, max_tokens=8)
    verdicts = judge.verdicts(*PAIR, both_orders=True)
    assert list(verdicts.status) == ["ok"] * 4
    assert verdicts.preference.tolist() == [value] * 2 + [1 - value] * 2
    assert verdicts.raw == [word] * 4
    assert verdicts.output_tokens.tolist() == [1] * 4


def test_a_local_model_rates_single_answers_and_empty_ones_too(tmp_path: Path):
    judge = LLMJudge(save_parrot(tmp_path / "model", "[[7]]"), protocol="mt-bench", max_tokens=8)
    ratings = judge.rate(["a", "b", "c"], ["the cat", " ", "an owl"], [None, None, ["a mat"]])
    assert ratings.rating.tolist() == [7, 7, 7]
    assert ratings.status == ["ok"] * 3


def test_a_missing_verdict_is_asked_for_once_more_and_both_replies_are_kept(tmp_path: Path):
    judge = LLMJudge(save_parrot(tmp_path / "model", "mat"), protocol="arena-hard", max_tokens=8)
    verdicts = judge.verdicts(*PAIR)
    assert verdicts.status == ["no-verdict"] * 2
    assert verdicts.raw == ["mat\nmat"] * 2
    assert verdicts.output_tokens.tolist() == [2] * 2


def test_generated_text_does_not_depend_on_the_batch_and_cut_or_too_long_ones_fail(tmp_path: Path):
    folder = save_chat_model(tmp_path / "model")
    options: dict[str, Any] = {"protocol": "custom", "template": "{{ first }} {{ second }}", "labels": ("A", "B")}
    texts = ["cat", "the cat sat on a mat", "an owl was wise and an owl was"]
    from judges.protocols.protocol import chat
    from judges.transports.local_chat import LocalChat
    from judges.transports.messages import ChatRequest

    requests = [ChatRequest(chat("", text), max_tokens=6) for text in texts]
    one = LocalChat(folder, None, 1, False).ask(requests, lambda n: None)
    many = LocalChat(folder, None, 16, False).ask(requests, lambda n: None)
    assert [each.text for each in one] == [each.text for each in many]
    assert {each.finish for each in one} == {"length"}
    judge = LLMJudge(folder, **options)
    assert judge.verdicts(["p"], ["cat " * 300], ["b"]).status == ["too-long"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URL of `transformers serve` and the model it serves, whose every reply is "A"."""
    model = save_parrot(tmp_path_factory.mktemp("served") / "model", "A")
    with serving(model) as url:
        yield url, str(model)


@pytest.mark.slow
def test_a_real_server_judges_through_the_openai_client(served: tuple[str, str], tmp_path: Path):
    url, model = served
    n = 24
    texts = ["p"] * n, [f"the cat {i}" for i in range(n)], ["a mat"] * n
    judge = LLMJudge(model, base_url=url, text_verdicts=True, concurrency=4, cache=tmp_path)
    verdicts = judge.verdicts(*texts, both_orders=True)
    assert list(verdicts.status) == ["ok"] * 2 * n
    assert verdicts.preference.tolist() == [1.0] * n + [0.0] * n  # it always says "A"
    assert verdicts.flips().all()
    assert (verdicts.input_tokens > 20).all()
    assert (verdicts.latency > 0).all()
    assert set(verdicts.raw) == {"A"}
    # It gives no log-probabilities, and without leave to read text that is a failure.
    assert set(LLMJudge(model, base_url=url).verdicts(*texts).status) == {"no-logprobs"}
    assert set(LLMJudge(model, base_url=url, protocol="mt-bench", max_tokens=4).verdicts(*texts).status) == {
        "no-verdict"
    }
