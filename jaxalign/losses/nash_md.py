"""Nash learning from human feedback by mirror descent."""

import jax
import jax.numpy as jnp

from jaxalign.logprobs import log_softmax
from jaxalign.losses.declarations import ONLINE, Loss
from jaxalign.numerics.arguments import assert_range, assert_same_shape
from jaxalign.numerics.bounds import NOT_NEGATIVE, SHARE
from jaxalign.numerics.precision import widen

__all__ = (
    "NASH_MD",
    "mixture_logits",
    "nash_md_loss",
)


def mixture_logits(
    policy_logits: jax.Array, reference_logits: jax.Array, *, mixture: float
) -> jax.Array:
    """Logits of the opponent: the geometric mixture of policy and reference.

      pi'(v) ~ pi(v)^(1 - mixture) pi_ref(v)^mixture

    Args:
      policy_logits, reference_logits: `[..., V]`.
      mixture: weight of the reference, in [0, 1].

    Returns:
      `[..., V]`, unnormalised.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: sampling the opponent of `nash_md_loss`.
    TRL: `GeometricMixtureWrapper`, `mixture_coef`.
    Source: Munos et al. 2023, https://arxiv.org/abs/2312.00886, the regularized policy of Nash-MD.

    >>> import jax.numpy as jnp
    >>> mixed = mixture_logits(jnp.array([0.0, 2.0]), jnp.array([0.0, 0.0]), mixture=0.5)
    >>> print(f"{mixed[1] - mixed[0]:.4f}")
    1.0000
    """
    assert_range(SHARE, mixture=mixture)
    assert_same_shape(policy_logits=policy_logits, reference_logits=reference_logits)
    policy_logits, reference_logits = widen(policy_logits, reference_logits)
    mixed = _scaled(log_softmax(policy_logits), 1 - mixture)
    return mixed + _scaled(log_softmax(reference_logits), mixture)


def _scaled(logps: jax.Array, exponent: float) -> jax.Array:
    """log p^exponent, where 0^0 is 1: what one policy forbids, the other alone may still allow."""
    return exponent * logps if exponent else jnp.zeros_like(logps)


def nash_md_loss(
    policy_logps: jax.Array, reference_logps: jax.Array, preferences: jax.Array, *, beta: float
) -> jax.Array:
    """Policy gradient on the chance to be preferred to the opponent, less a KL penalty.

      L = -log pi(y) sg( P(y > y') - 1/2 - beta log(pi(y) / pi_ref(y)) )

    where sg stops the gradient. The KL is charged in the weight: as a term of the loss, the
    log-ratio of a sample would have an expected gradient of 0.

    Args:
      policy_logps: `[B]` nats, of the policy's own samples.
      reference_logps: `[B]`, the same under the reference; get no gradient.
      preferences: `[B]` in [0, 1], P(the sample beats one of the opponent); get no gradient.
      beta: KL coefficient, tau in the paper, at least 0.

    Returns:
      `[B]`.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: a judge compares, and its preferences need not be transitive.
    TRL: `NashMDTrainer`, where the KL is a term of the loss.
    Source: Munos et al. 2023, https://arxiv.org/abs/2312.00886, the policy gradient of Nash-MD.

    >>> import jax.numpy as jnp
    >>> nash_md_loss(jnp.array([-2.0]), jnp.array([-2.0]), jnp.array([1.0]), beta=0.1).tolist()
    [1.0]
    """
    assert_range(NOT_NEGATIVE, beta=beta)
    assert_same_shape(
        policy_logps=policy_logps, reference_logps=reference_logps, preferences=preferences
    )
    policy_logps, reference_logps, preferences = widen(policy_logps, reference_logps, preferences)
    value = preferences - 0.5 - beta * (policy_logps - reference_logps)
    return -policy_logps * jax.lax.stop_gradient(value)


NASH_MD = Loss(
    name="nash_md",
    kind=ONLINE,
    function=nash_md_loss,
    hyperparameters={"beta": 0.05},
    opponent=0.125,
)
