"""PairRM, the pairwise ranker of LLM-Blender, in plain transformers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from judges.errors import JudgeError
from judges.judge import Question, prompt_text
from judges.kinds.checkpoint import CheckpointJudge, batches, check_batch_size, read_config
from judges.verdicts import Answer


@dataclass(eq=False)
class PairRMJudge(CheckpointJudge):
    """PairRM (arXiv 2306.02561) or a ranker trained in its layout: both responses are read together.

    P(first beats second) = sigmoid of the mean over tasks of s(source, first) - s(source, second). It may be
    intransitive and differs a little with the order. Loads `llm-blender/PairRM-hf`, LLM-Blender's original layout, and
    what `train_judge("pairrm", ...)` writes. Texts beyond the limits are cut at the end, as upstream does, and marked
    `truncated`. The code that comes with a checkpoint is never run.

    Args:
        model, revision, batch_size: as `CheckpointJudge`.
        source_max_length, candidate_max_length: tokens of the prompt and of each response; what the prompt leaves free
            goes to the responses.
    """

    source_max_length: int = 1224
    candidate_max_length: int = 412
    kind: ClassVar[str] = "PairRM"

    def __post_init__(self) -> None:
        check_batch_size(self.batch_size)
        if self.trust_remote_code:
            raise ValueError("PairRM runs no code from checkpoints: leave trust_remote_code off")
        if min(self.source_max_length, self.candidate_max_length) < 8:
            raise ValueError(
                "source_max_length and candidate_max_length must be at least 8 tokens, "
                f"got {self.source_max_length} and {self.candidate_max_length}"
            )
        config = read_config(self.model)
        if config is not None and not ({"ranker_type", "source_prefix_id"} & config.keys()):
            raise ValueError(f"judge model {str(self.model)!r} is no PairRM: config.json has no source_prefix_id")

    @cached_property
    def ranker(self) -> tuple[Any, Any]:
        """The network on its device and its tokenizer, loaded when first asked for."""
        import torch

        from judges.training.ranker import load_ranker

        network, tokenizer = load_ranker(self._folder())
        return network.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer

    def read(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        import torch

        from judges.training.ranker import encode_pair, rank

        started = time.perf_counter()
        network, tokenizer = self.ranker
        limits = (self.source_max_length, self.candidate_max_length)
        encoded = [encode_pair(tokenizer, prompt_text(q.prompt), q.first, q.second, limits) for q in questions]
        logits = np.empty(len(questions))
        with torch.inference_mode():
            for batch in batches([len(ids) for ids, _, _ in encoded], self.batch_size):
                rows, positions = zip(*[encoded[i][:2] for i in batch], strict=True)
                logits[batch] = rank(network, rows, positions, tokenizer.pad_token_id).float().cpu().numpy()
                advance(len(batch))
        latency = (time.perf_counter() - started) / len(questions)
        preference = 0.5 * (1 + np.tanh(logits / 2))
        return [
            Answer(float(p), input_tokens=len(ids), latency=latency, truncated=truncated)
            for p, (ids, _, truncated) in zip(preference, encoded, strict=True)
        ]

    def _folder(self) -> Path:
        if Path(self.model).exists():
            return Path(self.model)
        from huggingface_hub import snapshot_download

        try:
            return Path(
                snapshot_download(
                    str(self.model), revision=self.revision, allow_patterns=["*.json", "*.model", "*.safetensors"]
                )
            )
        except (OSError, ValueError) as error:
            raise JudgeError(
                f"judge model {str(self.model)!r} is no folder and cannot be fetched from the hub"
            ) from error
