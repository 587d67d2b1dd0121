"""Batches of policy gradients: decisions with their values, responses with their groups."""

from typing import Any

import jax

from jaxalign.batches.tokens import SharedPrompts, TokenBatch, pytree

__all__ = (
    "Experience",
    "ResponseBatch",
)


@pytree
class Experience:
    """Decisions of the behaviour policy with what PPO needs to learn from them, in any domain.

    inputs: what the policy reads; a `TokenBatch` for text, `[B, T, ...]` observations or images
      otherwise.
    actions: `[B, T]` int32 decisions (for text: the tokens).
    mask: `[B, T]` bool, true where a decision was made.
    behaviour_logps: `[B, T]` log-probability of the action under the policy that took it.
    values: `[B, T]` value predictions at the time of acting.
    advantages, returns: `[B, T]` estimates and value targets.
    index: `[B]` int32 global example index.
    """

    inputs: Any
    actions: jax.Array
    mask: jax.Array
    behaviour_logps: jax.Array
    values: jax.Array
    advantages: jax.Array
    returns: jax.Array
    index: jax.Array


@pytree
class ResponseBatch:
    """Sampled responses with what a policy gradient without value function learns from.

    inputs: `TokenBatch`, prompts and responses, `[B, T]`; or `SharedPrompts` with K responses in a
      row: then what is `[B, T]` below is `[B, K, R]`, and `[B]` of responses `[B, K]`.
    mask: `[B, T]` bool, true on the tokens that loss and divisor count: those of the response, none
      of a response that is left out.
    behaviour_logps: `[B, T]` nats of the tokens under the policy that sampled, as the trainer
      computes them.
    reference_logps: `[B, T]` nats under the frozen reference policy.
    advantages: `[B]` of the responses, or `[B, T]` of the tokens.
    weights: `[B, T]` factors of the policy loss: importance weights, 0 where a token is not
      trained.
    index: `[B]` int32 global example index of the row.
    """

    inputs: TokenBatch | SharedPrompts
    mask: jax.Array
    behaviour_logps: jax.Array
    reference_logps: jax.Array
    advantages: jax.Array
    weights: jax.Array
    index: jax.Array
