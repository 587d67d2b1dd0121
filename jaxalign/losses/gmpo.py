"""Geometric-mean policy optimization: the clip acts on tokens, the mean on logarithms."""

import jax
import jax.numpy as jnp

from jaxalign.losses.aggregation import SEQUENCE_MEAN
from jaxalign.losses.group_methods import GroupMethod, Surrogate
from jaxalign.numerics.arguments import assert_range, assert_rank, assert_same_shape, flags
from jaxalign.numerics.bounds import ABOVE_ZERO
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.precision import saturating_exp, widen

__all__ = (
    "GMPO",
    "gmpo_loss",
)


def gmpo_loss(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    mask: jax.Array,
    advantages: jax.Array,
    *,
    clip_range: float | tuple[float, float],
) -> jax.Array:
    """The advantage times the geometric mean of the clipped token ratios.

      L_i = -A_i exp( (1 / |y_i|) sum_t clip_A(log r_it) )

    where clip_A bounds log r from above by `high` if A >= 0 and from below by -`low` if A < 0.

    Args:
      logps: `[B, T]` nats under the policy that is trained.
      behaviour_logps: `[B, T]` under the policy that acted; get no gradient.
      mask: `[B, T]` bool, true on response tokens.
      advantages: `[B]`; get no gradient.
      clip_range: bounds of the *logarithm* of a ratio, above 0; one number or (low, high).

    Returns:
      `[B]`, in the unit of the advantages.

    Raises:
      AssertionError: the shapes do not fit, or the mask holds real numbers.
      ValueError: a number outside its range.

    When: outliers among token ratios make GRPO unstable.
    TRL: `GMPOTrainer`.
    Source: Zhao et al. 2025, https://arxiv.org/abs/2507.20673, the GMPO objective.

    >>> zero, mask = jnp.zeros((1, 2)), jnp.ones((1, 2), bool)
    >>> gmpo_loss(zero, zero, mask, jnp.array([2.0]), clip_range=0.4).tolist()
    [-2.0]
    """
    assert_range(ABOVE_ZERO, clip_range=clip_range)
    low, high = clip_range if isinstance(clip_range, tuple) else (clip_range, clip_range)
    assert_rank(2, logps=logps)
    assert_rank(1, advantages=advantages)
    assert_same_shape(logps=logps, behaviour_logps=behaviour_logps, mask=mask)
    mask = flags(mask=mask)
    assert_same_shape(axes=1, logps=logps, advantages=advantages)
    logps, behaviour_logps, advantages = widen(logps, behaviour_logps, advantages)
    advantages = jax.lax.stop_gradient(advantages)
    ratios = logps - jax.lax.stop_gradient(behaviour_logps)
    bounded = jnp.where(
        advantages[:, None] < 0, jnp.maximum(ratios, -low), jnp.minimum(ratios, high)
    )
    lengths = jnp.maximum(jnp.sum(mask, axis=1), 1)
    return -advantages * saturating_exp(masked_sum(bounded, mask, axis=1) / lengths)


def geometric_mean_clipped(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    mask: jax.Array,
    advantages: jax.Array,
    *,
    clip_range: tuple[float, float],
) -> jax.Array:
    """Mask of the tokens whose log-ratio `gmpo_loss` clips: `[B, T]` bool."""
    del mask
    low, high = clip_range
    ratios, signs = logps - behaviour_logps, advantages[:, None]
    return jnp.where(signs < 0, ratios < -low, ratios > high) & (signs != 0)


# log-ratios between -0.4 and 0.4
GMPO = GroupMethod(
    name="gmpo",
    surrogate=Surrogate(
        losses=gmpo_loss,
        formula=gmpo_loss,
        clipped=geometric_mean_clipped,
        one_advantage=True,
        whole=True,
    ),
    hyperparameters={"clip_range": (0.4, 0.4)},
    aggregation=SEQUENCE_MEAN,
)
