"""Group relative policy optimization: the clipped surrogate and a KL term, token by token."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxalign.losses.aggregation import SEQUENCE_MEAN
from jaxalign.losses.group_methods import GroupMethod, Surrogate
from jaxalign.losses.ppo import ClipRange, ppo_policy_clipped, ppo_policy_loss
from jaxalign.numerics.arguments import assert_rank, assert_same_shape
from jaxalign.numerics.precision import widen

__all__ = (
    "GRPO",
    "each_token",
    "grpo_loss",
)


def each_token(advantages: jax.Array, logps: jax.Array) -> jax.Array:
    """The advantage of a response at each of its tokens.

      A_it = A_i

    Args:
      advantages: `[B]`.
      logps: `[B, T]`, for the shape.

    Returns:
      `[B, T]`.

    Raises:
      AssertionError: the shapes do not fit.

    When: a loss on tokens, an advantage for the whole response.
    TRL: `advantages.unsqueeze(1)`.
    Source: Shao et al. 2024, https://arxiv.org/abs/2402.03300, Sec. 4.1.2.

    >>> each_token(jnp.array([2.0]), jnp.zeros((1, 2))).tolist()
    [[2.0, 2.0]]
    """
    assert_rank(1, advantages=advantages)
    assert_rank(2, logps=logps)
    assert_same_shape(axes=1, advantages=advantages, logps=logps)
    (advantages,) = widen(advantages)
    return jnp.broadcast_to(advantages[:, None], logps.shape)


def grpo_loss(
    logps: jax.Array,
    behaviour_logps: jax.Array,
    advantages: jax.Array,
    kl: jax.Array,
    *,
    clip_range: ClipRange,
    kl_coef: float,
    dual_clip: float | None = None,
) -> jax.Array:
    """The clipped surrogate loss of each token plus its KL penalty.

      L_it = -min(r_it A_i, clip(r_it) A_i) + kl_coef kl_it

    GRPO, Dr. GRPO, DAPO and BNPO have this loss and differ in advantages (`grpo_advantages`,
    `centred_advantages`) and aggregation (`sequence_mean`, `constant_length`, `token_mean`).

    Args:
      logps: `[B, T]` nats under the policy that is trained.
      behaviour_logps: `[B, T]` under the policy that acted; get no gradient.
      advantages: `[B]`, of the responses; get no gradient.
      kl: `[B, T]` nats: `k3`, `k2` or `importance_corrected_k3`. Of tokens none has the gradient of
        the KL of responses; the last comes closest.
      clip_range: above 0; one number for both sides or (low, high).
      kl_coef: weight of the KL, beta in the paper.
      dual_clip: bound of the ratio where the advantage is negative, above 1 + high, or None. It is
        also known as two-sided clipping (Prime Intellect 2025, https://arxiv.org/abs/2505.07291).

    Returns:
      `[B, T]`, in the unit of the advantages.

    Raises:
      AssertionError: the shapes do not fit.
      ValueError: a clip range that is not positive, or a dual clip inside it.

    When: several responses a prompt, rewards that compare them, no value model.
    TRL: `GRPOTrainer`; `delta` for `dual_clip`.
    Source: Shao et al. 2024, https://arxiv.org/abs/2402.03300, Eq. 3.

    >>> zero = jnp.zeros((1, 2))
    >>> grpo_loss(zero, zero, jnp.array([2.0]), zero, clip_range=0.2, kl_coef=0.1).tolist()
    [[-2.0, -2.0]]
    """
    assert_same_shape(logps=logps, behaviour_logps=behaviour_logps, kl=kl)
    repeated, (kl,) = each_token(advantages, logps), widen(kl)
    policy_losses = ppo_policy_loss(
        logps, behaviour_logps, repeated, clip_range=clip_range, dual_clip=dual_clip
    )
    return with_kl_term(policy_losses, kl, kl_coef=kl_coef)


def with_kl_term(losses: jax.Array, kl: jax.Array, *, kl_coef: float) -> jax.Array:
    """Losses of tokens with their KL penalty to the reference: `[B, T]`.

    L_it + kl_coef kl_it
    """
    return losses + kl_coef * kl


Decision = tuple[jax.Array, jax.Array, jax.Array]  # `(logps, behaviour_logps, advantages)`


def clipped_surrogate(
    decision: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], Decision],
    *,
    formula: Callable[..., jax.Array],
    one_advantage: bool = False,
    one_ratio: bool = False,
) -> Surrogate:
    """PPO's clipped loss of each token as a surrogate, with ratios and advantages of a method.

    Args:
      decision: `(logps, behaviour_logps, mask, advantages) -> Decision`, `[B, T]` each: what the
        clip compares.
      formula, one_advantage, one_ratio: as in `Surrogate`.
    """

    def compared_by(clip: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        def clipped_loss(
            logps: jax.Array,
            behaviour_logps: jax.Array,
            mask: jax.Array,
            advantages: jax.Array,
            *,
            clip_range: ClipRange,
            dual_clip: float | None = None,
        ) -> jax.Array:
            compared = decision(logps, behaviour_logps, mask, advantages)
            return clip(*compared, clip_range=clip_range, dual_clip=dual_clip)

        return clipped_loss

    return Surrogate(
        losses=compared_by(ppo_policy_loss),
        formula=formula,
        clipped=compared_by(ppo_policy_clipped),
        one_advantage=one_advantage,
        one_ratio=one_ratio,
    )


TOKEN_CLIP = clipped_surrogate(
    lambda logps, behaviour_logps, mask, advantages: (logps, behaviour_logps, advantages),
    formula=ppo_policy_loss,
)
# KL coefficient of Sec. 4.2, clip range of PPO
GRPO = GroupMethod(
    name="grpo",
    surrogate=TOKEN_CLIP,
    hyperparameters={"clip_range": (0.2, 0.2)},
    aggregation=SEQUENCE_MEAN,
    kl_coef=0.04,
)
