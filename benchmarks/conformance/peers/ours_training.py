"""This library's updates of a tiny transformer, by `train_step`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxalign
from benchmarks.conformance.peers import data
from jaxalign import objectives
from jaxalign.batches.preferences import ComparisonBatch, PairLogps
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import token_row
from jaxalign.data.preference_batches import mismatched_rows, preference_batch, unpaired_batch
from jaxalign.data.tokenizer_training import train_tokenizer
from jaxalign.losses import BRADLEY_TERRY, DPO, KTO
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.functions import response_logps_of, text_logps, text_policy, text_scores
from jaxalign.models.transformer import Transformer
from jaxalign.recipes.text_models import TextModel, with_heads
from jaxalign.rollouts.text import sample_and_score
from jaxalign.train.step import initial_state, train_step

LENGTH, PADDED_LENGTH = 14, 20


def small_params():
    """Of a causal model that compiles quickly: each position sees the mean of what it has read."""
    rng = np.random.default_rng(0)
    shapes = {"embedding": (data.VOCABULARY, data.WIDTH), "readout": (data.WIDTH, data.VOCABULARY)}
    return {name: jnp.float32(rng.normal(0, 0.5, shape)) for name, shape in shapes.items()}


def small_hidden(params, rows):
    embedded = params["embedding"][rows.tokens] * rows.mask[..., None]
    seen = jnp.maximum(jnp.cumsum(rows.mask, axis=1), 1)[..., None]
    return jnp.tanh(embedded + jnp.cumsum(embedded, axis=1) / seen)


def small_logps(params, rows, keys=None):
    logits = small_hidden(params, rows) @ params["readout"]
    return jaxalign.token_logps(logits, rows.tokens)


def small_scores(params, rows, keys=None):
    """The hidden state of the last real token, read out by one column."""
    after = jnp.cumsum(rows.mask[:, ::-1], axis=1)[:, ::-1]
    last = (rows.mask & (after == 1))[..., None]
    return (small_hidden(params, rows) * last).sum(axis=1) @ params["readout"][:, 0]


@functools.cache
def model_and_params(**changes):
    config = TransformerConfig(
        vocab_size=data.VOCABULARY,
        max_length=data.POSITIONS,
        width=data.WIDTH,
        layers=1,
        heads=data.HEADS,
        kv_heads=data.HEADS,
        mlp_width=data.WIDTH,
        **changes,
    )
    model = Transformer(config)
    tokens = jnp.zeros((1, 2), jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), tokens, tokens == 0)["params"]
    return model, params


def rows_of(prompts, responses):
    return [
        token_row((prompt, False), (response, True))
        for prompt, response in zip(prompts, responses, strict=True)
    ]


def gradient(loss_fn, params, batch, micro_batches, **more):
    """What one step of plain gradient descent with rate 1 subtracts."""
    optimizer = optax.sgd(1.0)
    state = initial_state(params, optimizer, jax.random.key(0))
    step = jax.jit(
        functools.partial(
            train_step, loss_fn=loss_fn, optimizer=optimizer, micro_batches=micro_batches, **more
        )
    )
    new, _ = step(state, batch)
    moves = jax.tree.map(jnp.subtract, params, new.params)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(moves)])


def length_of(padded: bool) -> int:
    return PADDED_LENGTH if padded else LENGTH


@functools.cache
def sft_gradient(micro_batches, padded):
    params = small_params()
    rows = rows_of(data.PROMPTS, data.CHOSEN)
    batch = token_batch(rows, pad_id=data.PAD, length=length_of(padded))
    return gradient(objectives.sft(small_logps), params, batch, micro_batches)


def pairs(padded, reference):
    chosen, rejected = (rows_of(data.PROMPTS, side) for side in (data.CHOSEN, data.REJECTED))
    batch = preference_batch(chosen, rejected, pad_id=data.PAD, length=length_of(padded))
    return dataclasses.replace(batch, reference=reference)


def some_logps(seed):
    return np.random.default_rng(seed).normal(-20, 3, len(data.PROMPTS)).astype(np.float32)


@functools.cache
def dpo_gradient(micro_batches, padded):
    params = small_params()
    reference = PairLogps(chosen=some_logps(0), rejected=some_logps(1))
    loss_fn = objectives.paired(small_logps, DPO)
    return gradient(loss_fn, params, pairs(padded, reference), micro_batches)


@functools.cache
def dpo_start():
    """A model with dropout, as the stage trains it; reference log-probabilities computed once."""
    tokenizer = train_tokenizer(["a good film"], vocab_size=300)
    model, params = model_and_params(dropout=0.1)
    given = TextModel(model=model, params=params, tokenizer=tokenizer)
    policy = with_heads(given, ("logits",), jax.random.key(0), dropout=0.0)
    batch = pairs(False, None)
    summed, logps = response_logps_of(policy.model), text_logps(policy.model)

    def first_loss(params):
        reference = [summed(params, side) for side in (batch.chosen, batch.rejected)]
        scored = dataclasses.replace(
            batch, reference=PairLogps(chosen=reference[0], rejected=reference[1])
        )
        loss_fn = objectives.paired(logps, DPO)
        return loss_fn(params, scored, jax.random.key(0))

    loss, (weight, _) = jax.jit(first_loss)(policy.params)
    return float(loss / weight)


@functools.cache
def kto_gradient(micro_batches, padded):
    """KTO's KL is of the whole batch: added up over its parts first."""
    params = small_params()
    rows = rows_of(data.PROMPTS, data.CHOSEN)
    others = mismatched_rows(rows, max_length=LENGTH)
    batch = unpaired_batch(
        rows,
        np.array(data.LABELS),
        some_logps(0),
        pad_id=data.PAD,
        length=length_of(padded),
        mismatched=others,
        mismatched_reference=some_logps(1) - 40,
    )
    loss_fn = objectives.unpaired(small_logps, KTO)
    measure = objectives.unpaired_sums(small_logps, KTO)
    return gradient(loss_fn, params, batch, micro_batches, measure=measure)


@functools.cache
def reward_gradient(micro_batches, padded):
    params = small_params()
    sides = [rows_of(data.PROMPTS, side) for side in (data.CHOSEN, data.REJECTED)]
    rows = [row for pair in zip(*sides, strict=True) for row in pair]
    texts = token_batch(rows, pad_id=data.PAD, length=length_of(padded))
    texts = jax.tree.map(lambda x: x.reshape(-1, 2, *x.shape[1:]), texts)
    first_wins = np.tile(np.array([[0.0, 1.0], [0.0, 0.0]], np.float32), (len(rows) // 2, 1, 1))
    batch = ComparisonBatch(texts=texts, preferences=first_wins, margins=0 * first_wins)
    return gradient(objectives.reward(small_scores, BRADLEY_TERRY), params, batch, micro_batches)


@functools.cache
def grpo_gradient(micro_batches, padded):
    """Group-relative advantages first, of the whole batch; then any number of parts."""
    params = small_params()
    scores = jnp.array(data.GROUP_REWARDS).reshape(2, 2)
    advantages = jaxalign.grpo_advantages(scores, jnp.ones((2, 2), bool)).ravel()
    rows = rows_of(data.GROUP_PROMPTS, data.CHOSEN)
    rows = token_batch(rows, pad_id=data.PAD, length=length_of(padded))

    def loss_fn(params, batch, key):
        rows, advantages = batch
        logps = small_logps(params, rows)
        losses = jaxalign.grpo_loss(
            logps, jax.lax.stop_gradient(logps), advantages, 0 * logps, clip_range=0.2, kl_coef=0.0
        )
        weights, divisor = jaxalign.token_mean(rows.response_mask)
        return jaxalign.masked_sum(losses, weights), (divisor, {})

    return gradient(loss_fn, params, (rows, advantages), micro_batches)


@functools.cache
def left_padded_logps(padding):
    model, params = model_and_params(norm="layer", positions="learned", activation="gelu")
    row = rows_of(data.PROMPTS, data.CHOSEN)[1]
    batch = token_batch([row], pad_id=data.PAD, length=len(row) + padding, padding="left")
    logps = jax.jit(text_logps(model))(params, batch)
    return np.asarray(logps)[batch.response_mask]


@functools.cache
def reward_score(padding):
    model, params = model_and_params(heads_out=("score",))
    params = jax.tree.map(lambda x: x + 0.1, params)  # the readout starts at 0
    row = token_row(([*data.PROMPTS[0], data.EOS], False), (data.CHOSEN[0], True))
    batch = token_batch([row], pad_id=data.EOS, length=len(row) + padding)
    return jax.jit(text_scores(model))(params, batch)[0]


@functools.cache
def ppo_start(temperature):
    """Sampled, scored by the reference and evaluated for the loss; response tokens only."""
    model, params = model_and_params(heads_out=("logits", "value", "score"))
    collect = sample_and_score(
        model, model, model, temperature=temperature, max_new_tokens=4, eos_id=data.EOS
    )
    evaluate = text_policy(model, temperature=temperature)
    prompts = token_batch([token_row((p, False)) for p in data.PROMPTS], pad_id=data.PAD)

    @jax.jit
    def start(params, prompts):
        scored = collect((params, params, params, jax.random.key(1)), prompts)
        rows = scored.samples.batch
        experience = jaxalign.Experience(
            inputs=rows,
            actions=rows.tokens,
            mask=rows.response_mask,
            behaviour_logps=scored.samples.logps,
            values=scored.values,
            advantages=scored.values,
            returns=scored.values,
            index=rows.index,
        )
        logps, _, _ = evaluate(params, experience)
        return (logps, scored.samples.logps, scored.reference_logps), rows.response_mask

    found, mask = start(params, jax.tree.map(jnp.asarray, prompts))
    return [np.asarray(x)[np.asarray(mask)] for x in found]


TRAINING = {
    "dpo_start": (dpo_start, "objectives.paired of recipes.text_models.with_heads(dropout=0)"),
    "sft_gradient": (sft_gradient, "train_step, objectives.sft"),
    "dpo_gradient": (dpo_gradient, "train_step, objectives.paired"),
    "kto_gradient": (kto_gradient, "train_step, objectives.unpaired"),
    "reward_gradient": (reward_gradient, "train_step, objectives.reward"),
    "grpo_gradient": (grpo_gradient, "train_step, grpo_loss, token_mean"),
    "left_padded_logps": (left_padded_logps, "scoring.text_logps"),
    "reward_score": (reward_score, "scoring.text_scores"),
    "ppo_start": (ppo_start, "text_rollouts.sample_and_score, scoring.text_policy"),
}
