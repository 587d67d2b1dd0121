"""Contrastive preference optimization: DPO without reference, and the likelihood of the chosen."""

import jax

from jaxalign.batches.preferences import PairLengths, PairLogps
from jaxalign.losses.declarations import PAIRED, Loss
from jaxalign.losses.dpo import dpo_loss, no_reference
from jaxalign.losses.length_normalised_dpo import per_token
from jaxalign.numerics.bounds import Weight

__all__ = (
    "CPO",
    "cpo_loss",
)


def cpo_loss(
    policy: PairLogps,
    lengths: PairLengths,
    *,
    beta: float,
    nll_coef: Weight = 1.0,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """Reference-free DPO plus the negative log-likelihood per token of the chosen response.

      L = -log sigmoid(beta (log pi(y_c) - log pi(y_r))) - nll_coef log pi(y_c) / |y_c|

    The likelihood is averaged over each response; TRL averages over all chosen tokens of its
    micro-batch, which makes a pair's weight depend on its neighbours.

    Args:
      policy: `[B]` nats a side, summed over the response.
      lengths: `[B]` response tokens a side; an empty response counts as one of one token.
      beta: reward units per nat, above 0.
      nll_coef: weight of the likelihood of the chosen response.
      label_smoothing: assumed share of flipped labels, in [0, 0.5).

    Returns:
      `[B]` nats.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: no memory for a reference, and the chosen texts are worth imitating.
    TRL: `CPOTrainer` with `loss_type="sigmoid"`, `cpo_alpha`.
    Source: Xu et al. 2024, https://arxiv.org/abs/2401.08417, the CPO objective.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> lengths = PairLengths(chosen=jnp.array([2]), rejected=jnp.array([2]))
    >>> print(f"{cpo_loss(pair, lengths, beta=1.0)[0]:.4f}")  # log(1 + 1/e) + 1/2
    0.8133
    """
    contrast = dpo_loss(policy, no_reference(policy), beta=beta, label_smoothing=label_smoothing)
    return contrast - nll_coef * per_token(policy, lengths).chosen


CPO = Loss(name="cpo", kind=PAIRED, function=cpo_loss, hyperparameters={"beta": 0.1})
