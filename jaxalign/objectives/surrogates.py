"""The surrogate losses of critic-free policy gradients behind one signature.

Every function here takes `(logps, behaviour_logps, mask, advantages, **hyperparameters)`; the
advantages are `[B]` where the surrogate has one for a response, `[B, T]` otherwise.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxalign.losses.cispo import cispo_loss
from jaxalign.losses.gmpo import gmpo_loss
from jaxalign.losses.grpo import each_token
from jaxalign.losses.gspo import sequence_log_ratios, token_log_ratios
from jaxalign.losses.ppo import ppo_policy_clipped, ppo_policy_loss, probability_ratios
from jaxalign.losses.reinforce import reinforce_loss, rloo_loss
from jaxalign.losses.sapo import sapo_loss
from jaxalign.losses.vespo import vespo_weights
from jaxalign.numerics.masking import masked_sum


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surrogate:
    """A loss whose gradient on policy is the policy gradient.

    losses: gives `[B, T]`, or `[B]` if `whole`.
    clipped: gives `[B, T]` bool, where the clip acts; None: there is none.
    one_advantage: advantages are one a response, `[B]`.
    one_ratio: so are ratios.
    whole: losses are of whole responses.
    uses_ratios: knows how far the policy has moved, so that samples can be used more than once.
    """

    losses: Callable[..., jax.Array]
    clipped: Callable[..., jax.Array] | None = None
    one_advantage: bool = False
    one_ratio: bool = False
    whole: bool = False
    uses_ratios: bool = True


def token_clip(logps, behaviour_logps, mask, advantages, **clip) -> jax.Array:
    """PPO's clipped loss of each token."""
    return ppo_policy_loss(logps, behaviour_logps, advantages, **clip)


def token_clipped(logps, behaviour_logps, mask, advantages, **clip) -> jax.Array:
    """Where `token_clip` is flat."""
    return ppo_policy_clipped(logps, behaviour_logps, advantages, **clip)


def sequence_clip(logps, behaviour_logps, mask, advantages, **clip) -> jax.Array:
    """The same with GSPO's ratio of the response."""
    ratios = sequence_log_ratios(logps, behaviour_logps, mask)
    return ppo_policy_loss(ratios, jnp.zeros_like(ratios), each_token(advantages, logps), **clip)


def sequence_clipped(logps, behaviour_logps, mask, advantages, **clip) -> jax.Array:
    """Where `sequence_clip` is flat."""
    ratios = sequence_log_ratios(logps, behaviour_logps, mask)
    repeated = each_token(advantages, logps)
    return ppo_policy_clipped(ratios, jnp.zeros_like(ratios), repeated, **clip)


def token_of_sequence_clip(logps, behaviour_logps, mask, advantages, **clip) -> jax.Array:
    """The same with the response's ratio and the token's gradient (GSPO-token)."""
    ratios = token_log_ratios(logps, behaviour_logps, mask)
    return ppo_policy_loss(ratios, jnp.zeros_like(ratios), advantages, **clip)


def token_of_sequence_clipped(logps, behaviour_logps, mask, advantages, **clip) -> jax.Array:
    """Where `token_of_sequence_clip` is flat."""
    ratios = token_log_ratios(logps, behaviour_logps, mask)
    return ppo_policy_clipped(ratios, jnp.zeros_like(ratios), advantages, **clip)


def response_clip(logps, behaviour_logps, mask, advantages, *, clip_range) -> jax.Array:
    """`rloo_loss`: the ratio of the whole response, not of its mean token."""
    return rloo_loss(logps, behaviour_logps, mask, advantages, clip_range=clip_range)


def response_clipped(logps, behaviour_logps, mask, advantages, *, clip_range) -> jax.Array:
    """Where `response_clip` is flat, at each token."""
    summed, behaviour = (masked_sum(x, mask, axis=1) for x in (logps, behaviour_logps))
    clipped = ppo_policy_clipped(summed, behaviour, advantages, clip_range=clip_range)
    return jnp.broadcast_to(clipped[:, None], mask.shape)


def capped_weight(logps, behaviour_logps, mask, advantages, *, clip_range) -> jax.Array:
    """`cispo_loss` with bounds from the distances to 1."""
    lowest, highest = _bounds(clip_range)
    return cispo_loss(logps, behaviour_logps, advantages, highest=highest, lowest=lowest)


def weight_capped(logps, behaviour_logps, mask, advantages, *, clip_range) -> jax.Array:
    """Where the weight of `capped_weight` is capped; the gradient is not 0 there."""
    lowest, highest = _bounds(clip_range)
    ratios = probability_ratios(logps, behaviour_logps)
    return (ratios < lowest) | (ratios > highest)


def soft_gate(logps, behaviour_logps, mask, advantages, **temperatures) -> jax.Array:
    """`sapo_loss`."""
    return sapo_loss(logps, behaviour_logps, advantages, **temperatures)


def geometric_mean_clipped(logps, behaviour_logps, mask, advantages, *, clip_range) -> jax.Array:
    """Where a token's log-ratio is bounded in `gmpo_loss`."""
    low, high = clip_range
    ratios, signs = logps - behaviour_logps, advantages[:, None]
    return jnp.where(signs < 0, ratios < -low, ratios > high) & (signs != 0)


def smooth_weight(logps, behaviour_logps, mask, advantages, **shapes) -> jax.Array:
    """`reinforce_loss` with the advantage times `vespo_weights`."""
    weights = vespo_weights(logps, behaviour_logps, mask, advantages, **shapes)
    return reinforce_loss(logps, each_token(weights * advantages, logps))


def plain(logps, behaviour_logps, mask, advantages) -> jax.Array:
    """`reinforce_loss`."""
    return reinforce_loss(logps, advantages)


def _bounds(clip_range: tuple[float, float]) -> tuple[float, float]:
    low, high = clip_range
    return max(1 - low, 0.0), 1 + high


TOKEN_CLIP = Surrogate(losses=token_clip, clipped=token_clipped)
SEQUENCE_CLIP = Surrogate(
    losses=sequence_clip, clipped=sequence_clipped, one_advantage=True, one_ratio=True
)
TOKEN_OF_SEQUENCE_CLIP = Surrogate(
    losses=token_of_sequence_clip, clipped=token_of_sequence_clipped, one_ratio=True
)
RESPONSE_CLIP = Surrogate(
    losses=response_clip, clipped=response_clipped, one_advantage=True, one_ratio=True, whole=True
)
CAPPED_WEIGHT = Surrogate(losses=capped_weight, clipped=weight_capped)
SOFT_GATE = Surrogate(losses=soft_gate)
GEOMETRIC_MEAN = Surrogate(
    losses=gmpo_loss, clipped=geometric_mean_clipped, one_advantage=True, whole=True
)
SMOOTH_WEIGHT = Surrogate(losses=smooth_weight, one_advantage=True)
PLAIN = Surrogate(losses=plain, uses_ratios=False)
