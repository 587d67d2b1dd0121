"""Ids that are no tokens have no probability, in sampling and in every log-probability alike."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.kl import exact_kl, fused_exact_kl
from jaxalign.layouts.choice import make_layout
from jaxalign.logprobs import (
    action_logps,
    entropy,
    fused_action_logps_and_entropy,
    logits_of,
    token_logps,
)
from jaxalign.losses.distillation import forward_kl_loss
from jaxalign.models.functions import log_collisions_of, text_divergences
from jaxalign.models.transformer import Transformer
from jaxalign.recipes.distillation import teacher_pass
from jaxalign.recipes.text_models import TextModel, load_text_model, new_parameters, save_text_model
from tests.test_sampling import CONFIG, MODEL, PROMPT, drawn, params_of, prompts_of, responses
from tests.tiny_models import tiny_policy

RANGES = ((0, 4), (5, 9))  # of 11 ids; 4, 9 and 10 are none
TOKENS = [0, 1, 2, 3, 5, 6, 7, 8]
HOLES = Transformer(dataclasses.replace(CONFIG, token_ranges=RANGES))


@functools.partial(jax.jit, static_argnums=0)
def logits_by(model, params, rows):
    """What the model makes of the rows."""
    return model.apply({"params": params}, rows.tokens, rows.mask).logits


def weights(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_what_is_no_token_is_never_sampled_and_the_policies_agree(temperature):
    """Probabilities are those of the logits of tokens alone: softmax over eight columns."""
    free, _ = responses(drawn(prompts_of(), temperature=temperature))
    assert np.isin(free, [4, 9, 10]).any()  # they would be
    samples = drawn(prompts_of(), model=HOLES, temperature=temperature)
    tokens, _ = responses(samples)
    assert np.isin(tokens, [-1, *TOKENS]).all()
    rows, params = samples.batch, params_of(MODEL)
    logits = logits_by(MODEL, params, rows)[:, :, TOKENS]
    column = np.searchsorted(TOKENS, rows.tokens)
    wanted = token_logps(jnp.asarray(logits), jnp.asarray(column), temperature=temperature)
    wanted = np.where(rows.response_mask, wanted, 0)
    np.testing.assert_allclose(samples.logps, wanted, atol=1e-5 / temperature)
    masked = logits_by(HOLES, params, rows)
    found = token_logps(masked, jnp.asarray(rows.tokens), temperature=temperature)
    found = np.where(rows.response_mask, found, 0)
    np.testing.assert_allclose(found[:, PROMPT:], wanted[:, PROMPT:], atol=1e-5)


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_fused_forms_are_those_of_the_columns_that_are_tokens(softcap):
    """Values and gradients, of the unembedding 0 where there is no token."""
    rng = np.random.default_rng(0)
    hidden, unembedding = weights(rng, 2, 5, 4), weights(rng, 4, 11) * 3
    actions = jnp.asarray(rng.integers(0, 8, (2, 5)))

    def fused(hidden, unembedding):
        logps, entropies = fused_action_logps_and_entropy(
            hidden,
            unembedding,
            jnp.array(TOKENS)[actions],
            temperature=0.7,
            softcap=softcap,
            chunk_size=4,
            token_ranges=RANGES,
        )
        return (logps + 2 * entropies).sum()

    def columns(hidden, unembedding):
        logits = logits_of(hidden, unembedding[:, jnp.array(TOKENS)], softcap) / 0.7
        return (action_logps(logits, actions) + 2 * entropy(logits)).sum()

    found, wanted = (
        jax.jit(jax.value_and_grad(f, (0, 1)))(hidden, unembedding) for f in (fused, columns)
    )
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    for one, other in zip(found[1], wanted[1], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    assert not found[1][1][:, [4, 9, 10]].any()


def test_exact_kl_is_over_tokens_alone():
    rng = np.random.default_rng(1)
    sides = [(weights(rng, 1, 3, 4), weights(rng, 4, 11)) for _ in range(2)]
    fused = jax.jit(functools.partial(fused_exact_kl, chunk_size=2, token_ranges=RANGES))
    kl = fused(*sides[0], *sides[1])
    logits = [logits_of(hidden, w[:, jnp.array(TOKENS)]) for hidden, w in sides]
    np.testing.assert_allclose(kl[:, 1:], exact_kl(*logits)[:, :-1], atol=1e-6)


def test_a_padded_model_samples_what_its_tokenizer_has(tmp_path):
    """270 tokens in a model of 280 ids, and a tokenizer of which one id is cut out."""
    small = tiny_policy(16)
    config = dataclasses.replace(small.model.config, vocab_size=280)
    model = Transformer(config)
    params = new_parameters(model, jax.random.key(0))
    padded = TextModel(model=model, params=params, tokenizer=small.tokenizer)
    save_text_model(tmp_path, padded)
    size = small.tokenizer.vocab_size
    assert load_text_model(tmp_path, "model").model.config.token_ranges == ((0, size),)
    written = json.loads((tmp_path / "tokenizer.json").read_text())
    lost = next(t for t, i in written["model"]["vocab"].items() if i == size - 1)
    del written["model"]["vocab"][lost]
    written["model"]["vocab"]["new token"] = size + 2
    pairs = [m for m in written["model"]["merges"] if "".join(m) != lost]
    written["model"]["merges"] = pairs
    (tmp_path / "tokenizer.json").write_text(json.dumps(written))
    loaded = load_text_model(tmp_path, "model")
    assert loaded.model.config.token_ranges == ((0, size - 1), (size + 2, size + 3))
    save_text_model(tmp_path / "again", loaded)
    again = load_text_model(tmp_path / "again", "model").model.config
    assert again == loaded.model.config
    save_text_model(tmp_path / "whole", small)
    assert load_text_model(tmp_path / "whole", "model").model.config.token_ranges == ()
    assert train_bpe(["a"], 260).id_ranges == ((0, train_bpe(["a"], 260).vocab_size),)


@pytest.mark.parametrize("vocab_size", [9, 11, 20])
def test_a_teacher_that_is_padded_otherwise_teaches_the_same(vocab_size):
    """The student has 11 ids, of which 8 are tokens; the teacher's weights of these are the same.

    By hand: the KL of the two distributions over the columns that are tokens.
    """
    rng = np.random.default_rng(2)
    rows = prompts_of()
    rows = dataclasses.replace(rows, prompt_mask=rows.mask & False, response_mask=rows.mask)
    rows = dataclasses.replace(rows, tokens=np.array(TOKENS, np.int32)[rows.tokens % 8])
    config = dataclasses.replace(HOLES.config, vocab_size=vocab_size)
    params = dict(params_of(MODEL))
    embedding = rng.normal(0, 1, (vocab_size, config.width)).astype(np.float32)
    embedding[TOKENS] = params["trunk"]["embedding"][TOKENS]
    taught = params | {"trunk": params["trunk"] | {"embedding": embedding}}
    teacher = TextModel(model=Transformer(config), params=taught, tokenizer=None)  # pyright: ignore
    run = SimpleNamespace(layout=make_layout("device"))
    batch = teacher_pass(run, teacher, 11)(rows)  # pyright: ignore[reportArgumentType]
    logits = logits_by(MODEL, params, rows)
    assert batch.teacher_logits.shape == logits.shape
    found = jax.nn.softmax(batch.teacher_logits)
    wanted = jax.nn.softmax(logits[..., jnp.array(TOKENS)])
    real = rows.mask
    np.testing.assert_allclose(found[..., TOKENS][real], wanted[real], atol=1e-5)
    assert not found[..., [4, 9, 10]].any()
    student = {**params, "trunk": jax.tree.map(lambda x: x * 0.9, params["trunk"])}
    compared = jax.jit(text_divergences(HOLES), static_argnums=4)
    divergences = compared(student, rows, None, batch.teacher_logits, forward_kl_loss)
    own = logits_by(HOLES, student, rows)[..., jnp.array(TOKENS)]
    kl = jnp.sum(wanted * (jnp.log(wanted) - jax.nn.log_softmax(own)), axis=-1)
    both = real[:, 1:] & real[:, :-1]
    np.testing.assert_allclose(divergences[:, 1:][both], kl[:, :-1][both], atol=2e-4)


def test_the_chance_of_two_equal_draws_is_that_of_the_tokens():
    """What WPO is aligned by: padding of the vocabulary would lower it."""
    rng = np.random.default_rng(3)
    hidden, unembedding = rng.normal(size=(2, 3, 5)), rng.normal(size=(5, 11))
    outputs = SimpleNamespace(
        hidden=jnp.asarray(hidden, jnp.float32),
        unembedding=jnp.asarray(unembedding, jnp.float32),
        softcap=None,
        token_ranges=RANGES,
    )
    found = log_collisions_of(outputs, jnp.zeros((2, 3), jnp.int32), temperature=0.8)
    chances = np.exp((hidden @ unembedding)[:, :, TOKENS] / 0.8)
    chances /= chances.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(found, np.log((chances**2).sum(axis=-1)), atol=1e-5)
