"""Triple preference optimization: a gold response to imitate beside a pair to tell apart."""

import jax
import jax.numpy as jnp

from jaxalign.batches.preferences import PairLengths, PairLogps
from jaxalign.losses.declarations import PAIRED, Loss
from jaxalign.losses.dpo import dpo_loss, no_reference
from jaxalign.losses.simpo import simpo_loss
from jaxalign.numerics.arguments import assert_same_shape
from jaxalign.numerics.bounds import Real, Weight
from jaxalign.numerics.precision import widen

__all__ = (
    "TPO",
    "TPO_L",
    "tpo_loss",
    "tpo_l_loss",
)


def tpo_loss(
    policy: PairLogps,
    gold_logps: jax.Array,
    gold_lengths: jax.Array,
    *,
    beta: float,
    nll_coef: Weight = 1.0,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """Reference-free DPO on a pair plus the likelihood per token of a third, better response.

      L = -log sigmoid(beta (log pi(y_c) - log pi(y_r))) - nll_coef log pi(y_gold) / |y_gold|

    Args:
      policy: `[B]` nats a side, summed over the response.
      gold_logps: `[B]` nats, of the gold response, summed.
      gold_lengths: `[B]` its tokens; 0 counts as 1.
      beta: reward units per nat, above 0.
      nll_coef: weight of the likelihood of the gold response, alpha in the paper.
      label_smoothing: assumed share of flipped labels, in [0, 0.5).

    Returns:
      `[B]` nats.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: there is a good answer and two of the model's own, ranked.
    TRL: `TPOTrainer` with `loss_type="sigmoid"`, `tpo_alpha`.
    Source: Saeidi et al. 2024, https://arxiv.org/abs/2405.16681, the TPO objective.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> gold = jnp.array([-3.0])
    >>> print(tpo_loss(pair, gold, jnp.array([3]), beta=1.0).round(4))  # log(1 + 1/e) + 1
    [1.3133]
    """
    contrast = dpo_loss(policy, no_reference(policy), beta=beta, label_smoothing=label_smoothing)
    return contrast + nll_coef * _gold_loss(contrast, gold_logps, gold_lengths)


def tpo_l_loss(
    policy: PairLogps,
    lengths: PairLengths,
    gold_logps: jax.Array,
    gold_lengths: jax.Array,
    *,
    beta: float,
    gamma: Real,
    nll_coef: Weight = 1.0,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """TPO with averages over tokens and a margin, as in SimPO.

      L = -log sigmoid(beta log pi(y_c) / |y_c| - beta log pi(y_r) / |y_r| - gamma)
          - nll_coef log pi(y_gold) / |y_gold|

    Args:
      policy: `[B]` nats a side, summed over the response.
      lengths: `[B]` response tokens a side; an empty response counts as one of one token.
      gold_logps: `[B]` nats, of the gold response, summed.
      gold_lengths: `[B]` its tokens; 0 counts as 1.
      beta: reward units per nat and token, above 0.
      gamma: target margin, reward units.
      nll_coef: weight of the likelihood of the gold response, alpha in the paper.
      label_smoothing: assumed share of flipped labels, in [0, 0.5).

    Returns:
      `[B]` nats.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: as TPO, where lengths differ.
    TRL: `TPOTrainer` with `loss_type="tpo-l"`, `tpo_l_gamma`.
    Source: Saeidi et al. 2024, https://arxiv.org/abs/2405.16681, the TPO-L objective.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> lengths = PairLengths(chosen=jnp.array([1]), rejected=jnp.array([2]))
    >>> gold, length = jnp.array([-3.0]), jnp.array([3])
    >>> print(tpo_l_loss(pair, lengths, gold, length, beta=2.0, gamma=0.0).round(4))  # log 2 + 1
    [1.6931]
    """
    contrast = simpo_loss(policy, lengths, beta=beta, gamma=gamma, label_smoothing=label_smoothing)
    return contrast + nll_coef * _gold_loss(contrast, gold_logps, gold_lengths)


def _gold_loss(contrast: jax.Array, gold_logps: jax.Array, gold_lengths: jax.Array) -> jax.Array:
    """Negative log-likelihood a token of the gold responses, `[B]` nats."""
    assert_same_shape(contrast=contrast, gold_logps=gold_logps, gold_lengths=gold_lengths)
    gold_logps, gold_lengths = widen(gold_logps, gold_lengths)
    return -gold_logps / jnp.maximum(gold_lengths, 1)


TPO = Loss(name="tpo", kind=PAIRED, function=tpo_loss, hyperparameters={"beta": 0.01})
TPO_L = Loss(
    name="tpo_l",
    kind=PAIRED,
    function=tpo_l_loss,
    hyperparameters={"beta": 2.0, "gamma": 0.5},
    per_token=True,
)
