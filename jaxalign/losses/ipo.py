"""Identity preference optimization: a squared error, so that certain pairs stay bounded."""

from jaxalign.batches.preferences import PairLengths, PairLogps
from jaxalign.losses.declarations import PAIRED, Loss
from jaxalign.losses.dpo import log_ratios
from jaxalign.losses.length_normalised_dpo import per_token
from jaxalign.numerics.arguments import assert_range
from jaxalign.numerics.bounds import ABOVE_ZERO

__all__ = (
    "IPO",
    "AVERAGED_IPO",
    "ipo_loss",
    "averaged_ipo_loss",
)


def ipo_loss(policy: PairLogps, reference: PairLogps, *, beta: float):
    """The IPO loss on summed log-probabilities, as its authors wrote it.

      L = (h_chosen - h_rejected - 1 / (2 beta))^2,  h = log(pi / pi_ref)

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      beta: tau in the paper, 1 over nats, above 0.

    Returns:
      `[B]`, squared nats.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: pairs that everybody agrees on push DPO too far; lengths of both sides are alike.
    TRL: not there (`"ipo"` averages over tokens).
    Source: Azar et al. 2023, https://arxiv.org/abs/2310.12036, Eq. 17.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> ipo_loss(pair, pair, beta=0.5).tolist()  # (0 - 1)^2
    [1.0]
    """
    assert_range(ABOVE_ZERO, beta=beta)
    ratios = log_ratios(policy, reference)
    return (ratios.chosen - ratios.rejected - 1 / (2 * beta)) ** 2


def averaged_ipo_loss(
    policy: PairLogps, reference: PairLogps, lengths: PairLengths, *, beta: float
):
    """The IPO loss on averages over tokens, so that beta means the same at any length.

      L = (h_chosen / n_chosen - h_rejected / n_rejected - 1 / (2 beta))^2

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      lengths: `[B]` response tokens a side; an empty response counts as one of one token.
      beta: tau in the paper, tokens over nats, above 0.

    Returns:
      `[B]`, squared nats per token.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: IPO on texts of different lengths.
    TRL: `loss_type="ipo"`.
    Source: Azar et al. 2023, https://arxiv.org/abs/2310.12036, Eq. 17, of averages.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> lengths = PairLengths(chosen=jnp.array([2]), rejected=jnp.array([4]))
    >>> averaged_ipo_loss(pair, pair, lengths, beta=0.25).tolist()  # (0 - 2)^2
    [4.0]
    """
    assert_range(ABOVE_ZERO, beta=beta)
    ratios = per_token(log_ratios(policy, reference), lengths)
    return (ratios.chosen - ratios.rejected - 1 / (2 * beta)) ** 2


IPO = Loss(name="ipo", kind=PAIRED, function=ipo_loss, hyperparameters={"beta": 0.1})
AVERAGED_IPO = Loss(
    name="averaged_ipo",
    kind=PAIRED,
    function=averaged_ipo_loss,
    hyperparameters={"beta": 0.1},
    per_token=True,
)
