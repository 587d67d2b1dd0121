"""Xu et al. 2024: a preference term without reference, plus the likelihood of the chosen."""

from tests.oracles.length_normalisation import average
from tests.oracles.preferences import logistic_loss


def cpo_loss(
    chosen, rejected, chosen_length, rejected_length, *, beta, nll_coef=1.0, label_smoothing=0.0
) -> float:
    prefer = logistic_loss(beta * chosen - beta * rejected, label_smoothing)
    return prefer + nll_coef * -average(chosen, chosen_length)
