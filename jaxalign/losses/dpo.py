"""Direct Preference Optimization, with two ways to allow for wrong labels."""

import chex
import jax

from jaxalign.batches import PairLogps
from jaxalign.precision import widen


def implicit_rewards(policy: PairLogps, reference: PairLogps, *, beta: float) -> PairLogps:
    """The rewards for which the policy would be optimal, up to a constant of the prompt.

      r(x, y) = beta (log pi(y | x) - log pi_ref(y | x))

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      beta: reward units per nat, above 0.

    Returns:
      `[B]` reward units a side.

    Raises:
      AssertionError: the shapes differ.

    Source: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, Eq. 5 (without beta log Z).

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> start = PairLogps(chosen=jnp.array([-3.0]), rejected=jnp.array([-1.0]))
    >>> rewards = implicit_rewards(pair, start, beta=0.5)
    >>> rewards.chosen.tolist(), rewards.rejected.tolist()
    ([1.0], [-0.5])
    """
    arrays = [policy.chosen, policy.rejected, reference.chosen, reference.rejected]
    chex.assert_equal_shape(arrays)
    chosen, rejected, reference_chosen, reference_rejected = widen(*arrays)
    return PairLogps(
        chosen=beta * (chosen - jax.lax.stop_gradient(reference_chosen)),
        rejected=beta * (rejected - jax.lax.stop_gradient(reference_rejected)),
    )


def _log_likelihoods(policy: PairLogps, reference: PairLogps, beta: float):
    """log sigmoid of the reward margin, and of its negative: the label right, the label flipped."""
    rewards = implicit_rewards(policy, reference, beta=beta)
    margin = rewards.chosen - rewards.rejected
    return -jax.nn.softplus(-margin), -jax.nn.softplus(margin)


def dpo_loss(
    policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float = 0.0
) -> jax.Array:
    """The DPO loss: logistic regression on the difference of implicit rewards.

      L = -(1 - e) log sigmoid(u) - e log sigmoid(-u),  u = r_chosen - r_rejected

    with r = beta log(pi / pi_ref) and e = `label_smoothing`; e > 0 is conservative DPO (cDPO).

    Args:
      policy: `[B]` nats a side, *summed* over the response (not averaged).
      reference: the same under the frozen reference; gets no gradient.
      beta: strength of the pull towards the reference, above 0.
      label_smoothing: assumed share of flipped labels, in [0, 0.5).

    Returns:
      `[B]` nats; log 2 where policy and reference agree.

    Raises:
      AssertionError: the shapes differ.
      ValueError: `label_smoothing` outside [0, 0.5).

    Source: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, Eq. 7; smoothing: Mitchell
      2023, https://ericmitchell.ai/cdpo.pdf, the conservative loss.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> print(dpo_loss(pair, pair, beta=0.1).round(4))  # log 2
    [0.6931]
    """
    _check_smoothing(label_smoothing)
    right, flipped = _log_likelihoods(policy, reference, beta)
    return -(1 - label_smoothing) * right - label_smoothing * flipped


def robust_dpo_loss(
    policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float
) -> jax.Array:
    """An unbiased estimate of the clean-label DPO loss from labels flipped at a known rate.

      L = (-(1 - e) log sigmoid(u) + e log sigmoid(-u)) / (1 - 2 e),  u = r_chosen - r_rejected

    Unlike `dpo_loss` it is unbounded below as u grows.

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      beta: strength of the pull towards the reference, above 0.
      label_smoothing: e, the known share of flipped labels, in [0, 0.5).

    Returns:
      `[B]` nats.

    Raises:
      AssertionError: the shapes differ.
      ValueError: `label_smoothing` outside [0, 0.5).

    Source: Chowdhury et al. 2024, https://arxiv.org/abs/2403.00409, the rDPO loss.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> print(robust_dpo_loss(pair, pair, beta=0.1, label_smoothing=0.2).round(4))  # log 2
    [0.6931]
    """
    _check_smoothing(label_smoothing)
    right, flipped = _log_likelihoods(policy, reference, beta)
    return (-(1 - label_smoothing) * right + label_smoothing * flipped) / (1 - 2 * label_smoothing)


def _check_smoothing(label_smoothing: float):
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5), got {label_smoothing}")
