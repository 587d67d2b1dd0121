"""Batches of preference learning: pairs, labelled responses, rankings, labelled steps."""

import jax

from jaxalign.batches.tokens import SharedPrompts, TokenBatch, positional_pytree, pytree

__all__ = (
    "PairLogps",
    "PairLengths",
    "PreferenceBatch",
    "ComparisonBatch",
    "RankingBatch",
    "StepBatch",
)


@positional_pytree
class PairLogps:
    """Two `[B]` arrays of summed response log-probabilities in nats, one a side of the pair."""

    chosen: jax.Array
    rejected: jax.Array


@positional_pytree
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
    """Pairs of responses behind shared prompts; the loss is that of a `PreferenceBatch`.

    sides: `SharedPrompts` with chosen, rejected and perhaps gold as the K responses.
    reference, weights: as in `PreferenceBatch`.
    """

    sides: SharedPrompts
    reference: PairLogps | None
    weights: jax.Array


@pytree
class UnpairedBatch:
    """Single responses, each labelled desirable or not.

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
class ScoredResponses:
    """Sampled responses with their scores and reference log-probabilities.

    responses: `TokenBatch`, `[B, T]`.
    scores: `[B]` of the reward model, in its units.
    reference: `[B]` summed response log-probabilities under the frozen reference, in nats.
    """

    responses: TokenBatch
    scores: jax.Array
    reference: jax.Array


@pytree
class OnlineBatch:
    """Pairs of freshly sampled responses to every prompt.

    first: `ScoredResponses` of the policy itself.
    second: `ScoredResponses` of its opponent: the policy again, the reference, or a mixture.
    weights: `[B]` float32, 1 for a real row, 0 for a row of padding.
    """

    first: ScoredResponses
    second: ScoredResponses
    weights: jax.Array


@pytree
class DistillationBatch:
    """Responses with the teacher's logits at every token.

    rows: `TokenBatch`, `[B, T]`.
    teacher_logits: `[B, T, V]` float32 of the frozen teacher; entry t predicts tokens[t + 1].
    """

    rows: TokenBatch
    teacher_logits: jax.Array


@pytree
class ComparisonBatch:
    """Groups of K texts with the human comparisons among them (K = 2 is the ordinary pair).

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
    """Rankings of up to K responses to each prompt, the best first.

    texts: `TokenBatch` whose arrays carry one more axis, `[B, K, T]` (index: `[B, K]`).
    mask: `[B, K]` bool, true where there is a response; a row of fewer than two weighs nothing.
    """

    texts: TokenBatch
    mask: jax.Array


@pytree
class StepBatch:
    """Solutions whose steps are each labelled right or wrong.

    texts: `TokenBatch`, `[B, T]`; its response_mask is true at the last token of each step alone.
    labels: `[B, T]` float32 in [0, 1], read where that mask is true.
    """

    texts: TokenBatch
    labels: jax.Array
