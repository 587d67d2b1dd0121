"""What travels into a step: frozen pytrees of arrays whose first axis is the (global) batch.

Masks are boolean and say what is *real*: nothing is ever inferred from a token id. Rows of padding
(to make a batch divisible) have all-zero masks and weight nothing.
"""

import dataclasses
from typing import Any, dataclass_transform

import jax


@dataclass_transform(frozen_default=True, kw_only_default=True)
def pytree(cls):
    """Class decorator: a frozen, keyword-only dataclass that jax treats as a pytree of its
    fields.
    """
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, kw_only=True)(cls))


@pytree
class TokenBatch:
    """Token sequences: prompt, then response; padding may stand on either side.

    tokens: `[B, T]` int32 ids.
    prompt_mask: `[B, T]` bool, true where the token belongs to the prompt.
    response_mask: `[B, T]` bool, true where the token belongs to the response (what is trained on).
    index: `[B]` int32 global example index; noise (dropout, sampling) is folded from it.
    """

    tokens: jax.Array
    prompt_mask: jax.Array
    response_mask: jax.Array
    index: jax.Array

    @property
    def mask(self) -> jax.Array:
        """`[B, T]` bool: true on every real token."""
        return self.prompt_mask | self.response_mask


@pytree
class PackedBatch:
    """Several texts a row, one behind the other; a token sees those of its own text alone.

    tokens, prompt_mask, response_mask: `[B, T]` as in `TokenBatch`; padding stands on the right.
    segments: `[B, T]` int32, number of a token's text in its row, from 0 on; padding has that of
      the last text.
    index: `[B, S]` int32 global example index of each text, S of them in the fullest row; noise is
      folded from it.
    """

    tokens: jax.Array
    prompt_mask: jax.Array
    response_mask: jax.Array
    segments: jax.Array
    index: jax.Array

    @property
    def mask(self) -> jax.Array:
        """`[B, T]` bool: true on every real token."""
        return self.prompt_mask | self.response_mask


@pytree
class SharedPrompts:
    """Prompts with K responses to each: the network reads a prompt once for all of them.

    prompts: `[B, P]` int32, what the K sequences of a row begin with.
    prompt_mask: `[B, P]` bool, true on real tokens; padding may stand on either side.
    responses: `[B, K, R]` int32, how each goes on, from column 0 on.
    mask: `[B, K, R]` bool, true on real tokens.
    response_mask: `[B, K, R]` bool, true on those that are trained on.
    index: `[B]` int32 global example index; noise is folded from it.
    """

    prompts: jax.Array
    prompt_mask: jax.Array
    responses: jax.Array
    mask: jax.Array
    response_mask: jax.Array
    index: jax.Array


@pytree
class PairLogps:
    """Two `[B]` arrays of summed response log-probabilities in nats, one a side of the pair."""

    chosen: jax.Array
    rejected: jax.Array


@pytree
class PairLengths:
    """Two `[B]` arrays of response lengths in tokens, one a side of the pair."""

    chosen: jax.Array
    rejected: jax.Array


@pytree
class PreferenceBatch:
    """Pairs of responses to one prompt.

    chosen, rejected: `TokenBatch` of the two sides, both `[B, T]`.
    reference: `PairLogps` under the frozen reference policy, or None for reference-free losses.
    weights: `[B]` float32, 1 for a real pair, 0 for a row of padding.
    gold: a third, best response to the same prompt, or None for losses on pairs alone.
    """

    chosen: TokenBatch
    rejected: TokenBatch
    reference: PairLogps | None
    weights: jax.Array
    gold: TokenBatch | None = None


@pytree
class SharedPreferenceBatch:
    """Pairs of responses whose prompts are read once; the same loss as a `PreferenceBatch`.

    sides: `SharedPrompts` with chosen, rejected and perhaps gold as the K responses.
    reference, weights: as in `PreferenceBatch`.
    """

    sides: SharedPrompts
    reference: PairLogps | None
    weights: jax.Array


@pytree
class UnpairedBatch:
    """Single responses, each with whether it was good.

    responses: `TokenBatch`, `[B, T]`.
    labels: `[B]` bool, true for a desirable response.
    reference: `[B]` summed response log-probabilities under the frozen reference policy, in nats.
    weights: `[B]` float32, 1 for a real row, 0 for a row of padding.
    mismatched: the same prompts with responses to other prompts, or None for losses without.
    mismatched_reference: `[B]`, their log-probabilities under the reference, or None.
    """

    responses: TokenBatch
    labels: jax.Array
    reference: jax.Array
    weights: jax.Array
    mismatched: TokenBatch | None = None
    mismatched_reference: jax.Array | None = None


@pytree
class Judged:
    """Sampled responses with what frozen models say of them.

    responses: `TokenBatch`, `[B, T]`.
    scores: `[B]` of the judge, in its units.
    reference: `[B]` summed response log-probabilities under the frozen reference, in nats.
    """

    responses: TokenBatch
    scores: jax.Array
    reference: jax.Array


@pytree
class OnlineBatch:
    """Two fresh responses to every prompt.

    first: `Judged` samples of the policy itself.
    second: `Judged` samples of its opponent: the policy again, the reference, or a mixture.
    weights: `[B]` float32, 1 for a real row, 0 for a row of padding.
    """

    first: Judged
    second: Judged
    weights: jax.Array


@pytree
class DistillationBatch:
    """Responses with what the teacher would have said in their place, token by token.

    rows: `TokenBatch`, `[B, T]`.
    teacher_logits: `[B, T, V]` float32 of the frozen teacher; entry t predicts tokens[t + 1].
    """

    rows: TokenBatch
    teacher_logits: jax.Array


@pytree
class ComparisonBatch:
    """Groups of K texts that people compared with each other (K = 2 is the ordinary pair).

    texts: `TokenBatch` whose arrays carry one more axis, `[G, K, T]` (index: `[G, K]`).
    preferences: `[G, K, K]` float32; entry i, j is the share (or number) of people who preferred
      text i to text j; 0 where nobody compared them; the diagonal is 0.
    margins: `[G, K, K]` float32, by how much i should beat j, in reward units (0 when not known).
    """

    texts: TokenBatch
    preferences: jax.Array
    margins: jax.Array


@pytree
class RankingBatch:
    """Up to K responses to each prompt, the best first; rows may have fewer.

    texts: `TokenBatch` whose arrays carry one more axis, `[B, K, T]` (index: `[B, K]`).
    mask: `[B, K]` bool, true where there is a response; a row of fewer than two weighs nothing.
    """

    texts: TokenBatch
    mask: jax.Array


@pytree
class StepBatch:
    """Solutions in steps, each labelled right or wrong.

    texts: `TokenBatch`, `[B, T]`; its response_mask is true at the last token of each step alone.
    labels: `[B, T]` float32 in [0, 1], read where that mask is true.
    """

    texts: TokenBatch
    labels: jax.Array


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
