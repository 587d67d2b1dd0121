"""Self-play preference optimization with hard preferences."""

import jax

from jaxalign.batches.preferences import PairLogps
from jaxalign.losses.declarations import PAIRED, Loss
from jaxalign.losses.dpo import log_ratios
from jaxalign.numerics.arguments import assert_range
from jaxalign.numerics.bounds import ABOVE_ZERO

__all__ = (
    "SPPO_HARD",
    "sppo_hard_loss",
)


def sppo_hard_loss(policy: PairLogps, reference: PairLogps, *, beta: float) -> jax.Array:
    """Squared errors of both log-ratios from what a certain preference asks of them.

      L = (h_chosen - 1 / (2 beta))^2 + (h_rejected + 1 / (2 beta))^2,  h = log(pi / pi_ref)

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      beta: 1 / eta in the paper, above 0.

    Returns:
      `[B]`, squared nats.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: rounds of self-play with a judge whose verdicts are taken as certain.
    TRL: `loss_type="sppo_hard"`.
    Source: Wu et al. 2024, https://arxiv.org/abs/2405.00675, Eq. 4.7 with probabilities 1 and 0.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> sppo_hard_loss(pair, pair, beta=0.5).tolist()  # 1 + 1
    [2.0]
    """
    assert_range(ABOVE_ZERO, beta=beta)
    ratios = log_ratios(policy, reference)
    target = 1 / (2 * beta)
    return (ratios.chosen - target) ** 2 + (ratios.rejected + target) ** 2


SPPO_HARD = Loss(
    name="sppo_hard", kind=PAIRED, function=sppo_hard_loss, hyperparameters={"beta": 1e-3}
)
