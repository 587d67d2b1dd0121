"""Odds ratio preference optimization: fine-tuning and preferences in one stage."""

import jax
import jax.numpy as jnp

from jaxalign.batches.preferences import PairLengths, PairLogps
from jaxalign.losses.declarations import PAIRED, Loss
from jaxalign.losses.length_normalised_dpo import per_token
from jaxalign.numerics.arguments import assert_range
from jaxalign.numerics.bounds import NOT_NEGATIVE, Weight
from jaxalign.numerics.precision import log1mexp, widen

__all__ = (
    "ORPO",
    "log_odds",
    "orpo_loss",
)


def log_odds(average_logps: jax.Array) -> jax.Array:
    """Logarithm of the odds of an event with that log-probability.

      log(p / (1 - p)) = log p - log(1 - p)

    At p = 1 the odds are infinite; what lies above log p = -1e-30 is taken as -1e-30.

    Args:
      average_logps: `[...]` nats, at most 0.

    Returns:
      `[...]`, finite.

    When: inside `orpo_loss`.
    TRL: `log_odds_chosen` and relatives in `ORPOTrainer`.
    Source: Hong et al. 2024, https://arxiv.org/abs/2403.07691, Eq. 4.

    >>> print(log_odds(jnp.log(jnp.array([0.5, 0.75]))).round(4))  # 0, log 3
    [0.     1.0986]
    """
    capped = jnp.minimum(widen(average_logps)[0], -1e-30)
    return capped - log1mexp(capped)


def orpo_loss(
    policy: PairLogps, lengths: PairLengths, *, beta: float, nll_coef: Weight = 1.0
) -> jax.Array:
    """Negative log-likelihood of the chosen response plus a penalty on the odds of the rejected.

      L = -nll_coef log pi(y_c) / |y_c| - beta log sigmoid(log odds(y_c) - log odds(y_r))

    where odds = p / (1 - p) of the length-normalised probability p = exp(log pi(y) / |y|).

    Args:
      policy: `[B]` nats a side, summed over the response.
      lengths: `[B]` response tokens a side; an empty response counts as one of one token.
      beta: weight of the odds ratio, lambda in the paper, at least 0.
      nll_coef: weight of the likelihood of the chosen response, 1 in the paper.

    Returns:
      `[B]` nats.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: no supervised stage before, no reference.
    TRL: `ORPOTrainer`, `beta`; its likelihood includes the prompt.
    Source: Hong et al. 2024, https://arxiv.org/abs/2403.07691, Eqs. 6 and 7.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> lengths = PairLengths(chosen=jnp.array([1]), rejected=jnp.array([2]))
    >>> print(orpo_loss(pair, lengths, beta=0.0).round(4))
    [1.]
    """
    assert_range(NOT_NEGATIVE, beta=beta)
    averages = per_token(policy, lengths)
    odds = log_odds(averages.chosen) - log_odds(averages.rejected)
    return beta * jax.nn.softplus(-odds) - nll_coef * averages.chosen


ORPO = Loss(
    name="orpo", kind=PAIRED, function=orpo_loss, hyperparameters={"beta": 0.1}, per_token=True
)
