"""KL divergence: the definition, and Schulman's three estimators (http://joschu.net/blog/kl-approx.html)."""

import math

from tests.oracles.logprobs import log_softmax


def k1(policy: float, reference: float) -> float:
    return policy - reference


def k2(policy: float, reference: float) -> float:
    return (policy - reference) ** 2 / 2


def k3(policy: float, reference: float) -> float:
    log_ratio = reference - policy
    return math.expm1(log_ratio) - log_ratio


def exact_kl(policy_logits, reference_logits) -> float:
    log_p, log_q = log_softmax(policy_logits), log_softmax(reference_logits)
    return math.fsum(
        math.exp(lp) * (lp - lq) for lp, lq in zip(log_p, log_q, strict=True) if lp > -math.inf
    )


def adapted_coef(coef: float, kl: float, target: float, horizon: float, batch_size: int) -> float:
    """Ziegler et al. 2019, sec. 2.2."""
    error = min(max((kl - target) / target, -0.2), 0.2)
    return coef * (1 + batch_size / horizon * error)
