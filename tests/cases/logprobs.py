"""Examples of what `jaxalign/logprobs.py` offers."""

import numpy as np

import jaxalign
from tests.cases import draws
from tests.cases.case import Case
from tests.oracles import logprobs as oracle

WORDS = 6

BAD_TEMPERATURE = (({"temperature": 0.0}, "temperature must be above 0"),)

BAD_FUSED = (
    ({"chunk_size": 0}, "chunk_size must be at least 1"),
    ({"chunk_size": 1, "temperature": 0.0}, "temperature must be above 0"),
)


def logits(rng, scale=2.0):
    return {"logits": scale * rng.normal(size=(*draws.SHAPE, WORDS))}


def forbidden(rng):
    """Sizes of 1e4, and one outcome that is forbidden."""
    given = logits(rng, 1e4)
    given["logits"][..., 1] = -np.inf
    return given


def actions(rng):
    return logits(rng) | {"actions": rng.integers(0, WORDS, draws.SHAPE)}


def tokens(rng):
    return logits(rng) | {"tokens": rng.integers(0, WORDS, draws.SHAPE)}


def far_actions(rng):
    return logits(rng, 1e4) | {"actions": rng.integers(0, WORDS, draws.SHAPE)}


def far_tokens(rng):
    return logits(rng, 1e4) | {"tokens": rng.integers(0, WORDS, draws.SHAPE)}


def hidden(rng, scale=1.0):
    return {
        "hidden": scale * rng.normal(size=(*draws.SHAPE, 3)),
        "unembedding": rng.normal(size=(3, WORDS)),
        "tokens": rng.integers(0, WORDS, draws.SHAPE),
    }


def far_hidden(rng):
    return hidden(rng, 1e4)


def over_positions(fn, logits, *others):
    """`fn` of the logits (and what else) of every position."""
    found = [
        fn(list(logits[at]), *(x[at] for x in others)) for at in np.ndindex(*logits.shape[:-1])
    ]
    return np.reshape(found, (*logits.shape[:-1], *np.shape(found[0])))


def fused(hidden, unembedding, tokens, *, temperature=1.0, chunk_size):
    del chunk_size
    logits = np.asarray(hidden) @ np.asarray(unembedding)
    logps = oracle.token_logps(logits, tokens, temperature)
    return logps, oracle.token_entropy(logits, temperature)


FUSED = {
    "draw": hidden,
    "extremes": far_hidden,
    "settings": ({"chunk_size": 8}, {"chunk_size": 100, "temperature": 0.7}),
    "trained": ("hidden", "unembedding"),
    "shared": ("unembedding",),
    "invalid": BAD_FUSED,
    "order": 1,  # its own backward pass, which has none
}

TEMPERED = {"settings": ({"temperature": 0.6}, {}), "invalid": BAD_TEMPERATURE}

CASES = (
    Case(
        function=jaxalign.shift_right,
        draw=lambda rng: {"x": rng.normal(size=draws.SHAPE)},
        oracle=lambda x: np.array([[0.0, *row[:-1]] for row in np.asarray(x)]),
        trained=("x",),
        widens=False,
    ),
    Case(
        function=jaxalign.log_softmax,
        draw=logits,
        extremes=lambda rng: logits(rng, 1e4),
        oracle=lambda logits: over_positions(oracle.log_softmax, np.asarray(logits)),
        trained=("logits",),
    ),
    Case(
        function=jaxalign.action_logps,
        fixed_rank=True,
        draw=actions,
        extremes=far_actions,
        oracle=lambda logits, actions: over_positions(
            lambda row, action: oracle.log_softmax(row)[action], np.asarray(logits), actions
        ),
        trained=("logits",),
    ),
    Case(
        function=jaxalign.entropy,
        draw=logits,
        extremes=forbidden,
        oracle=lambda logits: over_positions(oracle.entropy, np.asarray(logits)),
        trained=("logits",),
    ),
    Case(
        function=jaxalign.token_logps,
        fixed_rank=True,
        draw=tokens,
        extremes=far_tokens,
        oracle=oracle.token_logps,
        trained=("logits",),
        **TEMPERED,
    ),
    Case(
        function=jaxalign.token_entropy,
        fixed_rank=True,
        draw=logits,
        extremes=forbidden,
        oracle=oracle.token_entropy,
        trained=("logits",),
        **TEMPERED,
    ),
    Case(
        function=jaxalign.sequence_logps,
        fixed_rank=True,
        draw=lambda rng: {"token_logps": draws.tokens(rng), "mask": draws.mask(rng)},
        extremes=lambda rng: {"token_logps": 1e4 * draws.tokens(rng), "mask": draws.mask(rng)},
        oracle=oracle.sequence_logps,
        trained=("token_logps",),
        masked=("token_logps",),
    ),
    Case(
        function=jaxalign.fused_token_logps,
        fixed_rank=True,
        oracle=lambda *arrays, **settings: fused(*arrays, **settings)[0],
        **FUSED,
    ),
    Case(function=jaxalign.fused_token_logps_and_entropy, fixed_rank=True, oracle=fused, **FUSED),
)
