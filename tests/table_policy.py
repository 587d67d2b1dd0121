"""A context-free policy, whose every token is drawn from one table of logits; rows to give it."""

import jax
import numpy as np

from jaxalign.batches.tokens import TokenBatch

LENGTH, WORDS = 5, 7
START = np.random.default_rng(9).normal(size=WORDS)


def texts(rng, rows):
    """A prompt of one token and a response of 1 to 4."""
    lengths = rng.integers(2, LENGTH + 1, rows)
    real = np.arange(LENGTH) < lengths[:, None]
    prompt = real & (np.arange(LENGTH) < 1)
    return TokenBatch(
        tokens=rng.integers(0, WORDS, (rows, LENGTH)).astype(np.int32),
        prompt_mask=prompt,
        response_mask=real & ~prompt,
        index=np.arange(rows, dtype=np.int32),
    )


def table_logps(params, batch, keys):
    """log pi(token) `[B, T]` under the table of logits."""
    return jax.nn.log_softmax(params)[batch.tokens]


def summed(table, rows):
    """The same in NumPy, summed over the responses."""
    logps = table - np.log(np.exp(table).sum())
    return (logps[rows.tokens] * rows.response_mask).sum(1)
