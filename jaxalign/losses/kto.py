"""Kahneman-Tversky optimization: labels of single responses, valued against the KL."""

import jax
import jax.numpy as jnp

from jaxalign.losses.declarations import UNPAIRED, Loss
from jaxalign.numerics.arguments import assert_range, assert_same_shape, flags
from jaxalign.numerics.bounds import ABOVE_ZERO
from jaxalign.numerics.collectives import psum
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.precision import widen

__all__ = (
    "KTO",
    "kto_kl",
    "kto_loss",
)


def kto_kl(
    policy_logps: jax.Array,
    reference_logps: jax.Array,
    weights: jax.Array,
    *,
    axis_name: str | None = None,
) -> jax.Array:
    """The reference point of KTO: an estimate of the KL, from responses to *other* prompts.

      z = max(0, mean_i( log pi(y_j | x_i) - log pi_ref(y_j | x_i) )),  j != i

    Pair every prompt with the response of another row (`mismatched_order`). The mean is over the
    whole batch on all devices. No gradient.

    Args:
      policy_logps: `[B]` nats, of the mismatched responses.
      reference_logps: `[B]`, the same under the reference.
      weights: `[B]`, 0 for rows of padding.
      axis_name: mapped axis that the rest of the batch is on, or None.

    Returns:
      `[]` nats, at least 0.

    Raises:
      AssertionError: the shapes differ.

    When: with `kto_loss`.
    TRL: `kl` in `KTOTrainer`.
    Source: Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306, Sec. 4.1, z_0.

    >>> float(kto_kl(jnp.array([1.0, 3.0]), jnp.zeros(2), jnp.ones(2)))
    2.0
    """
    return reference_point(*psum(log_ratio_sums(policy_logps, reference_logps, weights), axis_name))


def log_ratio_sums(
    policy_logps: jax.Array, reference_logps: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sums of log-ratios and of weights, whose quotient is `kto_kl`; they add up over batches."""
    assert_same_shape(policy_logps=policy_logps, reference_logps=reference_logps, weights=weights)
    policy_logps, reference_logps = widen(policy_logps, reference_logps)
    ratios = policy_logps - reference_logps
    return masked_sum(ratios, weights), masked_sum(jnp.ones_like(ratios), weights)


def reference_point(total: jax.Array, weight: jax.Array) -> jax.Array:
    """`kto_kl` from the sums of a whole batch; 0 for one of padding."""
    mean = total / jnp.where(weight == 0, 1, weight)
    return jax.lax.stop_gradient(jnp.maximum(mean, 0))


def kto_loss(
    policy_logps: jax.Array,
    reference_logps: jax.Array,
    labels: jax.Array,
    *,
    beta: float,
    kl: jax.Array | float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> jax.Array:
    """KTO loss: one minus the value that prospect theory gives the gain or loss of a response.

      L = w_good (1 - sigmoid(beta (h - z))) if good,  w_bad (1 - sigmoid(beta (z - h))) if bad

    with h = log(pi / pi_ref) and z = `kl`. Divide by the number of responses, not by the weights.

    Args:
      policy_logps: `[B]` nats, summed over the response.
      reference_logps: `[B]`, under the frozen reference; get no gradient.
      labels: `[B]` bool, true where the response is good.
      beta: risk aversion, 1 over nats, above 0.
      kl: `[]` nats, from `kto_kl`; gets no gradient.
      desirable_weight, undesirable_weight: lambda_D and lambda_U; keep their ratio times that of
        the counts in [1, 4/3].

    Returns:
      `[B]`; half a weight where policy and reference agree and `kl` is 0.

    Raises:
      AssertionError: the shapes differ, or labels are real numbers.
      ValueError: a number outside its range.

    When: labels of single responses (thumbs up, thumbs down), also very uneven ones.
    TRL: `KTOTrainer`.
    Source: Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306, Eq. 8.

    >>> zero = jnp.zeros(2)
    >>> kto_loss(zero, zero, jnp.array([True, False]), beta=0.1, kl=0.0).tolist()
    [0.5, 0.5]
    """
    assert_range(ABOVE_ZERO, beta=beta)
    assert_same_shape(policy_logps=policy_logps, reference_logps=reference_logps, labels=labels)
    labels = flags(labels=labels)
    policy_logps, reference_logps = widen(policy_logps, reference_logps)
    ratios = policy_logps - jax.lax.stop_gradient(reference_logps)
    gains = beta * (ratios - jax.lax.stop_gradient(kl))
    weights = jnp.where(labels, desirable_weight, undesirable_weight)
    return weights * jax.nn.sigmoid(jnp.where(labels, -gains, gains))


KTO = Loss(name="kto", kind=UNPAIRED, function=kto_loss, hyperparameters={"beta": 0.1})
