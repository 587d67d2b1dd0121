"""Log-probabilities of tokens and actions: the only place where tokens shift by one.

Convention: position t of every `[B, T]` result belongs to `tokens[t]` and comes from the logits of
position t - 1, which have seen `tokens[<t]`. Nothing predicts the first token: its entry is 0.
Callers multiply by a mask.

The dense functions take `[B, T, V]` logits. The fused ones take hidden states and the unembedding
matrix, make logits for a chunk of positions at a time, and make them again in the backward pass.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.numerics.arguments import assert_range, assert_rank, assert_same_shape, flags
from jaxalign.numerics.bounds import ABOVE_ZERO, COUNT
from jaxalign.numerics.masking import masked_sum
from jaxalign.numerics.matmul import product
from jaxalign.numerics.precision import widen
from jaxalign.numerics.types import Tree

__all__ = (
    "shift_right",
    "log_softmax",
    "action_logps",
    "entropy",
    "token_logps",
    "token_entropy",
    "sequence_logps",
    "fused_token_logps",
    "fused_token_logps_and_entropy",
)

Ranges = tuple[tuple[int, int], ...]
NO_TOKEN = -1e9  # the logit of an id that is no token


def shift_right(x: jax.Array) -> jax.Array:
    """`x` shifted one step later in time: entry t - 1 becomes entry t.

    Args:
      x: `[B, T, ...]`.

    Returns:
      `[B, T, ...]`, zeros at t = 0; the last step of `x` is dropped.

    Raises:
      AssertionError: `x` has no time axis.

    >>> shift_right(jnp.array([[1, 2, 3]])).tolist()
    [[0, 1, 2]]
    """
    chex.assert_rank(x, set(range(2, 8)))
    return jnp.concatenate([jnp.zeros_like(x[:, :1]), x[:, :-1]], axis=1)


def log_softmax(logits: jax.Array) -> jax.Array:
    """Normalised log-probabilities over the last axis, in float32 or wider; never above 0.

      log p_v = z_v - max z - log sum_u exp(z_u - max z)

    Args:
      logits: `[..., V]`; -inf forbids an outcome, at least one must be finite.

    Returns:
      `[..., V]` nats.

    >>> log_softmax(jnp.array([1e4, -jnp.inf])).tolist()
    [0.0, -inf]
    """
    (logits,) = widen(logits)
    shifted = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=-1, keepdims=True))


def tempered(logits: jax.Array, temperature: float) -> jax.Array:
    """Logits of the distribution at that temperature; below or above 1 the largest is exactly 0.

      (z_v - max z) / T

    The maximum is subtracted before the division: a compiler may contract z / T - max(z) / T into
    one operation without rounding z / T, and then the largest is off 0 by half an ulp of z / T.

    Args:
      logits: `[..., V]`; at least one must be finite.
      temperature: above 0.

    Returns:
      `[..., V]`, unnormalised; the logits themselves at temperature 1.

    Raises:
      ValueError: the temperature is not positive.

    >>> tempered(jnp.array([3.0, 1.0, -jnp.inf]), 0.5).tolist()
    [0.0, -4.0, -inf]
    """
    assert_range(ABOVE_ZERO, temperature=temperature)
    if temperature == 1:
        return logits
    (logits,) = widen(logits)
    return (logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))) / temperature


def action_logps(logits: jax.Array, actions: jax.Array) -> jax.Array:
    """Log-probability of each action under the logits of the same position: no shift.

      log pi(a) = z_a - log sum_v exp(z_v)

    Args:
      logits: `[..., A]`.
      actions: `[...]` integers in [0, A).

    Returns:
      `[...]` nats, at most 0; float32 or wider.

    Raises:
      AssertionError: the leading shapes differ, or actions are no integers.

    >>> logits = jnp.array([[0.0, 0.0], [1e4, 0.0]])
    >>> print(action_logps(logits, jnp.array([1, 0])).round(4))  # log 1/2, 0
    [-0.6931  0.    ]
    """
    assert_same_shape(logits=logits[..., 0], actions=actions)
    chex.assert_type(actions, int)
    (logits,) = widen(logits)
    shifted = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    picked = jnp.take_along_axis(shifted, actions[..., None], axis=-1).squeeze(-1)
    return picked - jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))


def likeliest_logps(logits: jax.Array) -> jax.Array:
    """Log-probability of the likeliest outcome of each position: no shift.

      max_v log pi(v) = -log sum_v exp(z_v - max z)

    Args:
      logits: `[..., A]`; at least one must be finite.

    Returns:
      `[...]` nats, at most 0; float32 or wider.

    >>> print(likeliest_logps(jnp.array([jnp.log(3.0), 0.0])).round(4))  # log 3/4
    -0.2877
    """
    (logits,) = widen(logits)
    shifted = logits - jnp.max(logits, axis=-1, keepdims=True)
    return -jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))


def entropy(logits: jax.Array) -> jax.Array:
    """Entropy of the categorical distribution of each position: no shift.

      H = -sum_v p_v log p_v

    Args:
      logits: `[..., A]`; forbidden outcomes (-inf) count 0.

    Returns:
      `[...]` nats, at least 0.

    >>> print(entropy(jnp.array([0.0, 0.0, -jnp.inf])).round(4))  # log 2
    0.6931
    """
    log_p = log_softmax(logits)
    p = jnp.exp(log_p)
    return -jnp.sum(p * jnp.where(p > 0, log_p, 0), axis=-1)


def log_collisions(logits: jax.Array) -> jax.Array:
    """Log-probability that two draws from the distribution of each position are equal: no shift.

      log sum_v p_v^2

    Minus this is the Renyi entropy of order 2.

    Args:
      logits: `[..., A]`; forbidden outcomes (-inf) count 0, at least one must be finite.

    Returns:
      `[...]` nats, at most 0.

    Source: Zhou et al. 2024, https://arxiv.org/abs/2406.11827, weight alignment.

    >>> print(log_collisions(jnp.array([0.0, 0.0, -jnp.inf])).round(4))  # log 1/2
    -0.6931
    """
    return jax.nn.logsumexp(2 * log_softmax(logits), axis=-1)


def token_logps(logits: jax.Array, tokens: jax.Array, *, temperature: float = 1.0) -> jax.Array:
    """Log-probability of every token given those before it.

      entry t = log pi(tokens[t] | tokens[<t]),  pi = softmax(logits[t - 1] / temperature)

    Args:
      logits: `[B, T, V]`; logits[t] depend on tokens up to and including t.
      tokens: `[B, T]` integers in [0, V).
      temperature: above 0; the one that the tokens were sampled with.

    Returns:
      `[B, T]` nats, at most 0; float32 or wider, whatever the logits are.

    Raises:
      AssertionError: shapes do not fit.
      ValueError: a number outside its range.

    >>> logits = jnp.array([[[0.0, 0.0], [jnp.log(3.0), 0.0], [9.0, 9.0]]])
    >>> print(token_logps(logits, jnp.array([[1, 1, 0]])).round(4))  # 0, log 1/2, log 3/4
    [[ 0.     -0.6931 -0.2877]]
    """
    assert_rank(3, logits=logits)
    assert_same_shape(logits=logits[..., 0], tokens=tokens)
    return shift_right(action_logps(tempered(logits, temperature), jnp.roll(tokens, -1, axis=1)))


def token_entropy(logits: jax.Array, *, temperature: float = 1.0) -> jax.Array:
    """Entropy of the distribution that each token was drawn from.

      entry t = H(softmax(logits[t - 1] / temperature))

    Args:
      logits: `[B, T, V]`.
      temperature: above 0.

    Returns:
      `[B, T]` nats, at least 0.

    Raises:
      AssertionError: `logits` is not `[B, T, V]`.
      ValueError: a number outside its range.

    >>> print(token_entropy(jnp.zeros((1, 2, 4))).round(4))  # log 4
    [[0.     1.3863]]
    """
    assert_rank(3, logits=logits)
    return shift_right(entropy(tempered(logits, temperature)))


def sequence_logps(token_logps: jax.Array, mask: jax.Array) -> jax.Array:
    """Log-probability of the response: the sum over its tokens, not their mean.

      log pi(y | x) = sum_t m_t log pi(y_t | x, y_<t)

    Args:
      token_logps: `[B, T]` nats.
      mask: `[B, T]` bool, true on response tokens.

    Returns:
      `[B]` nats; 0 for an empty response.

    Raises:
      AssertionError: the shapes differ or are not `[B, T]`, or the mask holds real numbers.

    >>> sequence_logps(jnp.array([[-9.0, -1.0, -2.0]]), jnp.array([[False, True, True]])).tolist()
    [-3.0]
    """
    assert_rank(2, token_logps=token_logps)
    assert_same_shape(token_logps=token_logps, mask=mask)
    return masked_sum(token_logps, flags(mask=mask), axis=1)


def softcapped(x: jax.Array, cap: float | None) -> jax.Array:
    """Soft-capped numbers, `cap tanh(x / cap)`: near x where x is small, never beyond the cap.

    Args:
      x: any shape.
      cap: above 0; None: x itself.

    Returns:
      The shape of `x`.

    Source: Gemma Team 2024, https://arxiv.org/abs/2408.00118, section 2.

    >>> print(softcapped(jnp.array([3.0, 1e3]), 30.0).round(2))
    [ 2.99 30.  ]
    """
    return x if cap is None else cap * jnp.tanh(x / cap)


def only_tokens(logits: jax.Array, ranges: Ranges) -> jax.Array:
    """Logits with `NO_TOKEN` at every id that is no token: its probability is 0.

    It is finite, so that 0 times a log-probability is 0.

    Args:
      logits: `[..., V]`.
      ranges: pairs of first id and last plus one; empty: all ids are tokens.

    >>> only_tokens(jnp.zeros(4), ((0, 1), (2, 3))).tolist()
    [0.0, -1000000000.0, 0.0, -1000000000.0]
    """
    if not ranges:
        return logits
    is_token = np.zeros((1,) * (logits.ndim - 1) + logits.shape[-1:], bool)
    for first, end in ranges:
        is_token[..., first:end] = True
    return jnp.where(is_token, logits, NO_TOKEN)


def logits_of(
    hidden: jax.Array,
    unembedding: jax.Array,
    softcap: float | None = None,
    token_ranges: Ranges = (),
) -> jax.Array:
    """Logits of hidden states, accumulated and returned in float32 or wider.

      softcapped(hidden unembedding, softcap),  and `only_tokens` of the ranges

    Args:
      hidden: `[..., D]`, after the last norm.
      unembedding: `[D, V]`.
      softcap: see `softcapped`.
      token_ranges: see `only_tokens`.

    Returns:
      `[..., V]`.
    """
    (wide,) = widen(jnp.zeros((), jnp.promote_types(hidden.dtype, unembedding.dtype)))
    capped = softcapped(product(hidden, unembedding, wide.dtype), softcap)
    return only_tokens(capped, token_ranges)


def fused_token_logps(
    hidden: jax.Array,
    unembedding: jax.Array,
    tokens: jax.Array,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    chunk_size: int,
) -> jax.Array:
    """Log-probabilities of tokens from hidden states, without the `[B, T, V]` logits.

      token_logps(hidden unembedding, tokens)

    Memory for logits is `chunk_size * V` numbers, forward and backward; the cost is one more
    matrix product in the backward pass. The gradient of the unembedding is accumulated in float32
    or wider.

    Args:
      hidden: `[B, T, D]`, after the last norm.
      unembedding: `[D, V]`.
      tokens: `[B, T]` integers in [0, V).
      temperature: above 0; the one that the tokens were sampled with.
      softcap: of the logits, before the temperature, see `softcapped`; None: none.
      chunk_size: tokens whose logits exist at one time; rounded to whole time steps of all B rows
        (at least one), so that a batch that is sharded over B stays so.

    Returns:
      `[B, T]` nats, at most 0; float32 or wider.

    Raises:
      AssertionError: shapes do not fit.
      ValueError: the temperature or the chunk size is not positive.

    >>> hidden, unembedding, tokens = jnp.ones((1, 3, 2)), jnp.zeros((2, 4)), jnp.array([[0, 1, 2]])
    >>> print(fused_token_logps(hidden, unembedding, tokens, chunk_size=2).round(4))  # 0, log 1/4
    [[ 0.     -1.3863 -1.3863]]
    """
    return fused_token_logps_and_entropy(
        hidden,
        unembedding,
        tokens,
        temperature=temperature,
        softcap=softcap,
        chunk_size=chunk_size,
    )[0]


def fused_token_logps_and_entropy(
    hidden: jax.Array,
    unembedding: jax.Array,
    tokens: jax.Array,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    chunk_size: int,
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities and entropies of tokens from hidden states, in one pass over the logits.

      token_logps, token_entropy of hidden unembedding

    Args:
      hidden, unembedding, tokens, temperature, softcap, chunk_size: as in `fused_token_logps`.

    Returns:
      Log-probabilities and entropies, both `[B, T]` nats with 0 at t = 0; both have gradients.

    Raises:
      AssertionError: shapes do not fit.
      ValueError: the temperature or the chunk size is not positive.
    """
    assert_same_shape(axes=2, hidden=hidden, tokens=tokens)
    both = fused_action_logps_and_entropy(
        hidden,
        unembedding,
        jnp.roll(tokens, -1, axis=1),
        temperature=temperature,
        softcap=softcap,
        chunk_size=chunk_size,
    )
    return shift_right(both[0]), shift_right(both[1])


def fused_action_logps_and_entropy(
    hidden: jax.Array,
    unembedding: jax.Array,
    actions: jax.Array,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    chunk_size: int,
    token_ranges: Ranges = (),
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of actions, and entropies, from hidden states of their positions: no shift.

    Args:
      hidden: `[B, T, D]`.
      unembedding: `[D, V]`.
      actions: `[B, T]` integers in [0, V).
      temperature, softcap, chunk_size: as in `fused_token_logps`.
      token_ranges: see `only_tokens`.

    Returns:
      Log-probabilities and entropies, both `[B, T]` nats; both have gradients.

    Raises:
      AssertionError: shapes do not fit.
      ValueError: the temperature or the chunk size is not positive.
    """
    settings = FusedSettings(temperature, softcap, chunk_size, token_ranges)
    return fused_action_statistics(settings, hidden, unembedding, actions)[:2]


def fused_action_statistics(
    settings: "FusedSettings", hidden: jax.Array, unembedding: jax.Array, actions: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-probabilities of actions, entropies, and log-probabilities of the likeliest actions, from
    hidden states of their positions: no shift.

    Args:
      settings: as in `fused_action_logps_and_entropy`.
      hidden, unembedding, actions: as there.

    Returns:
      Three `[B, T]` arrays in nats; the last has no gradient.

    Raises:
      AssertionError: shapes do not fit.
      ValueError: the temperature or the chunk size is not positive.
    """
    assert_rank(3, hidden=hidden)
    assert_rank(2, unembedding=unembedding, actions=actions)
    assert_same_shape(axes=2, hidden=hidden, actions=actions)
    chex.assert_equal(hidden.shape[2], unembedding.shape[0])
    chex.assert_type(actions, int)
    assert_range(ABOVE_ZERO, temperature=settings.temperature)
    hidden, unembedding = _on_same_axes(hidden, unembedding, actions)
    return _fused(settings, hidden, unembedding, actions)


def _on_same_axes(
    hidden: jax.Array, unembedding: jax.Array, tokens: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Both varying over the same mapped axes: jax then sums the gradient of a replicated one."""
    zeros = (jnp.zeros_like(x, shape=()) for x in (hidden, unembedding, tokens))
    zero: jax.Array = sum(zeros, jnp.zeros(()))
    return hidden + zero.astype(hidden.dtype), unembedding + zero.astype(unembedding.dtype)


def _time_chunks(x: jax.Array, chunk_size: int) -> jax.Array:
    """`[B, T, ...]` as `[chunks, B, steps, ...]` of about `chunk_size` tokens, zeros at the end."""
    assert_range(COUNT, chunk_size=chunk_size)
    batch, length = x.shape[:2]
    chunks = -(-length // max(1, chunk_size // max(1, batch)))
    steps = -(-length // chunks)
    padding = [(0, 0), (0, chunks * steps - length)] + [(0, 0)] * (x.ndim - 2)
    padded = jnp.pad(x, padding).reshape(batch, chunks, steps, *x.shape[2:])
    return jnp.swapaxes(padded, 0, 1)


def _join_chunks(x: jax.Array, length: int) -> jax.Array:
    """The inverse of `_time_chunks`: `[chunks, B, steps, ...]` as `[B, length, ...]`."""
    x = jnp.swapaxes(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :length]


def map_time_chunks(
    fn: Callable[..., Tree], arrays: tuple[jax.Array, ...], chunk_size: int
) -> Tree:
    """Results of a function of time steps, computed in chunks of time to save memory.

    Args:
      fn: of arrays `[B, steps, ...]`, with results of such a shape.
      arrays: `[B, T, ...]`.
      chunk_size: about so many of the B T tokens at a time.

    Returns:
      The results, `[B, T, ...]`.
    """
    length = arrays[0].shape[1]
    pieces = tuple(_time_chunks(x, chunk_size) for x in arrays)

    def of_chunk(chunk: tuple[jax.Array, ...]) -> Tree:
        return fn(*chunk)

    def joined(x: jax.Array) -> jax.Array:
        return _join_chunks(x, length)

    results = cast(Tree, jax.lax.map(of_chunk, pieces))
    return jax.tree.map(joined, results)


class FusedSettings(NamedTuple):
    """Settings of the fused functions, as in `fused_token_logps` and `only_tokens`."""

    temperature: float
    softcap: float | None
    chunk_size: int
    token_ranges: Ranges


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused(
    settings: FusedSettings,
    hidden: jax.Array,
    unembedding: jax.Array,
    targets: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-probabilities of the targets, entropies, and those of the likeliest, `[B, T]` each."""
    return _fused_forward(settings, hidden, unembedding, targets)[0]


def _fused_forward(
    settings: FusedSettings, hidden: jax.Array, unembedding: jax.Array, targets: jax.Array
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    """`_fused`, and what the backward pass needs: inputs, maxima, log-totals, entropies."""
    temperature, softcap, chunk_size, token_ranges = settings

    def statistics(hidden: jax.Array, targets: jax.Array) -> tuple[jax.Array, ...]:
        logits = logits_of(hidden, unembedding, softcap, token_ranges)
        top = jnp.max(logits, axis=-1)
        shifted = (logits - top[..., None]) / temperature  # in this order: see `tempered`
        weights = jnp.exp(shifted)
        total = jnp.sum(weights, axis=-1)
        log_total = jnp.log(total)
        entropies = log_total - jnp.sum(weights * shifted, axis=-1) / total
        picked = jnp.take_along_axis(shifted, targets[..., None], axis=-1).squeeze(-1)
        return picked - log_total, entropies, top, log_total

    logps, entropies, *saved = map_time_chunks(statistics, (hidden, targets), chunk_size)
    likeliest = -saved[1]
    return (logps, entropies, likeliest), (hidden, unembedding, targets, *saved, entropies)


def _fused_backward(
    settings: FusedSettings,
    residuals: tuple[jax.Array, ...],
    cotangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array, None]:
    """Gradients of hidden states and unembedding.

      d log pi(a) / dz = onehot(a) - p,  dH / dz = -p (log p + H),  z = logits / temperature.

    A softcap c has the slope 1 - (logits / c)^2.
    """
    temperature, softcap, chunk_size, token_ranges = settings
    hidden, unembedding, targets, tops, log_totals, entropies = residuals

    def accumulate(
        unembedding_grad: jax.Array, chunk: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, jax.Array]:
        hidden, targets, top, log_total, entropies, logp_grad, entropy_grad = chunk
        logits = logits_of(hidden, unembedding, softcap, token_ranges)
        shifted = (logits - top[..., None]) / temperature
        log_p = shifted - log_total[..., None]
        chosen = jax.lax.broadcasted_iota(targets.dtype, log_p.shape, log_p.ndim - 1)
        chosen = chosen == targets[..., None]
        per_p = logp_grad[..., None] + entropy_grad[..., None] * (log_p + entropies[..., None])
        grad = jnp.where(chosen, logp_grad[..., None], 0) - jnp.exp(log_p) * per_p
        if softcap is not None:
            grad *= 1 - (logits / softcap) ** 2
        grad = (grad / temperature).astype(jnp.result_type(hidden, unembedding))
        hidden_grad = jnp.einsum("btv,dv->btd", grad, unembedding)
        of_chunk = jnp.einsum(
            "btd,btv->dv", hidden, grad, preferred_element_type=unembedding_grad.dtype
        )
        return unembedding_grad + of_chunk, hidden_grad

    chunks = (hidden, targets, tops, log_totals, entropies, *cotangents[:2])
    pieces = tuple(_time_chunks(x, chunk_size) for x in chunks)
    zeros = jnp.zeros_like(unembedding, dtype=log_totals.dtype)
    unembedding_grad, hidden_grads = jax.lax.scan(accumulate, zeros, pieces)
    hidden_grad = _join_chunks(hidden_grads, hidden.shape[1]).astype(hidden.dtype)
    return hidden_grad, unembedding_grad.astype(unembedding.dtype), None


_fused.defvjp(_fused_forward, _fused_backward)
