"""Examples of what `jaxalign/losses/f_dpo.py` offers."""

import functools

import numpy as np

import jaxalign
from tests.cases.case import ROWS, Case, by_entries, by_rows
from tests.cases.pairs import PAIRED, refused
from tests.oracles import f_dpo


def log_t(rng):
    return {"log_ratios": rng.normal(0.0, 2.0, ROWS)}


def extreme_log_t(rng):
    return {"log_ratios": np.array([1e4, -1e4, 0.0, -1.0])}


SCORE = {"draw": log_t, "extremes": extreme_log_t, "trained": ("log_ratios",)}

HALF = functools.partial(jaxalign.alpha_score, alpha=0.5)

ORACLE_OF_SCORE = {
    jaxalign.reverse_kl_score: f_dpo.reverse_kl_score,
    jaxalign.forward_kl_score: f_dpo.forward_kl_score,
    jaxalign.jensen_shannon_score: f_dpo.jensen_shannon_score,
    HALF: functools.partial(f_dpo.alpha_score, alpha=0.5),
}

CASES = (
    Case(
        function=jaxalign.reverse_kl_score,
        oracle=by_entries(f_dpo.reverse_kl_score),
        **SCORE,
    ),
    Case(
        function=jaxalign.forward_kl_score,
        oracle=by_entries(f_dpo.forward_kl_score),
        **SCORE,
    ),
    Case(
        function=jaxalign.jensen_shannon_score,
        oracle=by_entries(f_dpo.jensen_shannon_score),
        **SCORE,
    ),
    Case(
        function=jaxalign.alpha_score,
        oracle=by_entries(f_dpo.alpha_score),
        settings=({"alpha": 0.5}, {"alpha": -0.3}, {"alpha": 1.0}, {"alpha": 0.7}),
        invalid=(({"alpha": 0.0}, "alpha must not be 0"),),
        **SCORE,
    ),
    Case(
        function=jaxalign.f_dpo_loss,
        oracle=lambda *pairs, score, **settings: by_rows(f_dpo.f_dpo_loss)(
            *pairs, score=ORACLE_OF_SCORE[score], **settings
        ),
        settings=(
            {"beta": 0.3, "score": jaxalign.jensen_shannon_score},
            {"beta": 0.3, "score": HALF},
            {"beta": 0.1, "score": jaxalign.forward_kl_score},
            {"beta": 0.7, "score": jaxalign.reverse_kl_score, "label_smoothing": 0.2},
        ),
        invalid=refused(beta=0.1, score=jaxalign.forward_kl_score),
        **PAIRED,
    ),
)
