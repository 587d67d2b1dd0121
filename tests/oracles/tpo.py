"""Saeidi et al. 2024: a preference term and the likelihood of a third, gold response."""

from tests.oracles.length_normalisation import average
from tests.oracles.preferences import logistic_loss
from tests.oracles.simpo import simpo_loss


def tpo_loss(
    chosen, rejected, gold, gold_length, *, beta, nll_coef=1.0, label_smoothing=0.0
) -> float:
    prefer = logistic_loss(beta * (chosen - rejected), label_smoothing)
    return prefer - nll_coef * average(gold, gold_length)


def tpo_l_loss(*numbers, nll_coef: float = 1.0, **settings) -> float:
    *pair_and_lengths, gold, gold_length = numbers
    return simpo_loss(*pair_and_lengths, **settings) - nll_coef * average(gold, gold_length)
