"""Binary classifier optimization: good and bad responses on two sides of a moving threshold."""

import jax
import jax.numpy as jnp

from jaxalign.batches.preferences import PairLogps
from jaxalign.batches.tokens import positional_pytree
from jaxalign.losses.declarations import PAIRED, UNPAIRED, Loss
from jaxalign.losses.dpo import implicit_rewards
from jaxalign.numerics.arguments import assert_range, assert_same_shape, flags
from jaxalign.numerics.bounds import ABOVE_ZERO
from jaxalign.numerics.collectives import psum
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.precision import widen

__all__ = (
    "BCO_PAIR",
    "BCO",
    "RunningMean",
    "running_shift",
    "bco_loss",
    "bco_pair_loss",
    "density_ratios",
)


@positional_pytree
class RunningMean:
    """Mean of all rewards seen so far: `mean` `[]` reward units, `count` `[]` float rewards."""

    mean: jax.Array
    count: jax.Array


def no_shift() -> RunningMean:
    """Running mean of no rewards yet: a shift of 0."""
    return RunningMean(mean=jnp.zeros(()), count=jnp.zeros(()))


def running_shift(
    state: RunningMean, rewards: jax.Array, mask: jax.Array, *, axis_name: str | None = None
) -> RunningMean:
    """The reward shift of this batch: the mean of every implicit reward seen so far, its own among
    them.

      mean' = mean + (batch mean - mean) n / (count + n),  count' = count + n

    The loss of a batch takes the shift *after* the rewards of that batch (training does so too, and
    measures them in a pass before the loss's). So the first batch has its own mean, and one reward
    alone is its own shift. It gets no gradient.

    Args:
      state: before the batch; `no_shift()` at the start.
      rewards: `[...]` implicit rewards of good and bad responses.
      mask: `[...]` bool, false on rows of padding.
      axis_name: mapped axis whose devices share the shift, or None.

    Returns:
      The new state.

    Raises:
      AssertionError: the shapes differ, or the mask holds real numbers.

    When: with `bco_loss`.
    TRL: `RunningMoments.update` in `BCOTrainer.bco_loss`, which sees each device's micro-batch
      before its loss; here it is the whole batch. On pairs (`DPOTrainer`, until 0.24) a batch
      counts as one reward, its mean; here every reward counts.
    Source: Jung et al. 2024, https://arxiv.org/abs/2404.04656, the reward shift delta.

    >>> float(running_shift(no_shift(), jnp.array([1.0, 3.0]), jnp.array([True, True])).mean)
    2.0
    """
    assert_same_shape(rewards=rewards, mask=mask)
    mask = flags(mask=mask)
    return shift_after(state, psum(implicit_reward_sums(rewards, mask), axis_name))


def implicit_reward_sums(rewards: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum and the number of rewards that `running_shift` reads; they add up over the parts of a
    batch. No gradient.
    """
    (rewards,) = widen(jax.lax.stop_gradient(rewards))
    return masked_sum(rewards, weights), masked_sum(jnp.ones_like(rewards), weights)


def shift_after(state: RunningMean, sums: tuple[jax.Array, jax.Array]) -> RunningMean:
    """`running_shift` from the `implicit_reward_sums` of a whole batch."""
    total, seen = sums
    count = state.count + seen
    above = total - seen * state.mean
    return RunningMean(mean=state.mean + above / jnp.where(count == 0, 1, count), count=count)


def bco_loss(
    policy_logps: jax.Array,
    reference_logps: jax.Array,
    labels: jax.Array,
    *,
    beta: float,
    shift: jax.Array | float,
) -> jax.Array:
    """Logistic regression of a label on the implicit reward less a shift.

      L = -log sigmoid(r - shift) if good,  -log sigmoid(-(r - shift)) if bad

    with r = beta log(pi / pi_ref).

    Args:
      policy_logps: `[B]` nats, summed over the response.
      reference_logps: `[B]`, under the frozen reference; get no gradient.
      labels: `[B]` bool, true where the response is good.
      beta: reward units per nat, above 0.
      shift: `[]`, reward units: the mean of `running_shift` after this batch; gets no gradient.

    Returns:
      `[B]` nats.

    Raises:
      AssertionError: the shapes differ, or labels are real numbers.
      ValueError: a number outside its range.

    When: labels of single responses (thumbs up, thumbs down).
    TRL: `BCOTrainer` (until 0.24).
    Source: Jung et al. 2024, https://arxiv.org/abs/2404.04656, the BCO loss.

    >>> zero = jnp.zeros(2)
    >>> loss = bco_loss(zero, zero, jnp.array([True, False]), beta=0.1, shift=0.0)
    >>> print(loss.round(4))  # log 2
    [0.6931 0.6931]
    """
    assert_range(ABOVE_ZERO, beta=beta)
    assert_same_shape(policy_logps=policy_logps, reference_logps=reference_logps, labels=labels)
    labels = flags(labels=labels)
    policy_logps, reference_logps = widen(policy_logps, reference_logps)
    rewards = beta * (policy_logps - jax.lax.stop_gradient(reference_logps))
    shifted = rewards - jax.lax.stop_gradient(shift)
    return jax.nn.softplus(jnp.where(labels, -shifted, shifted))


def bco_pair_loss(
    policy: PairLogps, reference: PairLogps, *, beta: float, shift: jax.Array | float
) -> jax.Array:
    """The BCO losses of both sides of a pair, added.

      L = -log sigmoid(r_chosen - shift) - log sigmoid(-(r_rejected - shift))

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      beta: reward units per nat, above 0.
      shift: `[]`, reward units: the mean of `running_shift` after this batch, or 0; gets no
        gradient.

    Returns:
      `[B]` nats; 2 log 2 where policy and reference agree and the shift is 0.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: as `bco_loss`, on pairs.
    TRL: `loss_type="bco_pair"`; 1.16 has no shift.
    Source: Jung et al. 2024, https://arxiv.org/abs/2404.04656, the BCO loss.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> print(bco_pair_loss(pair, pair, beta=0.1, shift=0.0).round(4))  # 2 log 2
    [1.3863]
    """
    rewards = implicit_rewards(policy, reference, beta=beta)
    shift = jax.lax.stop_gradient(shift)
    return jax.nn.softplus(shift - rewards.chosen) + jax.nn.softplus(rewards.rejected - shift)


def density_ratios(probabilities: jax.Array, *, lowest: float, highest: float) -> jax.Array:
    """Weights that make bad responses look as if they came from the prompts of good ones.

      w = clip(p / (1 - p), lowest, highest),  p = P(the prompt is from the good set | prompt)

    Args:
      probabilities: `[B]` in [0, 1], of a classifier of prompts.
      lowest, highest: bounds of the weights, above 0.

    Returns:
      `[B]`; multiply the losses of bad responses by it. No gradient.

    Raises:
      ValueError: a number outside its range.

    When: good and bad responses answer different kinds of prompts.
    TRL: `prompt_sample_size`, `min_density_ratio`, `max_density_ratio` (until 0.24).
    Source: Jung et al. 2024, https://arxiv.org/abs/2404.04656, underlying distribution matching.

    >>> density_ratios(jnp.array([0.5, 0.75, 1.0]), lowest=0.5, highest=10.0).tolist()
    [1.0, 3.0, 10.0]
    """
    assert_range(ABOVE_ZERO, lowest=lowest, highest=highest)
    (probabilities,) = widen(jax.lax.stop_gradient(probabilities))
    return jnp.clip(probabilities / (1 - probabilities), lowest, highest)


BCO = Loss(name="bco", kind=UNPAIRED, function=bco_loss, hyperparameters={"beta": 0.1})
BCO_PAIR = Loss(name="bco_pair", kind=PAIRED, function=bco_pair_loss, hyperparameters={"beta": 0.1})
