"""How vLLM's engine is started, as `sampling.vllm` spells it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NO_RESULT = Field(json_schema_extra={"in_key": False})
Positive = Annotated[int, Field(ge=1, strict=True)]


class VLLMOptions(BaseModel):
    """Options of the engine that vLLM alone has.

    Attributes:
        dtype: of weights and computation; `auto` is what `training.precision` says.
        quantization: how vLLM quantises the weights it is handed, such as `fp8`; None does not.
        gpu_memory: share of each GPU's memory for weights and cache: the policy itself is on the GPU as well.
        tensor_parallel: GPUs that one engine is cut over.
        max_model_len: longest prompt and response, tokens. None: what the prompts at hand need; a later batch that
            needs more starts the engine anew.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dtype: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    quantization: Annotated[str, Field(min_length=1)] | None = None
    gpu_memory: Annotated[float, Field(gt=0, le=1), NO_RESULT] = 0.45
    tensor_parallel: Annotated[Positive, NO_RESULT] = 1
    max_model_len: Annotated[Positive | None, NO_RESULT] = None
