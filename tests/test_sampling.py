"""Sampling: what is drawn, from which distribution, and that nothing else has a say in it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.batches.tokens import TokenBatch
from jaxalign.errors import UserError
from jaxalign.logprobs import token_logps
from jaxalign.models.transformer import Transformer, TransformerConfig, unrolled
from jaxalign.sampling import categorical, filtered_logits, sample, sample_mixture

pytestmark = pytest.mark.compiled


VOCABULARY, PROMPT, NEW = 11, 5, 6
CONFIG = TransformerConfig(
    vocab_size=VOCABULARY, max_length=16, width=16, layers=1, heads=4, kv_heads=2, mlp_width=24
)
MODEL = Transformer(CONFIG)
EOS = 3
NEVER = VOCABULARY + 1  # an id that no token has: texts end only at the limit
LENGTHS = (5, 3, 1, 4, 2, 5, 3, 2)
forward = jax.jit(MODEL.apply)


@functools.cache
def params_of(model):
    """Weights large enough that the distributions are far from uniform."""
    tokens = np.zeros((1, 2), np.int32)
    params = jax.jit(model.init)(jax.random.key(0), tokens, tokens == 0)["params"]
    return jax.tree.map(lambda x: np.asarray(x) * (20 if x.shape[0] == VOCABULARY else 1), params)


def prompts_of(kind="left", order=slice(None)):
    """The same prompts (EOS tokens inside included), padded with EOS, in a given order."""
    rng = np.random.default_rng(1)
    tokens = np.full((len(LENGTHS), PROMPT), EOS, np.int32)
    mask = np.zeros(tokens.shape, bool)
    for row, n in enumerate(LENGTHS):
        inside = np.sort(np.random.default_rng(row).choice(PROMPT, n, replace=False))
        places = {"left": np.arange(PROMPT - n, PROMPT), "right": np.arange(n), "inside": inside}
        mask[row, places[kind]] = True
        tokens[row, places[kind]] = rng.integers(0, VOCABULARY, n)
        tokens[row, places[kind][0]] = EOS if row % 2 else 1
    index = np.arange(len(LENGTHS), dtype=np.int32) + 40
    rows = TokenBatch(tokens=tokens, prompt_mask=mask, response_mask=mask & False, index=index)
    return jax.tree.map(lambda leaf: leaf[order], rows)


def drawn(prompts, key=0, model=MODEL, **kwargs):
    settings = {"max_new_tokens": NEW, "eos_id": EOS} | kwargs
    samples = sample(model, params_of(model), prompts, jax.random.key(key), **settings)
    return jax.tree.map(np.asarray, samples)


def responses(samples):
    """Tokens and log-probabilities of the new columns, -1 and 0 where there is no token."""
    mask = samples.batch.response_mask[:, PROMPT:]
    return np.where(mask, samples.batch.tokens[:, PROMPT:], -1), samples.logps[:, PROMPT:]


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 1.5])
def test_log_probabilities_equal_those_of_the_training_path(temperature):
    prompts = prompts_of("inside")
    samples = drawn(prompts, temperature=temperature)
    rows = samples.batch
    logits = forward({"params": params_of(MODEL)}, rows.tokens, rows.mask).logits
    logps = np.where(
        rows.response_mask, token_logps(logits, rows.tokens, temperature=temperature), 0
    )
    assert np.ptp(logps) > 1
    # Logits of size 10 have float32 errors of a few 1e-6, divided by the temperature.
    np.testing.assert_allclose(samples.logps, logps, atol=1e-5 / temperature)


@pytest.mark.slow
def test_filtered_log_probabilities_equal_those_of_filtered_training_logits():
    settings = {"temperature": 0.7, "top_k": 5, "top_p": 0.8}
    samples = drawn(prompts_of(), **settings)
    rows = samples.batch
    logits = forward({"params": params_of(MODEL)}, rows.tokens, rows.mask).logits
    logps = token_logps(filtered_logits(logits, **settings), rows.tokens)
    np.testing.assert_allclose(samples.logps, np.where(rows.response_mask, logps, 0), atol=2e-5)
    assert np.isfinite(samples.logps).all()


@pytest.mark.slow
def test_a_response_depends_neither_on_padding_nor_on_the_other_rows():
    expected = responses(drawn(prompts_of("left")))
    order = np.array([6, 2, 2, 0, 5, 1, 3, 7])
    others = {
        "right": responses(drawn(prompts_of("right"))),
        "inside": responses(drawn(prompts_of("inside"))),
    }
    for tokens, logps in others.values():
        np.testing.assert_array_equal(tokens, expected[0])
        np.testing.assert_allclose(logps, expected[1], atol=1e-5)
    tokens, logps = responses(drawn(prompts_of("left", order)))
    np.testing.assert_array_equal(tokens, expected[0][order])
    np.testing.assert_allclose(logps, expected[1][order], atol=1e-5)
    assert len({tuple(row) for row in expected[0].tolist()}) > 4
    alone, _ = responses(drawn(prompts_of("left", [3])))
    np.testing.assert_array_equal(alone[0], expected[0][3])


@pytest.mark.slow
def test_noise_depends_on_key_and_index_alone():
    same = prompts_of("left", [0] * len(LENGTHS))
    repeated, _ = responses(drawn(same))
    assert np.all(repeated == repeated[0])
    indexed = dataclasses.replace(same, index=np.arange(len(LENGTHS), dtype=np.int32))
    first, _ = responses(drawn(indexed))
    assert len({tuple(row) for row in first.tolist()}) > 4
    again, _ = responses(drawn(indexed))
    np.testing.assert_array_equal(again, first)
    other, _ = responses(drawn(indexed, key=1))
    assert np.any(other != first)


@pytest.mark.slow
def test_eos_ends_a_response_and_belongs_to_it():
    prompts = prompts_of()
    ended = cut = 0
    for key in range(4):
        samples = drawn(prompts, key)
        tokens, mask = samples.batch.tokens[:, PROMPT:], samples.batch.response_mask[:, PROMPT:]
        np.testing.assert_array_equal(samples.batch.tokens[:, :PROMPT], prompts.tokens)
        np.testing.assert_array_equal(samples.batch.prompt_mask[:, :PROMPT], prompts.mask)
        assert not samples.batch.prompt_mask[:, PROMPT:].any()
        assert not samples.batch.response_mask[:, :PROMPT].any()
        for row, real, logps in zip(tokens, mask, samples.logps, strict=True):
            n = int(real.sum())
            assert n >= 1 and real[:n].all()
            assert EOS not in row[: n - 1]
            assert n == NEW or row[n - 1] == EOS
            assert not row[n:].any() and not logps[:PROMPT].any() and not logps[PROMPT + n :].any()
            ended, cut = ended + (row[n - 1] == EOS), cut + (row[n - 1] != EOS)
    assert ended and cut


@pytest.mark.slow
def test_a_token_limit_cuts_and_edits_nothing():
    long, long_logps = responses(drawn(prompts_of()))
    short, short_logps = responses(drawn(prompts_of(), max_new_tokens=3))
    np.testing.assert_array_equal(short, long[:, :3])
    np.testing.assert_allclose(short_logps, long_logps[:, :3], atol=1e-5)


@pytest.mark.slow
def test_minimal_length_forbids_eos_and_stays_normalised():
    samples = drawn(prompts_of(), min_new_tokens=NEW - 1)
    tokens, logps = responses(samples)
    assert not np.any(tokens[:, : NEW - 1] == EOS) and np.all(tokens[:, : NEW - 1] >= 0)
    rows = samples.batch
    logits = forward({"params": params_of(MODEL)}, rows.tokens, rows.mask).logits
    barred = np.where(np.arange(VOCABULARY) == EOS, -np.inf, logits[:, :-2])
    expected = token_logps(jnp.asarray(barred), rows.tokens[:, :-2])[:, PROMPT:]
    np.testing.assert_allclose(logps[:, : NEW - 2], expected[:, : NEW - 2], atol=2e-5)


@pytest.mark.slow
def test_rows_of_padding_stay_empty():
    prompts = prompts_of()
    real = np.arange(len(LENGTHS)) != 2
    prompts = dataclasses.replace(prompts, prompt_mask=prompts.prompt_mask & real[:, None])
    samples = drawn(prompts)
    assert not samples.batch.mask[2].any() and not samples.logps[2].any()
    tokens, _ = responses(samples)
    np.testing.assert_array_equal(tokens[real], responses(drawn(prompts_of()))[0][real])


@pytest.mark.slow
def test_the_loop_stops_when_every_row_has_ended():
    passes, (tokens, _) = [], responses(drawn(prompts_of()))
    short = np.any(tokens[:, :4] == EOS, axis=1)

    class Counting(Transformer):
        def __call__(self, tokens, mask, *, keys=None, cache=None):
            jax.debug.callback(lambda: passes.append(tokens.shape[1]))
            return super().__call__(tokens, mask, keys=keys, cache=cache)

    samples = sample(
        Counting(CONFIG),
        params_of(MODEL),
        prompts_of("left", short),
        jax.random.key(0),
        max_new_tokens=11,
        eos_id=EOS,
    )
    jax.block_until_ready(samples)
    jax.effects_barrier()
    longest = int(samples.batch.response_mask.sum(axis=1).max())
    assert passes == [PROMPT - 1] + [1] * longest and 1 < longest <= 4


@pytest.mark.slow
def test_one_trace_serves_all_calls_of_a_shape():
    drawn(prompts_of(), temperature=1.0)
    traces = sample._cache_size()
    for key in (5, 6):
        drawn(prompts_of("right"), key, temperature=1.0)
    assert sample._cache_size() == traces


@pytest.mark.slow
def test_draws_follow_the_distribution():
    rows = 4000
    tokens = np.tile(np.array([[1, 4]], np.int32), (rows, 1))
    index = np.arange(rows, dtype=np.int32)
    prompts = TokenBatch(
        tokens=tokens, prompt_mask=tokens > 0, response_mask=tokens < 0, index=index
    )
    samples = sample(
        MODEL, params_of(MODEL), prompts, jax.random.key(0), max_new_tokens=1, eos_id=NEVER
    )
    logits = forward({"params": params_of(MODEL)}, tokens[:1], tokens[:1] > 0).logits[0, -1]
    expected = rows * np.asarray(jax.nn.softmax(logits))
    counts = np.bincount(samples.batch.tokens[:, -1], minlength=VOCABULARY)
    likely = expected > 5
    chi_squared = ((counts - expected) ** 2 / expected)[likely].sum()
    assert likely.sum() > 3
    assert chi_squared < 30  # 99.9% quantile of chi squared with 10 degrees of freedom: 29.6


@functools.cache
def other_params():
    return jax.tree.map(
        lambda x: 0.8 * x[::-1] if x.shape[0] == VOCABULARY else x, params_of(MODEL)
    )


def drawn_of_both(prompts, mixture, **settings):
    settings = {"max_new_tokens": NEW, "eos_id": EOS} | settings
    both = (params_of(MODEL), other_params())
    key = jax.random.key(0)
    samples = sample_mixture((MODEL, MODEL), both, prompts, key, mixture=mixture, **settings)
    return jax.tree.map(np.asarray, samples)


def mixed_logps(rows, mixture, temperature):
    """`[B, T, V]` log-probabilities of what follows each token, in float64."""
    mixed = 0.0
    for params, weight in ((params_of(MODEL), 1 - mixture), (other_params(), mixture)):
        logits = forward({"params": params}, rows.tokens, rows.mask).logits
        mixed = mixed + weight * np.asarray(logits, np.float64) / temperature
    return mixed - np.log(np.exp(mixed).sum(-1, keepdims=True))


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_a_mixture_has_the_log_probabilities_of_its_normalised_logits(temperature):
    rows = (samples := drawn_of_both(prompts_of("inside"), 0.3, temperature=temperature)).batch
    logps = mixed_logps(rows, 0.3, temperature)[:, :-1]
    expected = np.take_along_axis(logps, rows.tokens[:, 1:, None], axis=-1)[..., 0]
    expected = np.where(rows.response_mask[:, 1:], expected, 0)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(samples.logps[:, 1:], expected, atol=2e-5)
    ours = drawn(prompts_of("inside"), temperature=temperature).batch.tokens
    assert np.any(ours != rows.tokens)


@pytest.mark.slow
def test_a_mixture_draws_each_token_as_often_as_it_should():
    rows = 4000
    tokens = np.tile(np.array([[1, 4]], np.int32), (rows, 1))
    index = np.arange(rows, dtype=np.int32)
    prompts = TokenBatch(
        tokens=tokens, prompt_mask=tokens > 0, response_mask=tokens < 0, index=index
    )
    samples = drawn_of_both(prompts, 0.4, max_new_tokens=1, eos_id=NEVER)
    shares = np.bincount(samples.batch.tokens[:, -1], minlength=VOCABULARY) / rows
    one = jax.tree.map(lambda x: x[:1], prompts)
    p, alone, other = (np.exp(mixed_logps(one, m, 1.0)[0, -1]) for m in (0.4, 0.0, 1.0))
    # Bernstein: |share - p| > bound has probability below 2 exp(-10) < 1e-4 for each token.
    bound = np.sqrt(2 * p * (1 - p) * 10 / rows) + 2 * 10 / (3 * rows)
    assert np.all(np.abs(shares - p) < bound)
    for wrong in (alone, other, 0.6 * alone + 0.4 * other):
        assert np.any(np.abs(shares - wrong) > bound)


@pytest.mark.slow
def test_the_ends_of_a_mixture_are_the_models():
    prompts = prompts_of()
    settings = {"max_new_tokens": NEW, "eos_id": EOS}
    for mixture, params in ((0.0, params_of(MODEL)), (1.0, other_params())):
        alone = sample(MODEL, params, prompts, jax.random.key(0), **settings)
        mixed = drawn_of_both(prompts, mixture)
        np.testing.assert_array_equal(mixed.batch.tokens, alone.batch.tokens)
        np.testing.assert_allclose(mixed.logps, alone.logps, atol=1e-5)  # two programs
        nearly = drawn_of_both(prompts, abs(mixture - 1e-6))
        np.testing.assert_array_equal(nearly.batch.tokens, alone.batch.tokens)
        np.testing.assert_allclose(nearly.logps, alone.logps, atol=1e-4)
    with pytest.raises(ValueError, match="mixture must be in"):
        drawn_of_both(prompts, 1.5)


@pytest.mark.slow
def test_scanned_models_draw_the_same():
    scanned = Transformer(dataclasses.replace(CONFIG, scan_layers=True))
    model, params = unrolled(scanned, params_of(scanned))
    settings = {"max_new_tokens": NEW, "eos_id": EOS}
    one = sample(model, params, prompts_of(), jax.random.key(0), **settings)
    two = drawn(prompts_of(), model=scanned)
    np.testing.assert_array_equal(one.batch.tokens, two.batch.tokens)


@pytest.mark.slow
def test_devices_draw_what_one_device_draws():
    prompts = prompts_of()
    halves = jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), prompts)
    run = jax.pmap(
        lambda params, rows, key: sample(MODEL, params, rows, key, max_new_tokens=NEW, eos_id=EOS),
        axis_name="devices",
        in_axes=(None, 0, None),
        devices=jax.devices()[:2],
    )
    samples = run(params_of(MODEL), halves, jax.random.key(0))
    joined = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), samples)
    expected = drawn(prompts)
    np.testing.assert_array_equal(joined.batch.tokens, expected.batch.tokens)
    np.testing.assert_array_equal(joined.batch.response_mask, expected.batch.response_mask)
    np.testing.assert_allclose(joined.logps, expected.logps, atol=1e-5)


def test_more_columns_than_the_model_has_is_one_clear_line():
    with pytest.raises(UserError, match="17 columns of tokens, but the model's max_length is 16"):
        drawn(prompts_of(), max_new_tokens=12)


def kept_by_definition(probabilities, top_p):
    """Sort, add up until top_p is reached: the papers' definition, in float64."""
    order = np.argsort(-probabilities)
    total, kept = 0.0, set()
    for token in order:
        if total >= top_p:
            break
        kept.add(int(token))
        total += probabilities[token]
    return kept


def test_top_p_keeps_the_fewest_tokens_that_reach_it():
    logits = np.random.default_rng(0).normal(0, 3, (40, 37)).astype(np.float32)
    for top_p in (0.05, 0.5, 0.9, 0.999):
        kept = np.isfinite(filtered_logits(jnp.asarray(logits), top_p=top_p))
        for row, real in zip(logits, kept, strict=True):
            probabilities = np.exp(row.astype(np.float64))
            expected = kept_by_definition(probabilities / probabilities.sum(), top_p)
            assert set(np.flatnonzero(real)) == expected


def test_filters_by_hand():
    logits = jnp.log(jnp.array([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25]]))

    def kept(**settings):
        return np.isfinite(filtered_logits(logits, **settings)).tolist()

    everything = [True] * 4
    assert kept() == [everything, everything]
    assert kept(top_k=2) == [[False, True, False, True], everything]  # ties are kept
    assert kept(top_k=9) == [everything, everything]
    assert kept(top_p=0.65) == [[False, True, False, True], everything]  # 0.4 + 0.3 >= 0.65
    assert kept(temperature=0) == [[False, True, False, False], everything]
    # Squared probabilities: 1, 16, 4, 9 of 30; 16 / 30 alone is above one half.
    assert kept(temperature=0.5, top_p=0.5)[0] == [False, True, False, False]
    squared = np.array([0.01, 0.16, 0.04, 0.09])
    colder = jax.nn.softmax(filtered_logits(logits, temperature=0.5))
    np.testing.assert_allclose(colder, [squared / 0.3, [0.25] * 4], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1e-4, 0])
def test_the_coldest_temperatures_take_the_likeliest_token_with_certainty(temperature):
    samples = drawn(prompts_of(), temperature=temperature)
    rows = samples.batch
    logits = forward({"params": params_of(MODEL)}, rows.tokens, rows.mask).logits
    likeliest = np.argmax(logits[:, PROMPT - 1 : -1], axis=-1)
    real = rows.response_mask[:, PROMPT:]
    np.testing.assert_array_equal(rows.tokens[:, PROMPT:][real], likeliest[real])
    np.testing.assert_allclose(samples.logps, 0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", [1, 2, 10, 97, 1000])
def test_categorical_inverts_the_distribution_function(vocabulary):
    rng = np.random.default_rng(vocabulary)
    weights = rng.random(vocabulary) * (rng.random(vocabulary) < 0.5)
    weights[0] = 1.0
    grid = (np.arange(100) + 0.5) / 100
    uniforms = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2).astype(np.float32)
    rows = np.tile(weights.astype(np.float32), (len(uniforms), 1))
    tokens = np.asarray(jax.jit(categorical)(rows, uniforms))
    shares = np.bincount(tokens, minlength=vocabulary) / len(tokens)
    # On the grid, the share of a block and of a token within it are each off by at most 1 / 100.
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.02)
    assert not shares[weights == 0].any()
    edges = np.array([[0, 0], [1 - 2**-24, 1 - 2**-24], [0, 1 - 2**-24]], np.float32)
    assert np.all(weights[np.asarray(jax.jit(categorical)(rows[:3], edges))] > 0)
