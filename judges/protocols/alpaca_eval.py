"""AlpacaEval 2.0's comparison: prompt, labels and decoding are read from the installed alpaca-eval package."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from judges.judge import Question, prompt_text
from judges.protocols.custom import LabelProtocol
from judges.protocols.protocol import OWN, Reading, check_decoding, fill, own_or
from judges.transports.messages import ChatReply, ChatRequest, Message
from judges.verdicts import OK

EVALUATOR = "weighted_alpaca_eval_gpt4_turbo"
TURN = re.compile(r"<\|im_start\|>([^\n]*)\n(.*?)<\|im_end\|>", re.DOTALL)


@dataclass(frozen=True)
class Evaluator:
    """What an evaluator of alpaca-eval asks and how: (role, words) of its turns, the label of the first output and the
    other, and its decoding.
    """

    turns: tuple[tuple[str, str], ...]
    labels: tuple[str, str]
    max_tokens: int
    temperature: float
    top_logprobs: int


@dataclass(frozen=True)
class AlpacaEvalProtocol(LabelProtocol):
    """AlpacaEval 2.0's comparison: the evaluator `weighted_alpaca_eval_gpt4_turbo` of alpaca-eval 0.6.6.

    P(first beats second) = P(m) / (P(m) + P(M)), as `completion_parsers.logprob_parser` computes 2 - preference; a
    label that is not among the listed tokens counts 0, and only the bare label counts. Replies without
    log-probabilities fail: the protocol reads no text. Responses are substituted all at once, where
    `utils.make_prompts` would replace a placeholder that a response contains. Which response is placed first is the
    caller's; upstream draws it.

    Args:
        max_tokens, temperature: of a reply; by default the evaluator's. Temperature null: none is sent.

    Raises:
        ValueError: alpaca-eval is not installed, or its evaluator has another form.
    """

    max_tokens: int | None = None
    temperature: float | str | None = OWN

    def __post_init__(self) -> None:
        check_decoding(self.max_tokens, self.temperature)
        _ = self.evaluator  # a missing package is found now

    @cached_property
    def evaluator(self) -> Evaluator:
        """The evaluator of the installed package."""
        return installed()

    @property
    def labels(self) -> tuple[str, str]:  # type: ignore[override]
        return self.evaluator.labels

    def described(self) -> Any:
        return asdict(self.evaluator)

    def preference(self, top: Sequence[tuple[str, float]]) -> tuple[float, str]:
        weights = [math.fsum(math.exp(value) for token, value in top if token == label) for label in self.labels]
        total = math.fsum(weights)
        return (weights[0] / total, OK) if 0 < total < math.inf else (math.nan, "no-label")

    def read(self, reply: ChatReply, question: Question) -> Reading:
        reading = super().read(reply, question)
        one_sided = reading.status == OK and not {*self.labels} <= {token for token, _ in reply.top or ()}
        return replace(reading, one_sided=one_sided)

    def request(self, question: Question) -> ChatRequest:
        values = {
            "instruction": prompt_text(question.prompt),
            "output_1": question.first,
            "output_2": question.second,
        }
        evaluator = self.evaluator
        messages: list[Message] = [
            {"role": role, "content": fill(content, values)} for role, content in evaluator.turns
        ]
        return ChatRequest(
            messages,
            self.max_tokens or evaluator.max_tokens,
            own_or(self.temperature, evaluator.temperature),
            evaluator.labels,
            evaluator.top_logprobs,
        )


def installed() -> Evaluator:
    """The evaluator of the installed package, which is not imported.

    Raises:
        ValueError: alpaca-eval is not installed, or its evaluator has another form.
    """
    configs = _configs()
    try:
        config = yaml.safe_load((configs / EVALUATOR / "configs.yaml").read_text(encoding="utf-8"))[EVALUATOR]
        prompt = (configs / config["prompt_template"]).read_text(encoding="utf-8")
        options = config["completions_kwargs"]
        return Evaluator(
            turns=tuple((role.strip(), content.strip()) for role, content in TURN.findall(prompt)),
            labels=_labels(config["completion_parser_kwargs"]),
            max_tokens=int(options["max_tokens"]),
            temperature=float(options["temperature"]),
            top_logprobs=int(options["top_logprobs"]),
        )
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"the installed alpaca-eval has no evaluator {EVALUATOR} in the form of 0.6.6 ({error}); "
            "install alpaca-eval==0.6.6"
        ) from error


def _configs() -> Path:
    spec = find_spec("alpaca_eval")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("protocol 'alpaca-eval' reads its prompt from alpaca-eval: pip install alpaca-eval==0.6.6")
    return Path(spec.submodule_search_locations[0]) / "evaluators_configs"


def _labels(options: dict[str, Any]) -> tuple[str, str]:
    """The label of the first output (the numerator) and the other one."""
    first = options["numerator_token"]
    (other,) = {*options["denominator_tokens"]} - {first}
    return first, other
