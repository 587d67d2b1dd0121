"""Log-probabilities and entropies of tokens and actions."""

import numpy as np
from tests.specimens.specimen import Specimen

import jaxalign
from tests.oracles import logprobs as oracle
from tests.specimens import draws

SHAPE = (draws.ROWS, draws.TOKENS)
WORDS = 6
BAD_TEMPERATURE = (({"temperature": 0.0}, "temperature must be above 0"),)
BAD_FUSED = (
    ({"chunk_size": 0}, "chunk_size must be above 0"),
    ({"chunk_size": 1, "temperature": 0.0}, "temperature must be above 0"),
)


def logits(rng, scale=2.0):
    return {"logits": scale * rng.normal(size=(*SHAPE, WORDS))}


def forbidden(rng):
    """Sizes of 1e4, and one outcome that is forbidden."""
    given = logits(rng, 1e4)
    given["logits"][..., 1] = -np.inf
    return given


def actions(rng):
    return logits(rng) | {"actions": rng.integers(0, WORDS, SHAPE)}


def tokens(rng):
    return logits(rng) | {"tokens": rng.integers(0, WORDS, SHAPE)}


def far_actions(rng):
    return logits(rng, 1e4) | {"actions": rng.integers(0, WORDS, SHAPE)}


def far_tokens(rng):
    return logits(rng, 1e4) | {"tokens": rng.integers(0, WORDS, SHAPE)}


def hidden(rng, scale=1.0):
    return {
        "hidden": scale * rng.normal(size=(*SHAPE, 3)),
        "unembedding": rng.normal(size=(3, WORDS)),
        "tokens": rng.integers(0, WORDS, SHAPE),
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

SPECIMENS = (
    Specimen(
        function=jaxalign.shift_right,
        draw=lambda rng: {"x": rng.normal(size=SHAPE)},
        oracle=lambda x: np.array([[0.0, *row[:-1]] for row in np.asarray(x)]),
        trained=("x",),
        widens=False,
    ),
    Specimen(
        function=jaxalign.log_softmax,
        draw=logits,
        extremes=lambda rng: logits(rng, 1e4),
        oracle=lambda logits: over_positions(oracle.log_softmax, np.asarray(logits)),
        trained=("logits",),
    ),
    Specimen(
        function=jaxalign.action_logps,
        draw=actions,
        extremes=far_actions,
        oracle=lambda logits, actions: over_positions(
            lambda row, action: oracle.log_softmax(row)[action], np.asarray(logits), actions
        ),
        trained=("logits",),
    ),
    Specimen(
        function=jaxalign.entropy,
        draw=logits,
        extremes=forbidden,
        oracle=lambda logits: over_positions(oracle.entropy, np.asarray(logits)),
        trained=("logits",),
    ),
    Specimen(
        function=jaxalign.token_logps,
        draw=tokens,
        extremes=far_tokens,
        oracle=oracle.token_logps,
        trained=("logits",),
        **TEMPERED,
    ),
    Specimen(
        function=jaxalign.token_entropy,
        draw=logits,
        extremes=forbidden,
        oracle=oracle.token_entropy,
        trained=("logits",),
        **TEMPERED,
    ),
    Specimen(
        function=jaxalign.sequence_logps,
        draw=lambda rng: {"token_logps": draws.tokens(rng), "mask": draws.mask(rng)},
        extremes=lambda rng: {"token_logps": 1e4 * draws.tokens(rng), "mask": draws.mask(rng)},
        oracle=oracle.sequence_logps,
        trained=("token_logps",),
        masked=("token_logps",),
    ),
    Specimen(
        function=jaxalign.fused_token_logps,
        oracle=lambda *arrays, **settings: fused(*arrays, **settings)[0],
        **FUSED,
    ),
    Specimen(function=jaxalign.fused_token_logps_and_entropy, oracle=fused, **FUSED),
)
