"""Policies side by side in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.specs import Checkpoint
from harness.stages.context import Context

if TYPE_CHECKING:
    from trainers.policies.causal_lm import CausalLM


def beside(policy: CausalLM, context: Context, other: Checkpoint, precision: str) -> CausalLM:
    """A frozen policy; the one that lies under the policy's adapter is not held twice."""
    if policy.adapted and policy.model.name_or_path == context.policy_path(other):
        return policy.without_adapter()
    return context.policy(other, precision)
