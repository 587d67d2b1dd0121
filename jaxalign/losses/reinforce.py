"""REINFORCE: the policy gradient itself, and its form for whole responses."""

import jax
import jax.numpy as jnp

from jaxalign.advantages import LEAVE_ONE_OUT
from jaxalign.kl import K1
from jaxalign.logprobs import sequence_logps
from jaxalign.losses.aggregation import SEQUENCE_MEAN, SEQUENCE_SUM
from jaxalign.losses.group_methods import GroupMethod, Surrogate
from jaxalign.losses.ppo import ClipRange, ppo_policy_clipped, ppo_policy_loss
from jaxalign.numerics.arguments import assert_same_shape
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.precision import widen

__all__ = (
    "RLOO",
    "REINFORCE",
    "reinforce_loss",
    "rloo_loss",
)


def reinforce_loss(logps: jax.Array, advantages: jax.Array) -> jax.Array:
    """The loss whose gradient is the policy gradient.

      L = -A log pi(a)

    Args:
      logps: `[...]` nats, of actions that the policy itself took.
      advantages: `[...]`, returns less any baseline that does not depend on the action; get no
        gradient.

    Returns:
      `[...]`, nats times the unit of the advantages.

    Raises:
      AssertionError: the shapes differ.

    When: one update from each batch of samples; REINFORCE++ and ReMax are advantages for it.
    TRL: not there (`RLOOTrainer` clips ratios).
    Source: Williams 1992, https://doi.org/10.1007/BF00992696, Eq. 3.

    >>> import jax.numpy as jnp
    >>> reinforce_loss(jnp.array([-1.0]), jnp.array([2.0])).tolist()
    [2.0]
    """
    assert_same_shape(logps=logps, advantages=advantages)
    logps, advantages = widen(logps, advantages)
    return -jax.lax.stop_gradient(advantages) * logps


def rloo_loss(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    mask: jax.Array,
    advantages: jax.Array,
    *,
    clip_range: ClipRange,
) -> jax.Array:
    """The clipped surrogate of whole responses: one action, one ratio.

      L_i = -min(r_i A_i, clip(r_i) A_i),  r_i = exp(sum_t (log pi - log pi_behaviour))

    Args:
      logps: `[B, T]` nats under the policy that is trained.
      behaviour_logps: `[B, T]` under the policy that acted; get no gradient.
      mask: `[B, T]` bool, true on response tokens.
      advantages: `[B]`, from `leave_one_out_advantages`; get no gradient.
      clip_range: above 0; one number for both sides or (low, high).

    Returns:
      `[B]`, in the unit of the advantages.

    Raises:
      AssertionError: the shapes do not fit, or the mask holds real numbers.
      ValueError: a number outside its range.

    When: several responses a prompt and no value model.
    TRL: `RLOOTrainer`.
    Source: Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740, Sec. 3.2 (RLOO).

    >>> import jax.numpy as jnp
    >>> zero, mask = jnp.zeros((1, 2)), jnp.ones((1, 2), bool)
    >>> rloo_loss(zero, zero, mask, jnp.array([2.0]), clip_range=0.2).tolist()
    [-2.0]
    """
    assert_same_shape(logps=logps, behaviour_logps=behaviour_logps, mask=mask)
    assert_same_shape(axes=1, logps=logps, advantages=advantages)
    summed, behaviour = sequence_logps(logps, mask), sequence_logps(behaviour_logps, mask)
    return ppo_policy_loss(summed, behaviour, advantages, clip_range=clip_range)


def response_clipped(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    mask: jax.Array,
    advantages: jax.Array,
    *,
    clip_range: ClipRange,
) -> jax.Array:
    """Mask of the tokens of responses on which the clip of `rloo_loss` acts: `[B, T]` bool."""
    summed, behaviour = (masked_sum(x, mask, axis=1) for x in (logps, behaviour_logps))
    clipped = ppo_policy_clipped(summed, behaviour, advantages, clip_range=clip_range)
    return jnp.broadcast_to(clipped[:, None], mask.shape)


def plain(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    mask: jax.Array,
    advantages: jax.Array,
) -> jax.Array:
    """`reinforce_loss` as a surrogate, which knows no ratio: `[B, T]`."""
    del behaviour_logps, mask
    return reinforce_loss(logps, advantages)


# Eq. 8 of the RLOO paper; KL in the reward. The clip, which its single update from a batch does not
# need, and the coefficient are TRL's.
RLOO = GroupMethod(
    name="rloo",
    surrogate=Surrogate(
        losses=rloo_loss,
        formula=rloo_loss,
        clipped=response_clipped,
        one_advantage=True,
        one_ratio=True,
        whole=True,
    ),
    hyperparameters={"clip_range": (0.2, 0.2)},
    aggregation=SEQUENCE_MEAN,
    advantages=LEAVE_ONE_OUT,
    kl_coef=0.05,
    kl_in="reward",
    kl_estimator=K1,
)
# Williams 1992, with the baseline of RLOO
REINFORCE = GroupMethod(
    name="reinforce",
    surrogate=Surrogate(losses=plain, formula=reinforce_loss, uses_ratios=False),
    aggregation=SEQUENCE_SUM,
    advantages=LEAVE_ONE_OUT,
)
