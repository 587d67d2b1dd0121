"""Token accuracy of supervised fine-tuning: from the pass that the loss makes anyway."""

import jax
import numpy as np
import pytest

from jaxalign import objectives
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import token_row
from jaxalign.data.packing import packed_batch
from jaxalign.models import functions
from jaxalign.models.functions import text_logits, text_logps, text_logps_and_likeliest
from jaxalign.models.transformer import Transformer
from tests.tiny_models import LLAMA, random_parameters

MODEL = Transformer(LLAMA)
ROWS = [
    token_row(([1, 2], False), ([3, 4, 5], True)),
    token_row(([1], False), ([6, 2, 7, 9], True)),
]


def batch_of(packed):
    if packed:
        return packed_batch([ROWS], index=np.array([[0, 1]]), pad_id=0, length=12, texts=2)
    return token_batch(ROWS, pad_id=0, length=6)


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "fused"])
@pytest.mark.parametrize("packed", [False, True], ids=["rows", "packed"])
def test_the_share_of_tokens_that_are_the_first_choice(monkeypatch, dense, packed):
    """Beside the very loss and gradient of the log-probabilities alone."""
    monkeypatch.setattr(functions, "DENSE_LOGITS", 2**25 if dense else 0)
    params, batch, key = random_parameters(MODEL), batch_of(packed), jax.random.key(0)
    logits = np.asarray(text_logits(MODEL)(params, token_batch(ROWS, pad_id=0, length=6)))
    firsts = logits.argmax(axis=-1)
    tokens = [np.r_[row.tokens, np.zeros(6, int)][:6] for row in ROWS]
    right = [(firsts[i, :-1] == tokens[i][1:])[: len(row) - 1][row.is_response[1:]]
             for i, row in enumerate(ROWS)]  # fmt: skip
    losses = [
        jax.value_and_grad(objectives.sft(read(MODEL)), has_aux=True)
        for read in (text_logps, text_logps_and_likeliest)
    ]
    (alone, (_, nothing)), gradient = losses[0](params, batch, key)
    (loss, (weight, metrics)), same = losses[1](params, batch, key)
    assert nothing == {} and metrics["tokens/accuracy"] == sum(map(np.sum, right)) and weight == 7
    assert loss == alone
    jax.tree.map(np.testing.assert_array_equal, same, gradient)


def test_a_model_that_knows_its_text_is_always_right(monkeypatch):
    batch = token_batch(ROWS[:1], pad_id=0, length=5)
    for dense in (2**25, 0):
        monkeypatch.setattr(functions, "DENSE_LOGITS", dense)
        params = random_parameters(MODEL)
        loss_fn = objectives.sft(text_logps_and_likeliest(MODEL))
        for _ in range(60):
            gradient = jax.grad(loss_fn, has_aux=True)(params, batch, jax.random.key(0))[0]
            params = jax.tree.map(lambda p, g: p - 0.03 * g, params, gradient)
        loss, (weight, metrics) = loss_fn(params, batch, jax.random.key(0))
        assert loss < 0.5 and metrics["tokens/accuracy"] == weight == 3
