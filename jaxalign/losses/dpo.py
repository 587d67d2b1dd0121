"""Direct Preference Optimization, with two ways to allow for wrong labels."""

import jax
import jax.numpy as jnp

from jaxalign.batches.preferences import PairLogps
from jaxalign.losses.declarations import PAIRED, Loss
from jaxalign.numerics.arguments import assert_range, assert_same_shape
from jaxalign.numerics.bounds import ABOVE_ZERO, FLIP_PROBABILITY
from jaxalign.numerics.precision import widen

__all__ = (
    "DPO",
    "ROBUST",
    "log_ratios",
    "no_reference",
    "implicit_rewards",
    "dpo_loss",
    "robust_dpo_loss",
)


def log_ratios(policy: PairLogps, reference: PairLogps) -> PairLogps:
    """Log-ratios of policy and reference for each side of a pair, what DPO and its relatives are
    functions of.

      h = log pi(y | x) - log pi_ref(y | x)

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.

    Returns:
      `[B]` nats a side.

    Raises:
      AssertionError: the shapes differ.

    When: to build a loss that is not here.
    TRL: `chosen_logratios`, `rejected_logratios`.
    Source: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, Eq. 5 (without beta).

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> start = PairLogps(chosen=jnp.array([-3.0]), rejected=jnp.array([-1.0]))
    >>> log_ratios(pair, start).chosen.tolist()
    [2.0]
    """
    assert_same_shape(policy=policy, reference=reference)
    arrays = [policy.chosen, policy.rejected, reference.chosen, reference.rejected]
    chosen, rejected, reference_chosen, reference_rejected = widen(*arrays)
    return PairLogps(
        chosen=chosen - jax.lax.stop_gradient(reference_chosen),
        rejected=rejected - jax.lax.stop_gradient(reference_rejected),
    )


def no_reference(policy: PairLogps) -> PairLogps:
    """Log-probabilities of the uniform reference, with which any loss is reference-free.

    Only differences of reference log-probabilities count in DPO, so zeros are the uniform reference
    there; in losses of each side (NCA, BCO, APO, SPPO) they set the level that rewards start at.

    Args:
      policy: `[B]` nats a side.

    Returns:
      Zeros of the same shape.

    Raises:
      AssertionError: the shapes differ.

    When: there is no memory for a reference, or none is wanted.
    TRL: `reference_free=True` (until 0.24).
    Source: Meng et al. 2024, https://arxiv.org/abs/2405.14734, discuss the form (without margin).

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> no_reference(pair).chosen.tolist()
    [0.0]
    """
    assert_same_shape(policy=policy)
    chosen, rejected = (jnp.zeros_like(widen(x)[0]) for x in (policy.chosen, policy.rejected))
    return PairLogps(chosen=chosen, rejected=rejected)


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
      ValueError: a number outside its range.

    When: rewards, margins and accuracies for logs.
    TRL: `rewards/chosen`, `rewards/rejected`.
    Source: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, Eq. 5 (without beta log Z).

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> start = PairLogps(chosen=jnp.array([-3.0]), rejected=jnp.array([-1.0]))
    >>> rewards = implicit_rewards(pair, start, beta=0.5)
    >>> rewards.chosen.tolist(), rewards.rejected.tolist()
    ([1.0], [-0.5])
    """
    assert_range(ABOVE_ZERO, beta=beta)
    ratios = log_ratios(policy, reference)
    return PairLogps(chosen=beta * ratios.chosen, rejected=beta * ratios.rejected)


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
      ValueError: a number outside its range.

    When: the first thing to try on pairs; smoothing where some labels are wrong.
    TRL: `loss_type="sigmoid"`; 1.16 ignores `label_smoothing` there.
    Source: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, Eq. 7; smoothing: Mitchell
      2023, https://ericmitchell.ai/cdpo.pdf, the conservative loss.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> print(dpo_loss(pair, pair, beta=0.1).round(4))  # log 2
    [0.6931]
    """
    assert_range(FLIP_PROBABILITY, label_smoothing=label_smoothing)
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
      ValueError: a number outside its range.

    When: labels are flipped at a rate that is known.
    TRL: `loss_type="robust"`.
    Source: Chowdhury et al. 2024, https://arxiv.org/abs/2403.00409, the rDPO loss.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> print(robust_dpo_loss(pair, pair, beta=0.1, label_smoothing=0.2).round(4))  # log 2
    [0.6931]
    """
    assert_range(FLIP_PROBABILITY, label_smoothing=label_smoothing)
    right, flipped = _log_likelihoods(policy, reference, beta)
    return (-(1 - label_smoothing) * right + label_smoothing * flipped) / (1 - 2 * label_smoothing)


DPO = Loss(name="dpo", kind=PAIRED, function=dpo_loss, hyperparameters={"beta": 0.1})
ROBUST = Loss(
    name="robust",
    kind=PAIRED,
    function=robust_dpo_loss,
    hyperparameters={"beta": 0.1, "label_smoothing": 0.1},
)
