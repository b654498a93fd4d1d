"""The options of sampling and of training, as a config spells them. Unknown keys are errors."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainers.engines.engine import EngineName
from trainers.engines.vllm_options import VLLMOptions

Positive = Annotated[int, Field(ge=1, strict=True)]
NO_RESULT = Field(json_schema_extra={"in_key": False})
"""Marks an option that changes speed, memory or rounding and no law: it is no part of what names a result."""
Label = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^\S(.*\S)?$")]
"""What people call a policy or a component: one line, no space at its ends."""


class Options(BaseModel):
    """A frozen group of options."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Sampling(Options):
    """How responses are drawn.

    Attributes:
        k: responses a prompt on the refit schedule (a stream draws one pair a prompt).
        temperature: applied to every model before a mixture is taken.
        top_p: nucleus kept; 1 keeps all.
        max_tokens: longest response, tokens.
        strip_thinking: responses go without their thinking blocks (`trainers.thinking`) to whoever reads them: the
            judge that trains, a later turn of a conversation, and every board. The tokens trained on keep them.
        engine: `transformers`, or `vllm` where it is installed (no mixtures).
        batch_size: sequences that are decoded at once; vLLM schedules its own.
        vllm: how vLLM's engine is started.
    """

    k: Annotated[int, Field(ge=2, strict=True)] = 8
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Positive = 64
    strip_thinking: bool = False
    engine: EngineName = "transformers"
    batch_size: Annotated[Positive, NO_RESULT] = 1024
    vllm: VLLMOptions = VLLMOptions()

    @model_validator(mode="after")
    def _own_options(self) -> Self:
        if self.vllm != VLLMOptions() and self.engine != "vllm":
            raise ValueError(f"vllm is given and engine is {self.engine!r}; set engine: vllm, or leave it out")
        return self


def is_openai(url: str) -> bool:
    """Whether the host is OpenAI's own."""
    return urlsplit(url).hostname == "api.openai.com"


class Endpoint(Options):
    """A policy behind an OpenAI-compatible endpoint: evaluated, never trained.

    Attributes:
        endpoint: the URL, such as http://localhost:8000/v1, without user, password, query or fragment.
        model: the endpoint's name for it.
        api_key_env: environment variable that holds the key; the key itself is never an option.
        concurrency: calls in flight, for each stage at work.
        timeout: seconds without a sign of an answer.
        max_retries: further tries of a call, as the `openai` client makes them.
        label: what cells and tables call it, in place of the model's name.
    """

    endpoint: str
    model: Annotated[str, Field(min_length=1)]
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: Positive = 16
    timeout: Annotated[float, Field(gt=0)] = 600.0
    max_retries: Annotated[int, Field(ge=0, strict=True)] = 3
    label: Label | None = None

    @model_validator(mode="after")
    def _without_secrets(self) -> Self:
        # Of the whole, not of a key: an error about a key shows its value.
        try:
            parts = urlsplit(self.endpoint)
            _ = parts.port  # checked as it is read
        except ValueError:  # whose words show what it cannot read
            raise ValueError("endpoint has a wrong host or port; write it as http://localhost:8000/v1") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("endpoint must begin with http:// or https:// and name a host")
        if parts.username or parts.password or set("?#") & set(self.endpoint):
            raise ValueError("endpoint must carry no user, password, query or fragment; the key comes from api_key_env")
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_env):
            raise ValueError("api_key_env must be the name of an environment variable, in capitals, never a key itself")
        return self

    def __str__(self) -> str:
        return self.model

    @property
    def api_key(self) -> str:
        """The key without space around it, such as a file's last newline; empty where there is none."""
        return os.environ.get(self.api_key_env, "").strip()

    @property
    def official(self) -> bool:
        """Whether it is OpenAI's own."""
        return is_openai(self.endpoint)


class LoRA(Options):
    """A low-rank adapter, trained in place of the weights (arXiv 2106.09685). It has no dropout: a policy is to be its
    own reference at step 0.

    Attributes:
        r: rank.
        alpha: the adapter is scaled by alpha / r.
        targets: names of the linear layers that have one; `all-linear` is all but the head.
    """

    r: Positive = 16
    alpha: Positive = 32
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class Training(Options):
    """How a policy is fitted.

    Attributes:
        lr: peak learning rate; on games, the gradient step of the stream schedule.
        optimizer: `adamw`, `rmsprop` (SPPO's code) or `adafactor` (IPO-MD's paper), none with weight decay.
        schedule: of the learning rate, after the warm-up.
        warmup: share of all steps over which the learning rate rises.
        epochs: passes over an iteration's pairs (refit schedule without `steps_per_iteration`).
        batch_size: pairs an optimiser step.
        micro_batch_size: pairs in memory at once; gradients accumulate. None: the whole batch.
        max_length: prompt and response, tokens; a longer response is cut and counted.
        precision: bf16 computes under autocast over float32 weights; log-probabilities are float32 in both.
        steps_per_iteration: optimiser steps of a stream's iteration, or of each fit of a refit's, which cycles over its
            pairs however many there are. None: as many as pass once over a stream's prompts; `epochs` of a refit.
        max_grad_norm: the gradient is clipped to this norm.
        gradient_checkpointing: layers' inner values are computed again in the backward pass, not kept.
        lora: a low-rank adapter is trained in place of the weights, the same one in all iterations.
        accelerate: path of an accelerate config file; fits then run in the processes it asks for.
    """

    lr: Annotated[float, Field(gt=0)] = 5e-7
    optimizer: Literal["adamw", "rmsprop", "adafactor"] = "adamw"
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    epochs: Positive = 1
    batch_size: Positive = 128
    micro_batch_size: Annotated[Positive | None, NO_RESULT] = None
    max_length: Annotated[int, Field(ge=2, strict=True)] = 2048
    precision: Literal["bf16", "fp32"] = "bf16"
    steps_per_iteration: Positive | None = None
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    gradient_checkpointing: Annotated[bool, NO_RESULT] = False
    lora: LoRA | None = None
    accelerate: Annotated[str | None, NO_RESULT] = None
