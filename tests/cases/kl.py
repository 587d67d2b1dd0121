"""Examples of what `jaxalign/kl.py` offers."""

import math

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import Case, by_entries
from tests.oracles import kl as oracle
from tests.oracles.logprobs import log_softmax
from tests.oracles.precision import saturating_exp

OUTCOMES = 6


def two(rng):
    """Close to each other, equal, and far apart: on both sides of where k3 changes its form."""
    reference = draws.tokens(rng)
    step = np.array([1e-6, 0.0, 0.249, -0.251, 3.0])
    return {"policy_logps": reference + rng.permuted(step), "reference_logps": reference}


def far(rng):
    low, high = np.full(draws.SHAPE, -1e4), np.full(draws.SHAPE, -1.0)
    flip = rng.random(draws.SHAPE) < 0.5
    return {"policy_logps": np.where(flip, low, high), "reference_logps": np.where(flip, high, low)}


def sampled(rng):
    reference = draws.tokens(rng)
    logps = reference + rng.normal(size=draws.SHAPE)
    behaviour = logps + rng.normal(size=draws.SHAPE)
    return {"logps": logps, "behaviour_logps": behaviour, "reference_logps": reference}


def k3(policy, reference):
    x = reference - policy
    return math.expm1(x) - x if x < 300 else saturating_exp(x) - 1 - x


def corrected(logp, behaviour, reference):
    return saturating_exp(logp - behaviour) * k3(logp, reference)


def logits(rng):
    """One row nearly the same, one the same, one with forbidden outcomes, one far apart."""
    policy = rng.normal(size=(draws.ROWS, OUTCOMES))
    reference = policy + rng.normal(size=policy.shape) * np.array([[1e-5], [0.0], [1.0], [5.0]])
    policy[2, 1:3] = -np.inf
    reference[2, 2] = -np.inf
    return {"policy_logits": policy, "reference_logits": reference}


def finite_logits(rng):
    policy, reference = 3 * rng.normal(size=(2, draws.ROWS, OUTCOMES))
    return {"policy_logits": policy, "reference_logits": reference}


def divergence(policy, reference):
    """The definition, in a form without cancellation: sum of p_v (exp(-d) - 1 + d)."""
    total = []
    for lp, lq in zip(log_softmax(policy), log_softmax(reference), strict=True):
        if lp == -math.inf:
            total.append(math.exp(lq))
        else:
            total.append(math.exp(lp) * (math.expm1(lq - lp) - (lq - lp)))
    return math.fsum(total)


def divergences(policy_logits, reference_logits):
    rows = zip(policy_logits, reference_logits, strict=True)
    return np.array([divergence(*map(list, row)) for row in rows])


def hidden(rng):
    """Hidden states of two models of different width, one vocabulary."""
    return {
        "policy_hidden": rng.normal(size=(*draws.SHAPE, 3)),
        "policy_unembedding": rng.normal(size=(3, OUTCOMES)),
        "reference_hidden": rng.normal(size=(*draws.SHAPE, 2)),
        "reference_unembedding": rng.normal(size=(2, OUTCOMES)),
    }


def fused(hidden, unembedding, other_hidden, other_unembedding, *, temperature=1.0, chunk_size):
    """Position t has the distributions that position t - 1 predicts; the first has none."""
    del chunk_size
    found = np.zeros(np.shape(hidden)[:2])
    for b, t in np.ndindex(*found.shape):
        if t:
            ours = hidden[b, t - 1] @ unembedding / temperature
            theirs = other_hidden[b, t - 1] @ other_unembedding / temperature
            found[b, t] = divergence(list(ours), list(theirs))
    return found


TWO = {"draw": two, "extremes": far, "trained": ("policy_logps", "reference_logps")}

CASES = (
    Case(function=jaxalign.k1, oracle=by_entries(oracle.k1), **TWO),
    Case(function=jaxalign.k2, oracle=by_entries(oracle.k2), **TWO),
    Case(function=jaxalign.k3, oracle=by_entries(k3), **TWO),
    Case(
        function=jaxalign.importance_corrected_k3,
        draw=sampled,
        oracle=by_entries(corrected),
        trained=("logps",),
        frozen=("behaviour_logps",),
    ),
    Case(
        function=jaxalign.exact_kl,
        draw=finite_logits,
        extremes=logits,
        oracle=divergences,
        trained=("policy_logits", "reference_logits"),
    ),
    Case(
        function=jaxalign.fused_exact_kl,
        fixed_rank=True,
        draw=hidden,
        oracle=fused,
        settings=({"chunk_size": 8}, {"chunk_size": 100, "temperature": 0.7}),
        shared=("policy_unembedding", "reference_unembedding"),
        invalid=(
            ({"chunk_size": 0}, "chunk_size must be at least 1"),
            ({"chunk_size": 1, "temperature": 0.0}, "temperature must be above 0"),
        ),
    ),
    Case(
        function=jaxalign.adapted_coef,
        fixed_rank=True,
        draw=lambda rng: {"coef": np.array(0.3), "kl": np.array(rng.uniform(4, 8))},
        extremes=lambda rng: {"coef": np.array(0.3), "kl": np.array(1e4)},
        oracle=lambda coef, kl, **settings: oracle.adapted_coef(float(coef), float(kl), **settings),
        settings=(
            {"target": 6.0, "horizon": 100.0, "batch_size": 10},
            {"target": 50.0, "horizon": 100.0, "batch_size": 10},
        ),
        trained=("coef",),
        shared=("coef", "kl"),
    ),
)
