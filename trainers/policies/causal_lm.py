"""A Hugging Face causal language model as a policy."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from trainers.engines.engine import Decoding
from trainers.engines.selection import sampler
from trainers.errors import TrainingError
from trainers.fitting.log_probs import ResponseLogProbs
from trainers.options import LoRA, Sampling, Training
from trainers.policies.checkpoints import outside_the_language_model, prepare
from trainers.policies.policy import Policy, Prompt, Response, Tokens
from trainers.policies.rendering import encode

ADAPTER = "lora_"
"""In the names of an adapter's weights."""


class CausalLM:
    """A causal language model and its tokenizer.

    Prompts are rendered by the tokenizer's own chat template; without one, text is continued as it is after one BOS.

    Raises:
        ValueError: chat messages are given to a tokenizer without a chat template.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, precision: str = "fp32") -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.precision = precision
        self.template_date = ""
        self.notes: list[str] = []

    @classmethod
    def load(cls, path: str | Path, precision: str = "fp32") -> CausalLM:
        """Load safetensors weights in float32 from a folder or hub id, on a GPU where there is one; with a folder that
        holds an adapter, its base too.
        """
        model: Any = AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.float32, use_safetensors=True)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        notes = prepare(model)
        policy = cls(model.to(device).eval(), AutoTokenizer.from_pretrained(str(path)), precision)
        policy.notes = notes
        return policy

    @classmethod
    def to_train(cls, path: str | Path, training: Training, seed: int) -> CausalLM:
        """Load a policy to train, with the adapter and the gradient checkpointing that `training` sets."""
        policy = cls.load(path, training.precision)
        policy.check_savable()
        if training.lora is not None:
            policy.adapt(training.lora, seed)
        if training.gradient_checkpointing:
            policy.checkpoint_gradients()
        return policy

    def save(self, path: Path, weights: dict[str, Tensor] | None = None) -> None:
        """Write an ordinary Hugging Face checkpoint (safetensors, config, tokenizer); of a policy with an adapter only
        the adapter, as peft does, with the path of its base. `weights` are written where the model holds a shard only.
        """
        self.model.save_pretrained(path, state_dict=weights)
        self.tokenizer.save_pretrained(path)

    def check_savable(self) -> None:
        """Write all of a checkpoint but its weights, and throw it away, so that what cannot be written is found early.

        Raises:
            TrainingError: the config, the generation config or the tokenizer cannot be written.
        """
        model = self.model
        parts = {"config": model.config, "generation config": model.generation_config, "tokenizer": self.tokenizer}
        for name, part in parts.items():
            try:
                with tempfile.TemporaryDirectory() as folder:
                    if part is not None:
                        part.save_pretrained(folder)
            except Exception as error:  # of any library that has a part in it
                raise TrainingError(
                    f"the {name} of {model.name_or_path} cannot be saved, so no policy trained from it could be: "
                    f"{' '.join(str(error).split())[:200]}; mend the checkpoint"
                ) from error

    def copy(self) -> CausalLM:
        """An independent copy to train; the tokenizer and weights that are not trained are shared."""
        shared = {id(weight): weight for weight in self.parameters() if not weight.requires_grad}
        return CausalLM(deepcopy(self.model, shared), self.tokenizer, self.precision)

    @property
    def adapted(self) -> bool:
        """Whether there is a low-rank adapter over the weights."""
        return bool(getattr(self.model, "_hf_peft_config_loaded", False))

    def adapt(self, lora: LoRA, seed: int) -> None:
        """Train an adapter alone: the one the policy was loaded with, or a new one, which changes nothing yet.

        Raises:
            TrainingError: the model has none of the layers that the adapter is for.
        """
        from peft import LoraConfig

        if not self.adapted:
            targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                adapter = LoraConfig(
                    r=lora.r,
                    lora_alpha=lora.alpha,
                    target_modules=targets,
                    exclude_modules=outside_the_language_model(self.model) or None,
                    task_type="CAUSAL_LM",
                )
                try:
                    self.model.add_adapter(adapter)
                except ValueError as error:
                    raise TrainingError(f"training.lora.targets is {targets!r}: {error}") from error
        for name, weight in self.model.named_parameters():
            weight.requires_grad_(ADAPTER in name)

    def without_adapter(self) -> CausalLM:
        """The policy under the adapter: the same weights in memory, the adapter off."""
        shared = {id(weight): weight for name, weight in self.model.named_parameters() if ADAPTER not in name}
        base = CausalLM(deepcopy(self.model, shared), self.tokenizer, self.precision)
        base.model.disable_adapters()
        return base

    def checkpoint_gradients(self) -> None:
        """Recompute layers' activations in the backward pass instead of keeping them.

        Not by transformers' own switch, which only works in training mode, with dropout.

        Raises:
            TrainingError: the model has no layers that transformers can recompute.
        """
        layers = [module for module in self.model.modules() if isinstance(module, GradientCheckpointingLayer)]
        if not layers:
            raise TrainingError(
                f"training.gradient_checkpointing is true and {type(self.model).__name__} has no layers for it; set it "
                "to false"
            )
        for layer in layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)

    def encode(self, prompt: Prompt) -> Tokens:
        tokens, notes = encode(self.tokenizer, prompt, self.template_date)
        self.notes += [note for note in notes if note not in self.notes]
        return tokens

    def sample(
        self,
        prompts: Sequence[Tokens],
        k: int,
        options: Sampling,
        seeds: Sequence[int],
        mix: tuple[Policy, float] | None = None,
    ) -> list[list[Response]]:
        models = [(self.model, 1.0)]
        if mix is not None:
            other, share = mix
            assert isinstance(other, CausalLM), "only two language models can be mixed"
            models = [(self.model, 1 - share), (other.model, share)]
        with self._autocast():
            draw, decoding = sampler(options.engine), self._decoding(options)
            samples = draw([m for m in models if m[1] > 0], prompts, k, decoding, seeds)
        rows = [[self._response(tokens) for tokens in row] for row in samples]
        return [[r.without_thinking() for r in row] for row in rows] if options.strip_thinking else rows

    def log_probs(self, prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> Tensor:
        """As `Policy.log_probs`; only the responses' positions reach the head."""
        scorer = self.scorer
        with self._autocast():
            return scorer(prompts, responses)

    @cached_property
    def scorer(self) -> ResponseLogProbs:
        """The module whose pass gives log-probabilities."""
        return ResponseLogProbs(self.model)

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.model.parameters()

    @property
    def context_length(self) -> int | None:
        """The longest sequence the model takes, tokens; None where its config does not say."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a response: the generation config's and the tokenizer's."""
        configured = getattr(self.model.generation_config, "eos_token_id", None)
        ids = configured if isinstance(configured, list) else [configured]
        return frozenset(i for i in [*ids, self.tokenizer.eos_token_id] if i is not None)

    def state(self) -> Mapping[str, Tensor]:
        return self.model.state_dict()

    def _decoding(self, options: Sampling) -> Decoding:
        return Decoding(
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            batch_size=options.batch_size,
            end_tokens=self.end_tokens,
            precision=self.precision,
            vllm=options.vllm,
        )

    def _response(self, tokens: Tokens) -> Response:
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return Response(tokens, str(text), bool(tokens) and tokens[-1] in self.end_tokens)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.model.device.type, dtype=torch.bfloat16)
