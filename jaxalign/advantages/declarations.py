"""The declaration of advantages without a value function: a formula under a name."""

import dataclasses
from collections.abc import Callable

import jax


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdvantageEstimator:
    """An estimator of the advantages of sampled responses, of responses or of tokens.

    name: after `--grpo.advantages`.
    of_responses: `(scores, lengths, mask) -> [P, G]`, each `[P, G]`: P prompts, G responses each.
    of_tokens: `(rewards, mask, discount) -> [B, T]`, in place of it.
    """

    name: str
    of_responses: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None
    of_tokens: Callable[[jax.Array, jax.Array, float], jax.Array] | None = None
