"""A group's prompt read once for all its samples: the same numbers as a row each."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxalign.batches.experience import ResponseBatch
from jaxalign.batches.preferences import OnlineBatch, ScoredResponses
from jaxalign.batches.shared_prompts import (
    behind_prompts,
    responses_in_a_row,
    shared_batch,
    shared_rows,
)
from jaxalign.batches.tokens import SharedPrompts, TokenBatch
from jaxalign.config.lora import LoraConfig
from jaxalign.layouts.device import on_device
from jaxalign.layouts.pmap import on_pmap
from jaxalign.logprobs import action_logps, entropy
from jaxalign.losses import GROUP_LOSSES, ONLINE_LOSSES
from jaxalign.losses.group_methods import with_parts
from jaxalign.models.functions import text_decisions, text_logps
from jaxalign.models.lora import Adapted, new_adapters
from jaxalign.models.transformer import Transformer, TransformerConfig
from jaxalign.objectives import group_policy_gradient, online
from jaxalign.rollouts.groups import sample_groups
from jaxalign.sampling import sample
from jaxalign.train.epochs import minibatch_rows, ppo_epochs_loop, selected_rows
from jaxalign.train.step import initial_state, summed_step

WORDS, PROMPT, NEW, EOS = 13, 6, 5, 2
KEY = jax.random.key(0)
SMALL = {"vocab_size": WORDS, "max_length": PROMPT + NEW, "width": 16, "layers": 2, "heads": 2}
LEARNED = {"norm": "layer", "positions": "learned", "activation": "gelu"}
MODELS = {
    "gemma": {
        "kv_heads": 1,
        "qk_norm": True,
        "windows": (3, 0),
        "window_rope_theta": 500.0,
        "softcap": 3.0,
    },
    "scanned": {"windows": (0, 4), "scan_layers": True, "remat": True},
    "adapted": {},
}


def model_and_params(name):
    given = SMALL | {"kv_heads": 2, "mlp_width": 24} | MODELS[name]
    cap = given.pop("softcap", None)
    model = Transformer(TransformerConfig(**given, attention_softcap=cap, logit_softcap=cap))
    params = random_params(model)
    if name == "adapted":
        adapters = new_adapters(params, model.config, LoraConfig().targets, rank=3, key=KEY)
        model, params = (
            Adapted(transformer=model, scale=0.7),
            params | {"adapters": moved(adapters)},
        )
    return model, params


def moved(params):
    noise = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.3 * noise.normal(size=x.shape).astype(x.dtype), params)


def random_params(model):
    tokens = jnp.zeros((1, 2), jnp.int32)
    return moved(jax.jit(model.init)(KEY, tokens, tokens == 0)["params"])


def sampled_rows(group, prompts=(4, 1, 6), seed=0):
    """As the sampler leaves them: prompts padded left, ragged responses from one column on."""
    rng = np.random.default_rng(seed)
    rows, columns = len(prompts) * group, PROMPT + NEW
    tokens = np.zeros((rows, columns), np.int32)
    masks = np.zeros((2, rows, columns), bool)
    for row in range(rows):
        length = prompts[row // group]
        start = np.random.default_rng(row // group).integers(0, WORDS, length)
        # no token, the EOS alone, and so on; no response where there is no prompt
        said = (row * 3 % (NEW + 2) - 1) % (NEW + 1) if length else 0
        tokens[row, PROMPT - length : PROMPT + said] = [*start, *rng.integers(3, WORDS, said)]
        if 0 < said < NEW:
            tokens[row, PROMPT + said - 1] = EOS
        masks[0, row, PROMPT - length : PROMPT] = True
        masks[1, row, PROMPT : PROMPT + said] = True
    index = np.arange(rows, dtype=np.int32)
    return TokenBatch(tokens=tokens, prompt_mask=masks[0], response_mask=masks[1], index=index)


def to_learn_from(rows, *, per_token=False, dtype=np.float32):
    """A batch whose every number matters, and in which one response is left out."""
    rng = np.random.default_rng(5)
    behaviour, reference = -2.5 + 0.4 * rng.normal(size=(2, *rows.tokens.shape)).astype(dtype)
    mask = rows.response_mask.copy()
    mask[-1] = False
    size = mask.shape if per_token else mask.shape[:1]
    return ResponseBatch(
        inputs=rows,
        mask=mask,
        behaviour_logps=behaviour,
        reference_logps=reference,
        advantages=rng.normal(size=size).astype(dtype),
        weights=rng.uniform(0.5, 2, mask.shape).astype(dtype),
        index=rows.index,
    )


def same(ours, theirs, **tolerance):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_logps_and_entropies_are_those_of_a_row_each(name):
    model, params = model_and_params(name)
    read = text_decisions(model, temperature=0.7)

    @jax.jit
    def both(params):
        found = []
        for group, prompts in ((2, (4, 1, 6, 0)), (5, (1, 5))):
            rows = sampled_rows(group, prompts)
            inputs = shared_rows(rows, count=group, longest=NEW)
            shared = [behind_prompts(x, PROMPT) for x in read(params, inputs)]
            found.append((shared, read(params, rows), rows.response_mask))
        return found

    for shared, alone, mask in both(params):
        assert np.asarray(mask).sum() > 8 and np.std(alone[0], where=mask) > 0.3
        for ours, theirs in zip(shared, alone, strict=True):
            assert not np.any(ours[:, :PROMPT])
            np.testing.assert_allclose(np.where(mask, ours - theirs, 0), 0, atol=2e-5)


@pytest.mark.slow
def test_loss_metrics_and_gradients_in_double_precision(x64, monkeypatch):
    monkeypatch.setattr(TransformerConfig, "dtype", property(lambda self: jnp.dtype("float64")))
    settings = SMALL | LEARNED | {"layers": 1, "kv_heads": 2, "mlp_width": 24}
    model = Transformer(TransformerConfig(**settings, windows=(3,)))
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), random_params(model))
    method = with_parts(GROUP_LOSSES["grpo"], entropy_coef=0.1)
    loss = group_policy_gradient(text_decisions(model, temperature=0.7), method, length=NEW)
    alone = to_learn_from(sampled_rows(4), dtype=np.float64)

    @jax.jit
    def both(params):
        batches = alone, shared_batch(alone, count=2, longest=NEW)
        return [jax.value_and_grad(loss, has_aux=True)(params, b, KEY) for b in batches]

    expected, ours = both(params)
    assert expected[0][0].dtype == jnp.float64
    assert min(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected[1])) > 1e-3
    assert 0 < expected[0][1][1]["policy/clip_fraction"][0] < alone.mask.sum()
    same(ours, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUP_LOSSES)
def test_every_method_learns_the_same(name, x64):
    """With a table of log-probabilities and entropies in the place of a model."""
    entropy = {"entropy_coef": 0.2}
    method = with_parts(GROUP_LOSSES[name], **entropy)
    batch = to_learn_from(sampled_rows(5), per_token=method.per_token, dtype=np.float64)
    table = tuple(batch.behaviour_logps + np.random.default_rng(9).normal(size=(2, 15, 11)) * 0.4)

    def evaluate(table, inputs, keys):
        if isinstance(inputs, SharedPrompts):
            return [x[:, PROMPT:].reshape(inputs.responses.shape) for x in table]
        return table

    gradient = jax.value_and_grad(group_policy_gradient(evaluate, method, length=NEW), has_aux=True)
    expected = gradient(table, batch, KEY)
    ours = gradient(table, shared_batch(batch, count=5, longest=NEW), KEY)
    assert abs(expected[0][0]) > 1e-3
    same(ours, expected, rtol=1e-12, atol=1e-12)


def bigrams(table, inputs, keys):
    """A policy that looks at the token before."""
    tokens = inputs.tokens if isinstance(inputs, TokenBatch) else inputs.responses
    before = jnp.roll(tokens, 1, axis=-1)
    if isinstance(inputs, SharedPrompts):
        before = before.at[:, :, 0].set(inputs.prompts[:, -1:])
    logits = table[before]
    return action_logps(logits, tokens), entropy(logits)


@pytest.mark.slow
def test_epochs_of_minibatches_in_parts_on_eight_devices():
    """Groups are dealt out whole; a step is that of the same responses in rows of their own."""
    group, minibatches, epochs = 2, 2, 2
    table = np.random.default_rng(3).normal(size=(WORDS, WORDS)).astype(np.float32)
    rows = sampled_rows(group, (4, 1, 6, 2) * 8)
    alone = jax.tree.map(jnp.asarray, to_learn_from(rows))
    loss = group_policy_gradient(bigrams, GROUP_LOSSES["grpo"], length=NEW)
    optimizer = optax.sgd(1.0)

    def state(layout):
        return layout.place(initial_state(table, optimizer, KEY))

    def step(layout, parts):
        one = functools.partial(summed_step, loss_fn=loss, optimizer=optimizer, micro_batches=parts)
        return layout.step(one)

    ours, metrics = ppo_epochs_loop(
        state(on_pmap()),
        shared_batch(alone, count=group, longest=NEW),
        KEY,
        step=step(on_pmap(), 2),
        epochs=epochs,
        minibatches=minibatches,
        take=selected_rows,
    )
    theirs, found = state(on_device()), []
    one_device = step(on_device(), 1)
    for part in minibatch_rows(KEY, rows=32, epochs=epochs, minibatches=minibatches):
        responses = np.repeat(part * group, group) + np.tile(np.arange(group), len(part))
        theirs, of_step = one_device(theirs, selected_rows(alone, responses))
        found.append(of_step)
    assert np.abs(theirs.params - table).max() > 0.1
    same(ours.params, theirs.params, atol=1e-5)
    means = {
        name: sum(x[name][0] for x in found) / sum(x[name][1] for x in found) for name in metrics
    }
    same(metrics, means, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["online_dpo", "xpo", "nash_md"])
def test_fresh_pairs_share_their_prompt(loss, x64):
    rows = [sampled_rows(1, (4, 1, 6, 0), seed) for seed in (0, 1)]
    rows[1] = dataclasses.replace(rows[1], response_mask=np.roll(rows[1].response_mask, 1, axis=0))
    rng = np.random.default_rng(4)
    scores, reference = rng.normal(size=(2, 2, 4))
    first, second = (
        ScoredResponses(responses=x, scores=y, reference=z)
        for x, y, z in zip(rows, scores, reference, strict=True)
    )
    batch = OnlineBatch(first=first, second=second, weights=np.array([1.0, 1, 1, 0]))
    table = rng.normal(size=(WORDS, WORDS))

    def token_logps(table, inputs, keys):
        return bigrams(table, inputs, keys)[0]

    expected, ours = (
        jax.value_and_grad(online(token_logps, ONLINE_LOSSES[loss], length=length), has_aux=True)(
            table, batch, KEY
        )
        for length in (None, NEW)
    )
    assert np.abs(expected[1]).max() > 1e-3
    same(ours, expected, rtol=1e-12, atol=1e-12)


@functools.cache
def sampler():
    given = {"kv_heads": 1, "mlp_width": 24, "layers": 1}
    model = Transformer(TransformerConfig(**SMALL | given))
    return model, random_params(model)


@pytest.mark.slow
@pytest.mark.parametrize(("temperature", "shared"), [(0.0, 4), (1.0, 2)])
def test_the_same_samples_from_prompts_read_once(temperature, shared):
    model, params = sampler()
    rows = sampled_rows(4, (4, 1, 0, 6))
    prompts = jax.tree.map(lambda x: x[:, :PROMPT] if x.ndim == 2 else x, rows)
    draw = functools.partial(sample, model, params, prompts, KEY, temperature=temperature)
    limits = {"max_new_tokens": NEW, "eos_id": EOS}
    ours, expected = jax.device_get([draw(repeats=n, **limits) for n in (shared, 1)])
    said = {tuple(row) for row in expected.batch.tokens[:4, PROMPT:].tolist()}
    assert len(said) == 1 if temperature == 0 else len(said) > 2
    assert not expected.batch.response_mask[8:12].any()
    same(ours.batch, expected.batch, rtol=0)
    np.testing.assert_allclose(ours.logps, expected.logps, atol=1e-5)


class Half:
    """A reward model: the share of the ids below 7."""

    def apply(self, variables, tokens, mask):
        scores = ((tokens < 7) & mask).sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)
        return dataclasses.make_dataclass("Outputs", ["scores"])(scores)


@pytest.mark.slow
def test_policy_and_reference_read_what_was_sampled():
    model, params = sampler()
    reference = jax.tree.map(lambda x: 0.8 * x, params)
    rows = sampled_rows(4, (4, 1, 6))
    prompts = jax.tree.map(lambda x: x[:, :PROMPT] if x.ndim == 2 else x, rows)
    limits = {"max_new_tokens": NEW, "eos_id": EOS, "temperature": 0.7, "shared": 4}
    collect = jax.jit(sample_groups(model, model, Half(), **limits))
    samples = collect((params, reference, {}, KEY), prompts)
    drawn = samples.scored.samples.batch
    logps, entropies = jax.jit(text_decisions(model, temperature=0.7))(params, drawn)
    frozen = jax.jit(text_logps(model, temperature=0.7))(reference, drawn)
    ours = samples.behaviour_logps, samples.entropies, samples.scored.reference_logps
    for x, y in zip(ours, (logps, entropies, frozen), strict=True):
        np.testing.assert_allclose(x, jnp.where(drawn.response_mask, y, x), atol=2e-5)
    np.testing.assert_allclose(
        jnp.where(drawn.response_mask, ours[0], 0), samples.scored.samples.logps, atol=2e-5
    )
    assert np.abs(ours[0] - ours[2])[drawn.response_mask].max() > 0.1


@pytest.mark.parametrize(
    ("group", "rows", "parts", "expected"),
    [(8, 64, 1, 8), (8, 64, 8, 8), (8, 64, 16, 4), (6, 12, 4, 3), (5, 10, 4, 1), (5, 5, 5, 1)],
)
def test_no_row_is_cut(group, rows, parts, expected):
    assert responses_in_a_row(group, rows=rows, parts=parts) == expected
