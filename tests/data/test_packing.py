"""Several texts a row: the same numbers as a row each, and every text once an epoch."""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxalign import objectives
from jaxalign.batches.experience import Experience
from jaxalign.cli import dispatch
from jaxalign.config.sft import SFTConfig
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import TokenRow, token_row
from jaxalign.data.packing import best_fit, packed_batch, packed_rows
from jaxalign.errors import UserError
from jaxalign.layouts.choice import make_layout
from jaxalign.layouts.layout import pad_rows
from jaxalign.models.functions import (
    head_scores,
    pooled_texts,
    response_logps_of,
    text_divergences,
    text_logps,
    text_policy,
    text_scores,
    text_step_scores,
)
from jaxalign.models.lora import ADAPTERS, Adapted, new_adapters
from jaxalign.models.transformer import Transformer, TransformerConfig, empty_cache
from jaxalign.train.metrics import read_metrics
from jaxalign.train.step import initial_state, train_step
from tests.metric_lines import lines_without_times
from tests.tiny_models import GEMMA

WORDS, PAD, LENGTH = 13, 12, 16
SMALL = {
    "vocab_size": WORDS,
    "max_length": 9,  # the longest text; rows are longer
    "width": 16,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "mlp_width": 24,
}
MODELS = {
    "gpt2": {
        "norm": "layer",
        "positions": "learned",
        "activation": "gelu",
        "kv_heads": 2,
        "value_trunk": "separate",
        "layers": 1,
    },
    "gemma": GEMMA,
    "scanned": {"windows": (0, 4), "scan_layers": True, "remat": True},
}
# Which of the texts share a row, of LENGTH tokens and less; one row is full.
PLACES = [[4, 0, 2], [3], [5, 1, 6]]
SIZES = (5, 2, 3, 9, 8, 7, 1)


def texts(seed=0):
    """Prompts, responses and a turn of somebody else; the last two have no prompt."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, size in enumerate(SIZES):
        flags = np.arange(size) >= (1 + number % 2 if number < 5 else 0)
        flags[5:6] = False
        rows.append(TokenRow(rng.integers(0, WORDS, size).astype(np.int32), flags))
    return rows


def packed_texts(places=PLACES):
    rows = texts()
    return packed_batch([[rows[i] for i in row] for row in places], pad_id=PAD, length=LENGTH,
                        index=places)  # fmt: skip


def model_and_params(name, *, lora=False, **changes):
    model = Transformer(TransformerConfig(**SMALL | MODELS[name] | changes))
    tokens = jnp.zeros((1, 2), jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens, tokens == 0)["params"]
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    if lora:
        some = [".*/query", ".*/down"]
        adapters = new_adapters(params, model.config, some, rank=2, key=jax.random.key(1))
        model, params = Adapted(transformer=model, scale=2.0, dropout=0.3), dict(params)
        params[ADAPTERS] = adapters
    noise = np.random.default_rng(1)
    flat = {
        path: jnp.asarray((path[-1] == "scale") + 0.4 * noise.normal(size=x.shape), jnp.float32)
        for path, x in flatten_dict(params).items()
    }
    return model, unflatten_dict(flat)


def of_each_text(batch, x):
    """`x [B, T]` of packed rows as one array a text, by its index."""
    found = {}
    for b, row in enumerate(PLACES):
        for s, i in enumerate(row):
            found[i] = np.asarray(x)[b][batch.mask[b] & (batch.segments[b] == s)]
    return [found[i] for i in range(len(SIZES))]


def experience(batch):
    fields = dict.fromkeys(field.name for field in dataclasses.fields(Experience))
    return Experience(**fields | {"inputs": batch})


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_number_is_that_of_the_text_alone(name):
    model, params = model_and_params(name, heads_out=("logits", "value"))
    policy = jax.jit(text_policy(model, temperature=0.7))
    batch, alone = packed_texts(), token_batch(texts(), pad_id=0)
    numbers = (policy(params, experience(rows)) for rows in (batch, alone))
    for ours, theirs in zip(*numbers, strict=True):  # log-probabilities, entropies, values
        assert np.abs(theirs).max() > 0.1
        for i, x in enumerate(of_each_text(batch, ours)):
            np.testing.assert_allclose(x, theirs[i][: SIZES[i]], atol=2e-5)
            assert x[0] == 0  # nothing predicts a first token


def test_scores_of_steps_and_distillation_are_those_of_the_text_alone():
    model, params = model_and_params("gpt2", heads_out=("logits", "step_score"))
    rng = np.random.default_rng(3)
    teacher = rng.normal(size=(3, LENGTH, WORDS)).astype(np.float32)
    batch, alone = packed_texts(), token_batch(texts(), pad_id=0)
    apart = np.zeros((len(SIZES), max(SIZES), WORDS), np.float32)
    for v in range(WORDS):
        for i, x in enumerate(of_each_text(batch, teacher[..., v])):
            apart[i, : SIZES[i], v] = x

    @jax.jit
    def numbers(rows, teacher):
        divergences = text_divergences(model)(params, rows, None, teacher, forward_kl)
        return text_step_scores(model)(params, rows), divergences

    for ours, theirs in zip(numbers(batch, teacher), numbers(alone, apart), strict=True):
        assert np.abs(theirs).max() > 0.1
        for i, x in enumerate(of_each_text(batch, ours)):
            np.testing.assert_allclose(x, theirs[i][: SIZES[i]], atol=2e-5)


def forward_kl(student, teacher):
    """Sum of p log(p / q), `[B, T]`."""
    q, p = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
    return (jnp.exp(p) * (p - q)).sum(-1)


def test_no_text_reads_another():
    """Another token in one text changes not a bit of the others, nor their gradient of it."""
    model, params = model_and_params("gemma")
    batch = packed_texts()
    logps = jax.jit(text_logps(model))
    before = np.asarray(logps(params, batch))
    tokens = batch.tokens.copy()
    tokens[0, 8] = (tokens[0, 8] + 1) % WORDS  # the first token of text 0, behind text 4
    after = np.asarray(logps(params, dataclasses.replace(batch, tokens=tokens)))
    own = np.zeros(before.shape, bool)
    own[0, 8:13] = True
    np.testing.assert_array_equal(after[~own], before[~own])
    assert np.abs(after - before)[0, 9:13].min() > 1e-5


def losses_and_grads(model, params, *batches):
    """Of each batch, and its loss with other noise."""
    loss = jax.jit(jax.value_and_grad(objectives.sft(text_logps(model)), has_aux=True))
    for batch in batches:
        other = loss(params, batch, jax.random.key(6))[0][0]
        (value, (weight, _)), grads = loss(params, batch, jax.random.key(5))
        yield value, weight, jax.tree.leaves(grads), other


@pytest.mark.slow
def test_loss_and_gradient_are_those_of_a_row_each():
    """With adapters and dropout: its noise is that of the text, whichever row it stands in."""
    model, params = model_and_params("scanned", dropout=0.3, lora=True, remat=False)
    batches = (packed_texts(), token_batch(texts(), pad_id=0))
    ours, theirs = losses_and_grads(model, params, *batches)
    assert ours[1] == theirs[1] == sum(row.is_response.sum() for row in texts())
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    assert abs(ours[0] - ours[3]) > 1e-2
    scale = max(float(np.abs(x).max()) for x in theirs[2])
    assert scale > 1e-2
    for x, y in zip(ours[2], theirs[2], strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5 * scale)  # float32 sums in another order


@pytest.mark.slow
def test_in_double_precision_they_agree_to_1e_10(x64):
    model, params = model_and_params("gemma", layers=1, windows=(3,), dropout=0.2)
    object.__setattr__(model.config, "compute_dtype", "float64")  # no choice of a user
    params = jax.tree.map(np.float64, params)
    batches = (packed_texts(), token_batch(texts(), pad_id=0))
    ours, theirs = losses_and_grads(model, params, *batches)
    assert ours[0].dtype == np.float64 and ours[0] > 10 and abs(ours[0] - ours[3]) > 1e-2
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12)
    for x, y in zip(ours[2], theirs[2], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10)


@functools.cache
def stepped(layout, devices, micro_batches, packed):
    """Parameters after one update, and metrics."""
    model, params = model_and_params("gpt2", dropout=0.2)
    batch = packed_texts() if packed else token_batch(texts(), pad_id=0)
    batch = pad_rows(batch, 16)[0]
    place = make_layout(layout, devices=devices)
    optimizer = optax.sgd(0.1)
    step = functools.partial(
        train_step,
        loss_fn=objectives.sft(text_logps(model)),
        optimizer=optimizer,
        micro_batches=micro_batches,
    )
    state = place.place(initial_state(params, optimizer, jax.random.key(0)))
    state, metrics = place.step(step)(state, batch)
    return jax.device_get((state.params, metrics))


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "devices"), [("pmap", 8), ("mesh", 8)])
def test_devices_and_micro_batches_change_nothing(layout, devices):
    params, metrics = stepped(layout, devices, 2, True)
    expected, other = stepped("device", 1, 1, False)
    np.testing.assert_allclose(metrics["loss"], other["loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], other["grad_norm"], rtol=1e-4)
    for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6)


def test_a_packed_batch_holds_its_texts():
    rows = [token_row(([7, 8], False), ([9], True)), token_row(([4], True)), token_row(([5], True))]
    batch = packed_batch([rows[:2], rows[2:]], pad_id=PAD, length=5)
    assert batch.tokens.tolist() == [[7, 8, 9, 4, PAD], [5, PAD, PAD, PAD, PAD]]
    assert batch.prompt_mask.tolist() == [[1, 1, 0, 0, 0], [0] * 5]
    assert batch.response_mask.tolist() == [[0, 0, 1, 1, 0], [1, 0, 0, 0, 0]]
    assert batch.segments.tolist() == [[0, 0, 0, 1, 1], [0] * 5]
    assert batch.index.tolist() == [[0, 1], [2, 0]]
    given = packed_batch([rows[:2]], pad_id=PAD, texts=3, index=[[8, 6]])
    assert given.index.tolist() == [[8, 6, 0]] and given.tokens.shape == (1, 4)
    assert (given.segments.dtype, given.index.dtype) == (np.int32, np.int32)
    with pytest.raises(UserError, match="4 tokens does not fit length 3"):
        packed_batch([rows[:2]], pad_id=PAD, length=3)
    with pytest.raises(UserError, match="a row of 2 texts does not fit into 1 places"):
        packed_batch([rows[:2]], pad_id=PAD, texts=1)


def best_fit_oracle(lengths, capacity):
    """Every row is looked at for every text."""
    rows = []
    for place, length in enumerate(lengths):
        rooms = [capacity - sum(lengths[i] for i in row) for row in rows]
        fitting = [(room, number) for number, room in enumerate(rooms) if room >= length]
        if fitting:
            rows[min(fitting)[1]].append(place)
        else:
            rows.append([place])
    return rows, sorted(capacity - sum(lengths[i] for i in row) for row in rows)


@pytest.mark.parametrize("seed", range(4))
def test_best_fit_leaves_the_rooms_that_it_should(seed):
    """Of rows that are equally full any may be taken: the rooms are the same."""
    rng = np.random.default_rng(seed)
    lengths = np.sort(rng.integers(1, 20, 60))[::-1].tolist()
    rows = best_fit(lengths, 24)
    assert sorted(place for row in rows for place in row) == list(range(60))
    rooms = sorted(24 - sum(lengths[i] for i in row) for row in rows)
    expected, expected_rooms = best_fit_oracle(lengths, 24)
    assert rooms == expected_rooms and len(rows) == len(expected) and min(rooms) >= 0


def test_every_text_comes_once_an_epoch_in_rows_that_hold_it():
    lengths = np.random.default_rng(0).integers(3, 30, 101)
    order = packed_rows(lengths, capacity=32, batch_size=6, seed=0)
    together = []
    for epoch in range(3):
        steps = range(epoch * order.batches, (epoch + 1) * order.batches)
        batches = [order.batch(step) for step in steps]
        rows = [row for batch in batches for row in batch]
        assert sorted(np.concatenate(rows)) == list(range(101))
        assert max(lengths[row].sum() for row in rows) <= 32
        assert all(len(batch) == 6 for batch in batches[:-1]) and 0 < len(batches[-1]) <= 6
        assert max(map(len, rows)) == order.texts
        together.append({tuple(sorted(row)) for row in rows})
    assert together[0] != together[1]  # texts do not keep their neighbours
    assert len(rows) == len(best_fit_oracle(sorted(lengths.tolist(), reverse=True), 32)[0])
    again = packed_rows(lengths, capacity=32, batch_size=6, seed=0)
    for step in (2 * order.batches + 3, 5, 0):  # a pure function of the step, in any order
        for x, y in zip(again.batch(step), order.batch(step), strict=True):
            np.testing.assert_array_equal(x, y)
    other = packed_rows(lengths, capacity=32, batch_size=6, seed=1)
    assert [r.tolist() for r in other.batch(0)] != [r.tolist() for r in order.batch(0)]


def test_what_cannot_be_packed_is_one_clear_line():
    with pytest.raises(UserError, match="a text of 9 tokens does not fit rows of 8"):
        packed_rows([3, 9], capacity=8, batch_size=2, seed=0)
    with pytest.raises(UserError, match="no examples"):
        packed_rows([], capacity=8, batch_size=2, seed=0)
    with pytest.raises(UserError, match=r"length_buckets 2 .* packing .* leave one of them out"):
        SFTConfig(packing=True, length_buckets=2)
    with pytest.raises(UserError, match="length_buckets is 0; it must be at least 1"):
        SFTConfig(length_buckets=0)
    model, params = model_and_params("gpt2")
    batch = packed_texts()
    makers = (text_scores, response_logps_of, pooled_texts)
    for numbers in (*(make(model) for make in makers), head_scores(model.config)):
        with pytest.raises(UserError, match="a row gets one number here"):
            numbers(params, batch)
    cache = empty_cache(model.config, batch.tokens, 8)
    with pytest.raises(UserError, match="no segments or shared prefix"):
        model.apply(
            {"params": params}, batch.tokens, batch.mask, cache=cache, segments=batch.segments
        )


@pytest.mark.slow
def test_sft_packs_rows_counts_their_tokens_and_resumes_to_the_same_bits(
    tmp_path, monkeypatch, interrupted, capsys
):
    monkeypatch.setattr("jaxalign.recipes.finish.write_report", lambda directory: None)
    words = ["a", "fine", "film", "with", "a", "warm", "heart", "and", "a", "sly", "wit"]
    rows = [{"text": " ".join(words[: 2 + i % 9])} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"model.width": 16, "model.layers": 1, "model.heads": 2, "fit.batch_size": 2}
    fields |= {"data.path": tmp_path / "rows.jsonl", "data.max_length": 32, "packing": True}
    fields |= {
        "fit.log_every": 1,
        "fit.save_every": 2,
        "fit.steps": 4,
        "fit.optimizer.warmup_steps": 1,
    }
    fields |= {"model.dropout": 0.0, "place.layout": "device", "tokenizer.vocab_size": 300}
    given = [word for key, value in fields.items() for word in (f"--{key}", str(value))]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    dispatch(["sft", "--output", str(whole), *given])
    written = capsys.readouterr().out
    assert "\ndefaults of a small model: " in written
    said = re.search(r"20 texts in (\d+) rows of 32 tokens, ([0-9.]+)% of", written)
    interrupted(lambda: dispatch(["sft", "--output", str(parts), *given]))
    assert 0 < read_metrics(parts)[-1]["step"] < 4
    dispatch(["sft", "--output", str(parts), *given])
    files = [run / "model" / "model.safetensors" for run in (whole, parts)]
    assert files[0].read_bytes() == files[1].read_bytes()
    lines, again = (lines_without_times(run) for run in (whole, parts))
    assert lines == again
    assert int(said[1]) == 5  # 2, 2 and 1 of them are an epoch
    tokens = sum(line["tokens"] for line in lines[:3])
    assert tokens == pytest.approx(160 * (1 - float(said[2]) / 100), abs=0.1)
    for line in lines:
        assert line["padding"] == pytest.approx(1 - line["tokens"] / 64)
