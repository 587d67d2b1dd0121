"""Packed rows in which several responses share a prompt: the numbers of the texts by themselves."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxalign.batches.tokens import PackedBatch
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import token_row
from jaxalign.data.prompt_groups import grouped_batch, prompt_groups
from jaxalign.models.functions import (
    text_end_scores,
    text_logps,
    text_logps_and_collisions,
    text_logps_and_likeliest,
    text_scores,
)
from jaxalign.models.layer_stack import stacked
from jaxalign.models.transformer import Transformer
from tests.tiny_models import GEMMA, LLAMA, random_parameters

HEADS = ("logits", "score")
ARCHITECTURES = {
    "llama": {},
    "learned positions": {"positions": "learned"},
    "windows": GEMMA,
    "scanned": {"scan_layers": True},
}


@pytest.fixture(params=ARCHITECTURES)
def model_and_params(request):
    config = dataclasses.replace(LLAMA, heads_out=HEADS, **ARCHITECTURES[request.param])
    model = Transformer(dataclasses.replace(config, scan_layers=False))
    params = random_parameters(model)
    if config.scan_layers:
        return Transformer(config), stacked(params, config.layers)
    return model, params


def texts():
    """Pairs with a prompt each, one of a single token, and a text by itself."""
    rng = np.random.default_rng(1)
    rows = []
    for prompt, counts in ((6, (5, 3)), (1, (4, 2)), (9, (2, 7)), (3, (8,))):
        ids = rng.integers(0, 23, prompt)
        rows += [token_row((ids, False), (rng.integers(0, 23, n), True)) for n in counts]
    return rows


def apart(read, params, rows):
    """Outputs for every text in a batch of its own."""
    return [
        jax.tree.map(lambda x: x[0], read(params, token_batch([row], pad_id=0))) for row in rows
    ]


def together(read, params, rows):
    """Outputs for the texts, packed in two rows."""
    groups = prompt_groups(rows)
    batch, places = grouped_batch(rows, [groups[:2], groups[2:]], pad_id=0, length=40)
    assert isinstance(batch, PackedBatch)
    outputs = read(params, batch)
    return [jax.tree.map(lambda x, at=places[i]: x[at], outputs) for i in range(len(rows))]


@pytest.mark.parametrize(
    "make",
    [text_logps, text_logps_and_likeliest, text_logps_and_collisions],
    ids=lambda f: f.__name__,
)
def test_responses_have_the_log_probabilities_of_the_text_by_itself(model_and_params, make):
    model, params = model_and_params
    rows, read = texts(), make(model)
    found, expected = together(read, params, rows), apart(read, params, rows)
    for row, one, other in zip(rows, found, expected, strict=True):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a[row.is_response], b[row.is_response], atol=2e-5)


def test_scores_and_their_gradient_are_those_of_the_texts_by_themselves(model_and_params):
    model, params = model_and_params
    rows, read, read_ends = texts(), text_scores(model), text_end_scores(model)
    weights = np.random.default_rng(2).normal(size=len(rows))

    def packed(params):
        return sum(
            w * x[-1] for w, x in zip(weights, together(read_ends, params, rows), strict=True)
        )

    def alone(params):
        return sum(w * x for w, x in zip(weights, apart(read, params, rows), strict=True))

    found, expected = (jax.value_and_grad(fn)(params) for fn in (packed, alone))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), found, expected)
    assert np.abs(expected[0]) > 0.1
