"""Munos et al. 2023: the geometric mixture and the policy gradient of Nash-MD."""

import math

from tests.oracles.logprobs import log_softmax


def mixture_logits(policy_logits, reference_logits, mixture: float) -> list[float]:
    """log(pi^(1 - b) pi_ref^b), where 0^0 is 1."""
    rows = zip(log_softmax(policy_logits), log_softmax(reference_logits), strict=True)
    return [power(log_p, 1 - mixture) + power(log_q, mixture) for log_p, log_q in rows]


def power(log_x: float, exponent: float) -> float:
    return 0.0 if exponent == 0 else exponent * log_x


def nash_md_loss(policy, reference, preference, *, beta: float) -> float:
    return -policy * (preference - 0.5 - beta * math.log(math.exp(policy - reference)))
