"""Log-probabilities: the shift, the softmax, and the fused form against the dense one."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

import jaxalign
from jaxalign import (
    fused_token_logps,
    fused_token_logps_and_entropy,
    log_softmax,
)
from jaxalign.logprobs import (
    fused_action_logps_and_entropy,
    log_collisions,
    map_time_chunks,
    shift_right,
    tempered,
)
from tests.cases.logprobs import CASES
from tests.checks.of_cases import checks_of
from tests.oracles import logprobs as oracle

TestCases = checks_of(CASES)
token_logps = jax.jit(jaxalign.token_logps, static_argnames=("temperature",))
token_entropy = jax.jit(jaxalign.token_entropy, static_argnames=("temperature",))
action_logps = jax.jit(jaxalign.action_logps)
entropy = jax.jit(jaxalign.entropy)
sequence_logps = jax.jit(jaxalign.sequence_logps)


B, T, D, V = 3, 7, 4, 11


def draw(seed, scale=2.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(B, T, D)).astype(dtype)
    unembedding = (scale * rng.normal(size=(D, V))).astype(dtype)
    return hidden, unembedding, rng.integers(0, V, (B, T))


def test_shift_right_by_hand():
    x = jnp.arange(6).reshape(1, 3, 2)
    assert shift_right(x).tolist() == [[[0, 0], [0, 1], [2, 3]]]


def test_token_logps_by_hand():
    # Position 0 says 1/4, 3/4; position 1 says 1/2, 1/2; position 2 predicts nothing that we have.
    logits = jnp.log(jnp.array([[[1.0, 3.0], [1.0, 1.0], [1e-9, 1.0]]]))
    logps = token_logps(logits, jnp.array([[0, 1, 0]]))
    np.testing.assert_allclose(logps, np.log([[1.0, 0.75, 0.5]]), atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_collisions_are_sums_of_squares(scale):
    logits = (scale * np.random.default_rng(4).normal(size=(3, 2, V))).astype(np.float32)
    logits[0, 0, 3:] = -np.inf
    logits[0, 1] = 1e4  # uniform
    p = np.array([[np.exp(oracle.log_softmax(list(map(float, z)))) for z in row] for row in logits])
    np.testing.assert_allclose(log_collisions(logits), np.log((p**2).sum(-1)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.5])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_dense_against_the_chain_rule(x64, temperature, scale):
    hidden, unembedding, tokens = draw(0, scale)
    logits = hidden @ unembedding
    logps = token_logps(logits, tokens, temperature=temperature)
    expected = oracle.token_logps(logits, tokens, temperature)
    np.testing.assert_allclose(logps, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(
        token_entropy(logits, temperature=temperature),
        oracle.token_entropy(logits, temperature),
        rtol=1e-10,
        atol=1e-10,
    )


def test_probabilities_of_all_sequences_sum_to_one(x64):
    """A shift in the wrong direction, or a slice off by one, breaks the chain rule."""
    rng = np.random.default_rng(1)
    table = rng.normal(
        size=(3, 3, 3, 3)
    )  # next-token logits given the last two tokens and the time

    def logits_of(tokens):
        past = [0, *tokens]
        return [table[t, past[t], past[t + 1]] for t in range(len(tokens))]

    sequences = [(2, *rest) for rest in itertools.product(range(3), repeat=2)]
    logits = np.array([logits_of(s) for s in sequences])
    logps = sequence_logps(token_logps(logits, np.array(sequences)), np.ones((9, 3), bool))
    assert float(jnp.exp(logps).sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.slow
def test_only_earlier_logits_matter():
    """Entry t depends on logits t - 1 and on tokens t, on nothing else."""
    hidden, unembedding, tokens = draw(2)
    logits = jnp.asarray(hidden @ unembedding)
    jacobian = jax.jit(jax.jacobian(token_logps))(logits, tokens)  # [B, T, B, T, V]
    depends = np.asarray(jnp.any(jacobian != 0, axis=-1))
    expected = np.zeros((B, T, B, T), bool)
    for b, t in np.ndindex(B, T - 1):
        expected[b, t + 1, b, t] = True
    np.testing.assert_array_equal(depends, expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_half_precision_logits_are_summed_in_float32(dtype, scale):
    """Against float64 on the very same (rounded) logits.

    Bound: z - max is rounded once and the log of the sum is off by at most V + 1 roundings (one for
    each exponential and addition), relative to a sum of at least 1: eps (|z - max| + V + 2).
    """
    rng = np.random.default_rng(3)
    logits = jnp.asarray(scale * rng.normal(size=(4, 9, 300)), dtype)
    tokens = rng.integers(0, 300, (4, 9))
    logps = token_logps(logits, tokens)
    assert logps.dtype == jnp.float32
    assert (logps <= 0).all()
    exact = oracle.token_logps(np.asarray(logits, np.float64), tokens)
    span = float(jnp.ptp(logits.astype(jnp.float32)))
    np.testing.assert_allclose(logps, exact, rtol=0, atol=2**-24 * (span + 300 + 2))


def test_forbidden_outcomes_and_huge_logits_are_finite():
    logits = jnp.array([[1e4, -1e4, -jnp.inf], [3e4, 3e4, -jnp.inf], [-1e4, -jnp.inf, -jnp.inf]])

    def total(logits):
        return jnp.sum(action_logps(logits, jnp.array([1, 0, 0])) + entropy(logits))

    value, grads = jax.jit(jax.value_and_grad(total))(logits)
    assert float(value) == pytest.approx(-2e4 - np.log(2) + np.log(2))
    assert jnp.isfinite(grads).all()
    np.testing.assert_allclose(grads.sum(axis=-1), 0, atol=1e-6)  # softmax ignores a constant
    assert log_softmax(logits)[2, 0] == 0


def test_temperature_to_zero_is_greedy():
    logits = jnp.array([[[1.0, 2.0], [0.0, 0.0]]])
    logps = token_logps(logits, jnp.array([[0, 1]]), temperature=1e-6)
    assert logps.tolist() == [[0, 0]]
    assert float(token_logps(logits, jnp.array([[0, 0]]), temperature=1e-6)[0, 1]) < -9e5


@pytest.mark.slow
@pytest.mark.parametrize(("temperature", "softcap"), [(0.7, None), (1.0, None), (0.7, 1.5)])
@pytest.mark.parametrize("chunk_size", [1, 4, 6, B * T, 1000])
def test_fused_is_dense(x64, chunk_size, temperature, softcap):
    """Values and both gradients, whatever the chunks: uneven, one step, all at once."""
    hidden, unembedding, tokens = draw(4)
    rng = np.random.default_rng(5)
    logp_weights, entropy_weights = rng.normal(size=(2, B, T))

    def dense(hidden, unembedding):
        logits = hidden @ unembedding
        logits = logits if softcap is None else softcap * jnp.tanh(logits / softcap)
        logps = token_logps(logits, tokens, temperature=temperature)
        return logps, token_entropy(logits, temperature=temperature)

    def fused(hidden, unembedding):
        settings = {"temperature": temperature, "softcap": softcap, "chunk_size": chunk_size}
        return fused_token_logps_and_entropy(hidden, unembedding, tokens, **settings)

    def weighted(fn):
        def total(*args):
            logps, entropies = fn(*args)
            return jnp.sum(logps * logp_weights + entropies * entropy_weights), (logps, entropies)

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10),
        weighted(fused)(hidden, unembedding),
        weighted(dense)(hidden, unembedding),
    )


@pytest.mark.slow
def test_fused_second_order(x64):
    hidden, unembedding, tokens = draw(6, 0.5)

    def fused(hidden, unembedding):
        return fused_token_logps_and_entropy(hidden, unembedding, tokens, chunk_size=6)

    check_grads(jax.jit(fused), (hidden, unembedding), order=2, modes=["rev"])


@pytest.mark.slow
def test_dense_second_order(x64):
    hidden, unembedding, tokens = draw(7, 0.5)
    logits = hidden @ unembedding
    check_grads(
        jax.jit(lambda z: (token_logps(z, tokens), token_entropy(z))), (logits,), 2, modes=["rev"]
    )


@pytest.mark.slow
def test_fused_in_bfloat16_accumulates_in_float32():
    """Many identical rows: a bfloat16 sum of their gradients would stop growing at 256 of them."""
    rows = 2048
    hidden = jnp.ones((1, rows + 1, 2), jnp.bfloat16)
    unembedding = jnp.zeros((2, 2), jnp.bfloat16)
    tokens = jnp.zeros((1, rows + 1), jnp.int32)

    def total(unembedding):
        return fused_token_logps(hidden, unembedding, tokens, chunk_size=64).sum()

    value, grads = jax.jit(jax.value_and_grad(total))(unembedding)
    assert value.dtype == jnp.float32
    assert float(value) == pytest.approx(rows * np.log(0.5), rel=1e-6)
    # d logp / d z = 1/2 for the token and -1/2 for the other, times hidden 1, summed over the rows
    assert grads.astype(jnp.float32).tolist() == [[rows / 2, -rows / 2]] * 2


def test_fused_bfloat16_inputs_against_float64():
    """Products and sums of a logit round once in float32: eps D |h| |u|, then the dense bound."""
    hidden, unembedding, tokens = draw(8)
    hidden, unembedding = jnp.asarray(hidden, jnp.bfloat16), jnp.asarray(unembedding, jnp.bfloat16)
    logps = fused_token_logps(hidden, unembedding, tokens, chunk_size=5)
    logits = np.asarray(hidden, np.float64) @ np.asarray(unembedding, np.float64)
    size = np.abs(np.asarray(hidden, np.float64)) @ np.abs(np.asarray(unembedding, np.float64))
    bound = 2**-24 * (4 * D * size.max() + np.ptp(logits) + V + 2)
    np.testing.assert_allclose(logps, oracle.token_logps(logits, tokens), rtol=0, atol=bound)


def test_fused_under_vmap():
    hidden, unembedding, tokens = (np.stack(x) for x in zip(draw(9), draw(10), strict=True))

    def total(hidden, unembedding, tokens):
        return fused_token_logps(hidden, unembedding, tokens, chunk_size=5).sum()

    fn = jax.value_and_grad(total, argnums=(0, 1))
    together = jax.jit(jax.vmap(fn))(hidden, unembedding, tokens)
    for i in range(2):
        alone = jax.jit(fn)(hidden[i], unembedding[i], tokens[i])
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-5),
            together,
            alone,
        )


@pytest.mark.slow
@pytest.mark.parametrize("params", ["replicated", "varying"])
def test_fused_gradients_inside_shard_map(params):
    """Replicated parameters: jax sums the gradient over devices. Varying ones: the caller does."""
    rng = np.random.default_rng(11)
    hidden = rng.normal(size=(8, T, D)).astype(np.float32)
    unembedding = rng.normal(size=(D, V)).astype(np.float32)
    tokens = rng.integers(0, V, (8, T))
    mesh = jax.make_mesh((8,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))

    def total(unembedding, hidden, tokens):
        return fused_token_logps(hidden, unembedding, tokens, chunk_size=3).sum()

    def shard(unembedding, hidden, tokens):
        if params == "replicated":
            return jax.grad(total)(unembedding, hidden, tokens)
        own = jax.lax.pcast(unembedding, "i", to="varying")
        return jax.lax.psum(jax.grad(total)(own, hidden, tokens), "i")

    specs = (P(), P("i"), P("i"))
    sharded = jax.jit(jax.shard_map(shard, mesh=mesh, in_specs=specs, out_specs=P()))
    expected = jax.jit(jax.grad(total))(unembedding, hidden, tokens)
    np.testing.assert_allclose(sharded(unembedding, hidden, tokens), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_fused_gradients_under_pmap():
    rng = np.random.default_rng(12)
    hidden = rng.normal(size=(8, 1, T, D)).astype(np.float32)
    unembedding = rng.normal(size=(D, V)).astype(np.float32)
    tokens = rng.integers(0, V, (8, 1, T))

    def total(unembedding, hidden, tokens):
        return fused_token_logps(hidden, unembedding, tokens, chunk_size=3).sum()

    def device(unembedding, hidden, tokens):
        own = jax.lax.pcast(unembedding, "i", to="varying")
        return jax.lax.psum(jax.grad(total)(own, hidden, tokens), "i")

    mapped = jax.pmap(device, axis_name="i", in_axes=(None, 0, 0), out_axes=None)
    expected = jax.jit(jax.grad(total))(unembedding, hidden[:, 0], tokens[:, 0])
    np.testing.assert_allclose(mapped(unembedding, hidden, tokens), expected, rtol=1e-4, atol=1e-5)


def test_fused_memory_is_a_fraction_of_the_logits():
    """XLA's own account of temporaries, forward and gradient."""
    rows, length, width, vocabulary = 4, 128, 16, 4096
    shapes = [(rows, length, width), (width, vocabulary)]
    hidden, unembedding = (jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)
    tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32)

    def temporaries(fn):
        step = jax.jit(jax.grad(lambda *args: fn(*args).sum(), argnums=(0, 1)))
        return step.lower(hidden, unembedding, tokens).compile().memory_analysis()

    logits_bytes = 4 * rows * length * vocabulary
    dense = temporaries(lambda h, u, t: token_logps(h @ u, t)).temp_size_in_bytes
    fused = temporaries(lambda h, u, t: fused_token_logps(h, u, t, chunk_size=32))
    assert dense > logits_bytes
    # 32 of 512 tokens at a time: logits and their gradient, then the unembedding's gradient twice
    assert fused.temp_size_in_bytes < 0.25 * logits_bytes


def test_padding_and_order_change_nothing():
    """A row's numbers do not depend on its neighbours, on padding after it, or on its place."""
    hidden, unembedding, tokens = draw(13, dtype=np.float32)
    fused = jax.jit(functools.partial(fused_token_logps, chunk_size=8))
    logps = fused(hidden, unembedding, tokens)
    order = np.array([2, 0, 1])
    padded = np.pad(hidden[order], ((0, 2), (0, 4), (0, 0)), constant_values=7.0)
    padded_tokens = np.pad(tokens[order], ((0, 2), (0, 4)))
    longer = fused(padded, unembedding, padded_tokens)
    np.testing.assert_allclose(longer[:B, :T], logps[order], rtol=1e-5, atol=1e-6)


def test_sequence_logps_ignores_what_is_masked():
    token_logps = jnp.array([[0.0, -1.0, jnp.nan], [-1e4, -1e4, -1e4]])
    mask = jnp.array([[True, True, False], [False, False, False]])
    assert sequence_logps(token_logps, mask).tolist() == [-1, 0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: token_logps(jnp.zeros((2, 3, 4)), jnp.zeros((2, 4), int)),
        lambda: action_logps(jnp.zeros((2, 4)), jnp.zeros(2)),
        lambda: fused_token_logps(
            jnp.zeros((2, 3, 4)), jnp.zeros((5, 6)), jnp.zeros((2, 3), int), chunk_size=4
        ),
        lambda: fused_token_logps(
            jnp.zeros((2, 3, 4)), jnp.zeros((4, 6)), jnp.zeros(2, int), chunk_size=4
        ),
        lambda: fused_action_logps_and_entropy(
            jnp.zeros((2, 3, 4)), jnp.zeros((4, 6)), jnp.zeros((1, 3), int), chunk_size=4
        ),
        lambda: sequence_logps(jnp.zeros((2, 3)), jnp.zeros((2, 1), bool)),
    ],
)
def test_wrong_shapes_and_types_raise(call):
    with pytest.raises(AssertionError):
        call()


def test_actions_at_temperature_1():
    """Without a word on it: log 1/4 and log 3/4, and their entropy."""
    unembedding, actions = jnp.log(jnp.array([[1.0, 3.0]])), jnp.array([[0, 1]])
    logps, entropies = fused_action_logps_and_entropy(
        jnp.ones((1, 2, 1)), unembedding, actions, chunk_size=2
    )
    p = np.array([0.25, 0.75])
    np.testing.assert_allclose(logps, [np.log(p)], rtol=1e-6)
    np.testing.assert_allclose(entropies, [2 * [-p @ np.log(p)]], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "wanted"), [("temperature", "above 0"), ("chunk_size", "at least 1")]
)
def test_what_must_be_positive(name, wanted):
    settings = {"temperature": 1.0, "chunk_size": 4} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be {wanted}, got 0"):
        fused_token_logps(
            jnp.zeros((1, 2, 3)), jnp.zeros((3, 4)), jnp.zeros((1, 2), int), **settings
        )


def test_one_trace_over_many_calls():
    hidden, unembedding, tokens = draw(14, dtype=np.float32)
    traces = []

    @jax.jit
    def step(hidden):
        traces.append(1)
        return jaxalign.fused_token_logps(hidden, unembedding, tokens, chunk_size=4)

    for i in range(3):
        step(hidden + i)
    assert len(traces) == 1


@pytest.mark.parametrize("temperature", [1e-4, 1e-2])
def test_the_likeliest_token_is_certain_when_it_is_cold(temperature):
    # 1 / T = 1e4 magnifies a rounding of z / T to 1e-3, should the maximum be rounded otherwise
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(2, 6, 4)), jnp.float32)
    unembedding = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    tokens = jnp.argmax(jnp.roll(hidden @ unembedding, 1, axis=1), axis=-1)
    dense = jax.jit(lambda h, u: token_logps(h @ u, tokens, temperature=temperature))
    fused = jax.jit(
        lambda h, u: fused_token_logps(h, u, tokens, temperature=temperature, chunk_size=4)
    )
    gaps = jnp.sort(hidden @ unembedding, axis=-1)
    certain = np.asarray((gaps[..., -1] - gaps[..., -2])[:, :-1] > 40 * temperature)
    assert certain.sum() > 5
    for form in (dense, fused):
        np.testing.assert_array_equal(np.asarray(form(hidden, unembedding))[:, 1:][certain], 0)


def test_token_logps_takes_a_batch():
    """With an axis more, time would be taken for rows."""
    with pytest.raises(AssertionError):
        token_logps(jnp.zeros((1, 2, 3, 4)), jnp.zeros((1, 2, 3), int))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_temperature_1_leaves_logits_alone(dtype):
    """To the bit, type included."""
    logits = jnp.asarray([0.1, 300.7, -2.5], dtype)
    same = tempered(logits, 1.0)
    assert same.dtype == dtype
    np.testing.assert_array_equal(np.asarray(same, float), np.asarray(logits, float))


def test_fused_token_logps_takes_token_ids():
    """Reals would be compared with column numbers, and seldom be equal to one."""
    hidden, unembedding = jnp.zeros((1, 2, 3)), jnp.zeros((3, 4))
    with pytest.raises(AssertionError):
        fused_token_logps(hidden, unembedding, jnp.zeros((1, 2)), chunk_size=2)


def test_fused_token_logps_takes_one_vector_a_token():
    tokens = jnp.zeros((1, 2), int)
    with pytest.raises(AssertionError):
        fused_token_logps(jnp.zeros((1, 2, 3, 5)), jnp.zeros((3, 4)), tokens, chunk_size=2)


def chunk_shape(rows, length, chunk_size):
    """The shape of what a function gets at a time; all chunks together are the whole."""
    shapes, x = set(), jnp.arange(rows * length).reshape(rows, length)

    def identity(chunk):
        shapes.add(chunk.shape)
        return chunk

    np.testing.assert_array_equal(map_time_chunks(identity, (x,), chunk_size), x)
    (shape,) = shapes
    return shape


@pytest.mark.parametrize(("chunk_size", "steps"), [(1, 1), (4, 1), (7, 1), (8, 2), (100, 6)])
def test_chunks_are_no_larger_than_asked_for(chunk_size, steps):
    """Whole time steps of four rows: one at least, and as many as fit."""
    assert chunk_shape(4, 6, chunk_size) == (4, steps)


def test_chunks_of_a_single_row():
    """Three and three steps of at most four."""
    assert chunk_shape(1, 6, 4) == (1, 3)


def test_temperature_of_bfloat16_logits():
    """By hand, logits that bfloat16 holds but whose difference it does not: 1 + 2^-9."""
    logits = jnp.asarray([1.0, -(2.0**-9)], jnp.bfloat16)
    np.testing.assert_array_equal(tempered(logits, 0.5), [0.0, -2.0 - 2.0**-8])


def test_gradient_of_tempered_logits():
    """1 / T each: the largest one is subtracted as a constant."""
    slopes = jax.jacobian(functools.partial(tempered, temperature=0.5))(jnp.asarray([1.0, 3.0]))
    np.testing.assert_array_equal(slopes, [[2.0, 0.0], [0.0, 2.0]])


@pytest.mark.parametrize("shape", [(3,), (2,) * 8])
def test_shift_right_takes_an_array_with_time(shape):
    with pytest.raises(AssertionError):
        shift_right(jnp.zeros(shape))


def test_token_logps_takes_tokens_with_time():
    with pytest.raises(AssertionError):
        token_logps(jnp.zeros((1, 2, 3)), jnp.zeros(2, int))
