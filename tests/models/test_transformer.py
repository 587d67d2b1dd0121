"""The transformer against float64 loops, under every kind of padding, and in all its forms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.errors import UserError
from jaxalign.logprobs import token_logps
from jaxalign.models.layers import drop
from jaxalign.models.shared_prefix import SharedPrefix
from jaxalign.models.transformer import Transformer, empty_cache, unrolled
from tests import tiny_models
from tests.oracles import transformer as oracle
from tests.tiny_models import random_parameters

LENGTH = 7
LLAMA = dataclasses.replace(tiny_models.LLAMA, heads_out=("logits", "value", "score"))
GPT2 = dataclasses.replace(
    LLAMA,
    kv_heads=4,
    norm="layer",
    positions="learned",
    activation="gelu",
    qkv_biases=True,
    output_biases=True,
    mlp_biases=True,
    tie_embeddings=False,
    score_pooling="mean",
)
MIXED = dataclasses.replace(
    LLAMA,
    kv_heads=1,
    qkv_biases=True,
    output_biases=True,
    mlp_biases=True,
    activation="gelu",
    value_trunk="separate",
)
NOISY = dataclasses.replace(MIXED, dropout=0.2)
KEYS = jax.random.split(jax.random.key(0), 3)
# Weights of the sums of logits, values and scores in `gradient`.
ALL, VALUES, SCORES = (np.array(x, np.float32) for x in ((1, 1, 1), (0, 1, 0), (0, 0, 1)))


@functools.cache
def random_params(config):
    """Those of that network."""
    return random_parameters(Transformer(config))


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, tokens, mask, *, keys=None, cache=None):
    return Transformer(config).apply({"params": params}, tokens, mask, keys=keys, cache=cache)


def texts(rows=3, length=LENGTH):
    tokens = np.random.default_rng(0).integers(0, LLAMA.vocab_size, (rows, length))
    return tokens.astype(np.int32), np.ones((rows, length), bool)


def trunk_oracle(config, weights, row):
    return oracle.hidden_states(
        row,
        weights,
        heads=config.heads,
        kv_heads=config.kv_heads,
        norm=config.norm,
        positions=config.positions,
        epsilon=config.norm_epsilon,
    )


@pytest.mark.slow
@pytest.mark.parametrize("config", [LLAMA, GPT2, MIXED], ids=["llama", "gpt2", "mixed"])
def test_forward_pass_agrees_with_float64_loops(config):
    params = random_params(config)
    tokens, mask = texts()
    outputs = forward(config, params, tokens, mask)
    weights = jax.tree.map(np.asarray, params)
    unembedding = weights["trunk"]["embedding"].T
    unembedding = unembedding if config.tie_embeddings else weights["unembedding"]
    for row, text in enumerate(np.asarray(tokens)):
        hidden = trunk_oracle(config, weights["trunk"], text)
        critic = trunk_oracle(config, weights.get("value_trunk", weights["trunk"]), text)
        values = oracle.linear(critic, weights["value"]["readout"])[:, 0]
        pooled = hidden.mean(0) if config.score_pooling == "mean" else hidden[-1]
        score = oracle.linear(pooled, weights["score"]["readout"])[0]
        np.testing.assert_allclose(outputs.logits[row], hidden @ unembedding, atol=1e-4)
        np.testing.assert_allclose(outputs.values[row, 1:], values[:-1], atol=1e-4)
        assert outputs.values[row, 0] == 0
        np.testing.assert_allclose(outputs.scores[row], score, atol=1e-4)


def layouts_of(tokens, lengths, columns):
    """The same texts padded right, left and inside, with arbitrary ids where the mask is false."""
    rng = np.random.default_rng(5)
    for kind in ("right", "left", "inside"):
        mask = np.zeros((len(lengths), columns), bool)
        for row, n in enumerate(lengths):
            inside = np.sort(rng.choice(columns, n, replace=False))
            places = {"right": np.arange(n), "left": columns - n + np.arange(n), "inside": inside}
            mask[row, places[kind]] = True
        padded = rng.integers(0, LLAMA.vocab_size, mask.shape).astype(np.int32)
        padded[mask] = np.concatenate([tokens[row, :n] for row, n in enumerate(lengths)])
        yield padded, mask


@pytest.mark.slow
@pytest.mark.parametrize("config", [LLAMA, GPT2, MIXED], ids=["llama", "gpt2", "mixed"])
def test_padding_of_any_kind_changes_nothing(config):
    config = dataclasses.replace(config, dropout=0.3)
    params, lengths = random_params(config), (7, 4, 1)
    tokens, _ = texts()
    results = []
    for padded, mask in layouts_of(tokens, lengths, 12):
        outputs = forward(config, params, padded, mask, keys=KEYS)
        # Entry t depends on position t - 1, where padding must carry on from the last real token.
        logps = np.where(np.asarray(outputs.values) != 0, token_logps(outputs.logits, padded), 0)
        real = np.asarray(mask)
        results.append((logps[real], outputs.values[real], outputs.hidden[real], outputs.scores))
    for other in results[1:]:
        for left, right in zip(results[0], other, strict=True):
            np.testing.assert_allclose(left, right, atol=2e-5)


@pytest.mark.slow
def test_a_step_score_reads_the_token_it_stands_at():
    config = dataclasses.replace(MIXED, heads_out=("step_score",))
    params, lengths = random_params(config), (7, 4, 1)
    weights, (tokens, _) = jax.tree.map(np.asarray, params), texts()
    for padded, mask in layouts_of(tokens, lengths, 12):
        outputs = forward(config, params, padded, mask)
        assert outputs.scores is None and outputs.step_scores.shape == mask.shape
        assert not np.asarray(outputs.step_scores)[~mask].any()
        for row, n in enumerate(lengths):
            hidden = trunk_oracle(config, weights["trunk"], tokens[row, :n])
            scores = oracle.linear(hidden, weights["step_score"]["readout"])[:, 0]
            np.testing.assert_allclose(outputs.step_scores[row][mask[row]], scores, atol=1e-4)


@pytest.mark.slow
def test_the_future_has_no_influence_at_all():
    params = random_params(LLAMA)
    tokens, mask = texts()
    before = forward(LLAMA, params, tokens, mask)
    for t in (1, 4):
        changed = np.concatenate([tokens[:, :t], (tokens[:, t:] + 1) % 23], axis=1)
        after = forward(LLAMA, params, changed, mask)
        np.testing.assert_array_equal(after.hidden[:, :t], before.hidden[:, :t])
        np.testing.assert_array_equal(after.values[:, : t + 1], before.values[:, : t + 1])
        assert np.all(np.asarray(after.values[:, t + 1] != before.values[:, t + 1]))


@pytest.mark.slow
def test_grouped_queries_equal_repeated_key_value_heads():
    params = random_params(LLAMA)
    width = LLAMA.head_width

    def repeated(path, x):
        if not {"key", "value"} & {part.key for part in path[2:]}:
            return x
        return np.repeat(x.reshape(x.shape[0], 2, width), 2, axis=1).reshape(x.shape[0], -1)

    full = jax.tree_util.tree_map_with_path(repeated, {"trunk": params["trunk"]})
    tokens, mask = texts()
    grouped = forward(LLAMA, params, tokens, mask).hidden
    config = dataclasses.replace(LLAMA, kv_heads=4)
    np.testing.assert_allclose(
        grouped, forward(config, params | full, tokens, mask).hidden, atol=1e-5
    )


@functools.partial(jax.jit, static_argnums=0)
def gradient(config, params, tokens, mask, weights, keys=None):
    """Value and gradient of weighted sums of bounded functions of the logits, values and scores."""

    def total(params):
        outputs = forward(config, params, tokens, mask, keys=keys)
        sums = (jnp.sin(outputs.logits).sum(), outputs.values.sum(), outputs.scores.sum())
        return jnp.dot(jnp.stack(sums), weights)

    return jax.value_and_grad(total)(params)


@pytest.mark.slow
def test_scanned_and_recomputed_layers_change_neither_value_nor_gradient():
    scanned = dataclasses.replace(NOISY, scan_layers=True, remat=True)
    stacked = random_params(scanned)
    model, params = unrolled(Transformer(scanned), stacked)
    assert model.config == dataclasses.replace(NOISY, remat=True)
    total, grads = gradient(NOISY, params, *texts(), ALL, KEYS)
    scanned_total, scanned_grads = gradient(scanned, stacked, *texts(), ALL, KEYS)
    np.testing.assert_allclose(scanned_total, total, rtol=1e-5)
    _, scanned_grads = unrolled(Transformer(scanned), scanned_grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), scanned_grads, grads)


ENDS = {
    "llama": LLAMA,
    "gpt2": dataclasses.replace(GPT2, score_pooling="last"),
    "noisy, two trunks": NOISY,
    "windows": dataclasses.replace(LLAMA, windows=(0, 3)),
    "scanned, recomputed": dataclasses.replace(NOISY, scan_layers=True, remat=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS)
def test_the_last_columns_alone_are_what_they_are_among_all(name):
    """And so are their gradients; what is before them is 0."""
    config, last = ENDS[name], 3
    params, (tokens, _) = random_params(config), texts()
    mask = jnp.arange(LENGTH)[None] >= jnp.arange(3)[:, None]  # padded left

    def ends(params, **more):
        outputs = Transformer(config).apply({"params": params}, tokens, mask, keys=KEYS, **more)
        hidden, values = outputs.hidden[:, -last:], outputs.values[:, 1 - last :]
        total = jnp.sin(hidden).sum() + values.sum() + outputs.scores.sum()
        return total, (hidden, values, outputs.scores, outputs.hidden)

    fewer = functools.partial(ends, last=last)
    (_, wanted), slopes = jax.jit(jax.value_and_grad(ends, has_aux=True))(params)
    (_, given), given_slopes = jax.jit(jax.value_and_grad(fewer, has_aux=True))(params)
    for a, b in zip(given[:3], wanted[:3], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert given[3].shape == wanted[3].shape and not given[3][:, :-last].any()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), given_slopes, slopes)


@pytest.mark.slow
def test_a_network_with_a_score_alone_works_for_the_last_column_alone():
    """Of the last layer: the same scores, with less work."""
    config = dataclasses.replace(LLAMA, heads_out=("score",))
    params = random_params(LLAMA)
    alone = {name: part for name, part in params.items() if name not in ("value", "logits")}
    outputs = forward(config, alone, *texts())
    wanted = forward(LLAMA, params, *texts()).scores
    np.testing.assert_allclose(outputs.scores, wanted, atol=1e-5)
    assert not outputs.hidden[:, :-1].any() and outputs.hidden[:, -1].all()
    mean = dataclasses.replace(config, score_pooling="mean")
    assert forward(mean, alone, *texts()).hidden.all()


@pytest.mark.parametrize(
    ("last", "more", "least"),
    [
        (0, {}, 1),
        (8, {}, 1),
        (4, {"shared_prefix": SharedPrefix(columns=3, count=2)}, 5),
        (3, {"segments": jnp.zeros((3, LENGTH), jnp.int32)}, 1),
    ],
)
def test_last_columns_that_do_not_stand_for_themselves_are_one_clear_line(last, more, least):
    params, (tokens, mask) = random_params(LLAMA), texts()
    wanted = f"the last {last} columns of 7 do not stand for themselves: wanted {least} or more"
    with pytest.raises(UserError, match=wanted):
        Transformer(LLAMA).apply({"params": params}, tokens, mask, last=last, **more)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [{"heads_out": ("logits", "score"), "score_pooling": "mean"}, {"heads_out": ("step_score",)}],
    ids=["mean", "steps"],
)
def test_heads_that_read_all_columns_are_left_none_out(more):
    config = dataclasses.replace(LLAMA, **more)
    with pytest.raises(UserError, match=r"the last 3 columns of 7 .* wanted 7 or more"):
        Transformer(config).apply({"params": random_params(config)}, *texts(), last=3)


@pytest.mark.slow
@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_reading_in_pieces_with_a_cache_changes_nothing(config):
    params = random_params(config)
    tokens, _ = texts()
    for padded, mask in layouts_of(tokens[:, 1:], (6, 4, 1), 7):
        whole = forward(config, params, padded, mask)
        cache = empty_cache(config, padded, 9)
        start = 0
        for size in (3, 1, 3):
            piece = slice(start, start + size)
            outputs = forward(config, params, padded[:, piece], mask[:, piece], cache=cache)
            seen = np.cumsum(mask, axis=1)[:, piece] > 0
            expected = whole.hidden[:, piece][seen]
            np.testing.assert_allclose(outputs.hidden[seen], expected, atol=2e-5)
            cache, start = outputs.cache, start + size
        assert int(cache.length) == 7


@pytest.mark.slow
def test_bfloat16_computes_close_to_float32_and_sums_logits_in_float32():
    params = random_params(LLAMA)
    tokens, mask = texts()
    exact = forward(LLAMA, params, tokens, mask)
    config = dataclasses.replace(LLAMA, compute_dtype="bfloat16")
    rough = forward(config, params, tokens, mask)
    assert rough.hidden.dtype == jnp.bfloat16
    assert rough.logits.dtype == rough.values.dtype == rough.scores.dtype == jnp.float32
    assert np.any(rough.logits != rough.logits.astype(jnp.bfloat16).astype(jnp.float32))
    # About ten roundings of 2^-9 follow each other in two blocks: relative error of a few percent.
    scale = float(jnp.abs(exact.logits).max())
    assert 1e-6 * scale < float(jnp.abs(rough.logits - exact.logits).max()) < 0.05 * scale


@pytest.mark.slow
def test_dropout_belongs_to_the_example_and_is_off_without_keys():
    config = dataclasses.replace(LLAMA, dropout=0.3)
    params = random_params(config)
    tokens, mask = texts(3, 12)
    off = forward(config, params, tokens, mask).hidden
    np.testing.assert_array_equal(off, forward(LLAMA, params, tokens, mask).hidden)
    on = forward(config, params, tokens, mask, keys=KEYS).hidden
    assert np.all(np.abs(on - off).max(axis=(1, 2)) > 1e-2)
    others = np.array([2, 0, 2])
    moved = forward(config, params, tokens[others], mask[others], keys=KEYS[others]).hidden
    np.testing.assert_array_equal(moved, on[others])
    swapped = forward(config, params, tokens, mask, keys=KEYS[::-1]).hidden
    assert np.all(np.abs(on - swapped).max(axis=(1, 2))[[0, 2]] > 1e-2)


def test_drop_keeps_the_mean_and_drops_whole_features():
    keys = jax.random.split(jax.random.key(0), 200)
    dropped = np.asarray(jax.jit(drop, static_argnums=1)(jnp.ones((200, 3, 50)), 0.25, keys))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    # 10,000 draws: the standard error of the kept share is sqrt(0.25 * 0.75 / 10000) = 0.0043.
    assert abs((dropped > 0).mean() - 0.75) < 4 * 0.0043
    assert np.all(np.ptp(dropped, axis=1) == 0)  # one draw for all positions of a feature
    for axis in (0, 2):  # neither two examples nor two features share theirs
        assert np.all(np.ptp(dropped, axis=axis).mean() > 0.9)


@pytest.mark.slow
def test_separate_value_trunks_share_nothing_with_the_policy():
    _, shared = gradient(LLAMA, random_params(LLAMA), *texts(), VALUES)
    assert np.abs(shared["trunk"]["embedding"]).max() > 0
    _, separate = gradient(NOISY, random_params(NOISY), *texts(), VALUES, KEYS)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(separate["trunk"]))
    assert np.abs(separate["value_trunk"]["embedding"]).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["last", "mean"])
def test_a_row_without_tokens_scores_zero_and_has_finite_gradients(config):
    params = random_params(config)
    tokens, mask = texts()
    empty = mask & (np.arange(3) != 1)[:, None]
    outputs = forward(config, params, tokens, empty)
    assert outputs.scores[1] == 0 and not np.any(outputs.values[1])
    total, grads = gradient(config, params, tokens, empty, ALL)
    assert np.isfinite(total)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))

    _, with_empty = gradient(config, params, tokens, empty, SCORES)
    _, first_twice = gradient(config, params, tokens[[0, 0, 2]], mask, SCORES)
    _, last_twice = gradient(config, params, tokens[[0, 2, 2]], mask, SCORES)
    without = jax.tree.map(lambda a, b: (a + b) / 3, first_twice, last_twice)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), with_empty, without)


@pytest.mark.slow
def test_what_the_heads_lack_is_none_and_has_no_parameters():
    config = dataclasses.replace(GPT2, heads_out=("score",))
    params = random_params(config)
    assert set(params) == {"trunk", "score"} and set(params["score"]) == {"readout"}
    outputs = forward(config, params, *texts())
    assert outputs.unembedding is None and outputs.values is None and outputs.scores.shape == (3,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "width 16 must be a multiple of heads 5"),
        ({"kv_heads": 3}, "heads 4 must be a multiple of kv_heads 3"),
        ({"norm": "batch"}, "norm must be one of rms, layer; got 'batch'"),
        ({"heads_out": ("policy",)}, "heads_out must be one of logits, value, score"),
        ({"heads": 16, "kv_heads": 16}, "width / heads must be even, got 1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_impossible_configurations_are_one_clear_line(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(LLAMA, **changes)


@pytest.mark.slow
def test_too_many_columns_and_scanned_caches_are_one_clear_line():
    params = random_params(LLAMA)
    with pytest.raises(UserError, match="17 columns of tokens, but the model's max_length is 16"):
        forward(LLAMA, params, *texts(1, 17))
    config = dataclasses.replace(LLAMA, scan_layers=True)
    tokens, mask = texts(1, 3)
    cache = empty_cache(config, tokens, 8)
    with pytest.raises(UserError, match="unrolled"):
        forward(config, random_params(config), tokens, mask, cache=cache)
