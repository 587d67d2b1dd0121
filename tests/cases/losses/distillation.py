"""Examples of what `jaxalign/losses/distillation.py` offers."""

import numpy as np

import jaxalign
from tests.cases.case import Case, by_lists
from tests.cases.vocabularies import logits
from tests.oracles import distillation as oracle


def two(rng):
    return {"student_logits": logits(rng), "teacher_logits": logits(rng)}


def extreme_two(rng):
    """Probabilities that underflow, and one word that both forbid."""
    student, teacher = 1e4 * logits(rng), 1e4 * logits(rng)
    student[0, 1] = teacher[0, 1] = -np.inf
    return {"student_logits": student, "teacher_logits": teacher}


TAUGHT = {
    "draw": two,
    "extremes": extreme_two,
    "trained": ("student_logits",),
    "frozen": ("teacher_logits",),
}

CASES = (
    Case(
        function=jaxalign.forward_kl_loss,
        oracle=by_lists(oracle.forward_kl_loss),
        **TAUGHT,
    ),
    Case(
        function=jaxalign.reverse_kl_loss,
        oracle=by_lists(oracle.reverse_kl_loss),
        **TAUGHT,
    ),
    Case(
        function=jaxalign.generalised_jsd_loss,
        oracle=by_lists(oracle.generalised_jsd_loss),
        settings=({"mixture": 0.3}, {"mixture": 0.8}),
        invalid=tuple(({"mixture": m}, "mixture must be in (0, 1)") for m in (-0.1, 0.0, 1.0, 1.1)),
        **TAUGHT,
    ),
)
