"""A prompt read once for all its responses: the same numbers as a row each."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign import objectives
from jaxalign.batches.preferences import PairLogps, SharedPreferenceBatch
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import TokenRow, token_row
from jaxalign.data.preference_batches import preference_batch, shared_preference_batch
from jaxalign.data.shared_prompts import shared_lengths, shared_prompts
from jaxalign.errors import UserError
from jaxalign.losses import PAIR_LOSSES
from jaxalign.models import functions
from jaxalign.models.functions import text_logps
from jaxalign.models.transformer import Transformer, TransformerConfig
from tests.tiny_models import GEMMA

SMALL = {"vocab_size": 13, "max_length": 32, "width": 16, "layers": 2, "heads": 2, "kv_heads": 1}
SLOW = pytest.mark.slow
MODELS = {
    "llama": {},
    "gpt2": {"norm": "layer", "positions": "learned", "activation": "gelu", "kv_heads": 2},
    "gemma": GEMMA,
    "scanned": {"windows": (0, 4), "scan_layers": True},
}


def model_and_params(name):
    model = Transformer(TransformerConfig(**SMALL | {"mlp_width": 24} | MODELS[name]))
    tokens = jnp.zeros((1, 2), jnp.int32)
    params = model.init(jax.random.key(0), tokens, tokens == 0)["params"]
    leaves, structure = jax.tree.flatten(params)
    noise = np.random.default_rng(1)
    leaves = [x + 0.2 * noise.normal(size=x.shape).astype(np.float32) for x in leaves]
    return model, jax.tree.unflatten(structure, leaves)


def groups(seed, prompts, responses, count):
    """Rows that share a prompt; a response is trained on but for a turn of somebody else."""
    rng = np.random.default_rng(seed)
    made = []
    for prompt, length in zip(prompts, responses, strict=True):
        start = rng.integers(0, 13, prompt)
        group = []
        for k in range(count):
            said = rng.integers(0, 13, max(length - k, 0))
            flags = np.arange(len(said)) != 1
            is_response = np.concatenate([np.zeros(prompt, bool), flags])
            group.append(TokenRow(np.concatenate([start, said]), is_response))
        made.append(group)
    return made


def assert_same_logps(logps, shared, made):
    """Every response of the groups `made` has the log-probabilities of its row alone."""
    ours = np.asarray(logps(shared))
    longest = max(len(row) for group in made for row in group)
    for b, group in enumerate(made):
        alone = token_batch(group, pad_id=0, length=longest)
        theirs = np.asarray(logps(alone))
        for k in range(len(group)):
            expected = theirs[k][alone.response_mask[k]]
            np.testing.assert_allclose(ours[b, k][shared.response_mask[b, k]], expected, atol=2e-5)


@pytest.mark.parametrize(
    "name", [name if name == "llama" else pytest.param(name, marks=SLOW) for name in MODELS]
)
def test_logps_are_those_of_a_row_each(name):
    model, params = model_and_params(name)
    logps = jax.jit(text_logps(model, temperature=0.7))
    made = groups(0, prompts=(5, 1, 3), responses=(4, 6, 2), count=3)
    for lengths in [None, (1, 10), (9, 11)]:
        shared = shared_prompts(made, pad_id=0, lengths=lengths)
        assert_same_logps(functools.partial(logps, params), shared, made)


@pytest.mark.parametrize("dense", [True, False])
def test_collisions_are_those_of_the_logits(monkeypatch, dense):
    """Of the distributions at that temperature, in every form; and they have no gradient."""
    monkeypatch.setattr(functions, "DENSE_LOGITS", 2**25 if dense else 0)
    monkeypatch.setattr(functions, "CHUNK", 8)
    model, params = model_and_params("llama")
    read = functions.text_logps_and_collisions.__wrapped__(model, temperature=0.7)
    made = groups(0, prompts=(5,), responses=(4,), count=2)
    rows, shared = token_batch(made[0], pad_id=0), shared_prompts(made, pad_id=0)

    @jax.jit
    def computed(params):
        alone, slopes = read(params, rows), jax.grad(lambda p: read(p, rows)[1].sum())(params)
        return alone, read(params, shared), slopes, functions.text_logits(model)(params, rows)

    alone, ours, slopes, logits = computed(params)
    z = np.asarray(logits, np.float64)[:, :-1] / 0.7
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_p, np.asarray(rows.tokens)[:, 1:, None], axis=-1)[..., 0]
    for expected, found, in_groups in zip(
        (chosen, np.log((np.exp(log_p) ** 2).sum(-1))), alone, ours, strict=True
    ):
        real = np.asarray(rows.mask)[:, 1:]
        np.testing.assert_allclose(np.asarray(found)[:, 1:][real], expected[real], atol=2e-5)
        assert not np.any(found[:, 0])
        assert_same_logps(
            lambda batch, a=found, b=in_groups: b if batch is shared else a, shared, made
        )
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slopes))


def test_an_empty_prompt_predicts_nothing_of_the_first_token():
    model, params = model_and_params("llama")
    rows = [token_row(([3, 4, 1], True)), token_row(([5, 6, 7], True))]
    logps = jax.jit(text_logps(model))
    shared = logps(params, shared_prompts([rows], pad_id=0))
    alone = logps(params, token_batch(rows, pad_id=0))
    assert shared[0, 0, 0] == shared[0, 1, 0] == 0
    np.testing.assert_allclose(shared[0], alone, atol=1e-5)


LOSSES = ["wpo", *(pytest.param(x, marks=SLOW) for x in ("dpo", "ipo", "simpo", "tpo", "orpo"))]


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradient_are_those_of_a_row_each(loss):
    model, params = model_and_params("gpt2")
    made = groups(2, prompts=(6, 2, 4), responses=(3, 5, 4), count=3)
    sides = list(zip(*made, strict=True))
    reference = PairLogps(chosen=-jnp.arange(3.0), rejected=-2 - jnp.arange(3.0))
    reference = reference if loss in ("dpo", "ipo", "tpo", "wpo") else None
    pairs = preference_batch(sides[0], sides[1], gold=sides[2], pad_id=0)
    lengths = shared_lengths(made)
    shared = shared_preference_batch(made, pad_id=0, lengths=lengths, index=np.arange(3))
    weights = jnp.array([1.0, 0.0, 1.0])
    if loss == "wpo":
        loss_fn = objectives.paired(
            functions.text_logps_and_collisions(model), PAIR_LOSSES["dpo"], wpo=True
        )
    else:
        loss_fn = objectives.paired(text_logps(model), PAIR_LOSSES[loss])
    fn = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))

    def computed(batch):
        batch = dataclasses.replace(batch, reference=reference, weights=weights)
        return fn(params, batch, jax.random.key(0))

    (ours, (count, metrics)), grads = computed(shared)
    (theirs, (other_count, other_metrics)), other_grads = computed(pairs)
    assert isinstance(shared, SharedPreferenceBatch)
    assert count == other_count == 2
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for key in metrics:
        np.testing.assert_allclose(metrics[key], other_metrics[key], rtol=1e-4, atol=1e-5)
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(other_grads))
    assert scale > 1e-3
    for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(other_grads), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5 * scale)  # float32 sums in another order


def test_columns_are_as_few_as_a_cut_can_make_them():
    made = groups(3, prompts=(20, 2), responses=(3, 18), count=2)
    # sharing 20 tokens needs 20 + 2 x 18 columns; 2 tokens: 2 + 2 x 21 = 44 are the fewest
    assert shared_lengths(made) == (2, 21)
    assert shared_lengths(groups(3, prompts=(12, 10), responses=(3, 4), count=2)) == (12, 4)


def test_rows_may_be_wider_than_the_longest_text_that_a_model_reads():
    """A long prompt with a short response beside a short one with a long one: rows of 24 + 2 x 16
    columns, of texts of at most 30 tokens for a model that reads 32.
    """
    model, params = model_and_params("gpt2")
    made = groups(5, prompts=(24, 3), responses=(6, 16), count=2)
    lengths = shared_lengths(made)
    assert sum(lengths) > model.config.max_length >= max(len(row) for x in made for row in x)
    logps = jax.jit(text_logps(model))
    shared = shared_prompts(made, pad_id=0, lengths=lengths)
    assert_same_logps(functools.partial(logps, params), shared, made)


def test_only_what_is_not_trained_on_is_shared():
    same = token_row(([1, 2], False), ([3, 4], True))
    other = token_row(([1, 2, 3], False), ([4], True))
    batch = shared_prompts([[same, other]], pad_id=0)
    assert batch.prompts.tolist() == [[1, 2]]
    assert batch.responses.tolist() == [[[3, 4], [3, 4]]]
    assert batch.response_mask.tolist() == [[[True, True], [False, True]]]


def test_groups_of_different_sizes_are_refused():
    row = token_row(([1], False), ([2], True))
    with pytest.raises(UserError, match="the same number of rows"):
        shared_prompts([[row, row], [row]], pad_id=0)
