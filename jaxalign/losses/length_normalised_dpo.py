"""DPO on log-ratios per token."""

import jax
import jax.numpy as jnp

from jaxalign.batches.preferences import PairLengths, PairLogps
from jaxalign.losses.declarations import PAIRED, Loss
from jaxalign.losses.dpo import dpo_loss, log_ratios, no_reference
from jaxalign.numerics.arguments import assert_same_shape
from jaxalign.numerics.precision import widen

__all__ = (
    "LENGTH_NORMALISED_DPO",
    "per_token",
    "length_normalised_dpo_loss",
)


def per_token(logps: PairLogps, lengths: PairLengths) -> PairLogps:
    """Sums over the response as averages over its tokens.

      log pi(y | x) / |y|

    Args:
      logps: `[B]` nats a side, summed.
      lengths: `[B]` response tokens a side; 0 counts as 1, an empty response has average 0.

    Returns:
      `[B]` nats per token a side.

    Raises:
      AssertionError: the shapes differ.

    When: a loss that compares texts of different lengths.
    TRL: `average_log_prob=True`.
    Source: Meng et al. 2024, https://arxiv.org/abs/2405.14734, Eq. 3.

    >>> logps = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> lengths = PairLengths(chosen=jnp.array([2]), rejected=jnp.array([0]))
    >>> per_token(logps, lengths).chosen.tolist()
    [-0.5]
    """
    assert_same_shape(logps=logps, lengths=lengths)
    chosen, rejected, n_chosen, n_rejected = widen(
        logps.chosen, logps.rejected, lengths.chosen, lengths.rejected
    )
    return PairLogps(
        chosen=chosen / jnp.maximum(n_chosen, 1), rejected=rejected / jnp.maximum(n_rejected, 1)
    )


def length_normalised_dpo_loss(
    policy: PairLogps,
    reference: PairLogps,
    lengths: PairLengths,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """The DPO loss on log-ratios per token.

      L = -log sigmoid(beta (h_chosen / n_chosen - h_rejected / n_rejected)),  h = log(pi / pi_ref)

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      lengths: `[B]` response tokens a side; an empty response counts as one of one token.
      beta: above 0; larger than for DPO (5 in the paper), since averages are small.
      label_smoothing: assumed share of flipped labels, in [0, 0.5).

    Returns:
      `[B]` nats.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: DPO makes texts longer than they should be.
    TRL: `loss_type="sigmoid_norm"`.
    Source: Lambert et al. 2024, https://arxiv.org/abs/2411.15124, length-normalized DPO.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> lengths = PairLengths(chosen=jnp.array([2]), rejected=jnp.array([4]))
    >>> print(length_normalised_dpo_loss(pair, pair, lengths, beta=5.0).round(4))  # log 2
    [0.6931]
    """
    ratios = per_token(log_ratios(policy, reference), lengths)
    return dpo_loss(ratios, no_reference(ratios), beta=beta, label_smoothing=label_smoothing)


LENGTH_NORMALISED_DPO = Loss(
    name="length_normalised_dpo",
    kind=PAIRED,
    function=length_normalised_dpo_loss,
    hyperparameters={"beta": 5.0},
    per_token=True,
)
