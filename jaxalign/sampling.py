"""Autoregressive decoding: one compiled loop, and the distribution that it draws from.

A row's text depends on the parameters, its prompt, the key and its global example index, and on
nothing else: not on the other rows, their number, or where padding stands.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxalign.batches.tokens import TokenBatch, pytree
from jaxalign.logprobs import log_softmax, tempered
from jaxalign.losses.nash_md import mixture_logits
from jaxalign.models.transformer import Cache, LanguageModel, Outputs, empty_cache, unrolled
from jaxalign.numerics.masking import is_end
from jaxalign.numerics.types import Params


@pytree
class Samples:
    """Prompts with a response drawn for each.

    batch: `[B, P + N]`; the prompts' columns, then one column a new token. The token that ends
      a response belongs to it; after it the masks are false and the tokens 0.
    logps: `[B, P + N]` float32, log-probability in nats of each response token under the
      distribution it was drawn from (temperature, top-k, top-p, minimal length), 0 elsewhere.
    """

    batch: TokenBatch
    logps: jax.Array


@pytree
class Progress:
    """State of the decoding loop.

    batch, logps: as in `Samples`, so far.
    caches: key-value cache of each model.
    alive: `[B]` bool, the response has not ended.
    drawn: int32 scalar, tokens drawn so far.
    """

    batch: TokenBatch
    logps: jax.Array
    caches: tuple[Cache, ...]
    alive: jax.Array
    drawn: jax.Array


def filtered_logits(
    logits: jax.Array, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> jax.Array:
    """Logits of the distribution that `sample` draws from; -inf for tokens that it never draws.

      pi(a) ~ exp(l_a / T) on the k likeliest tokens, of them the fewest that together reach top_p

    Tokens that tie with the last one kept are kept too. Temperature 0 keeps the likeliest only.

    Args:
      logits: `[..., V]` float32.
      temperature: T >= 0.
      top_k: 0 keeps all.
      top_p: probability in (0, 1]; 1 keeps all.

    Returns:
      `[..., V]` unnormalised logits.

    Source: Fan et al. 2018, https://arxiv.org/abs/1805.04833, section 5.4 (top-k); Holtzman et al.
    2020, https://arxiv.org/abs/1904.09751, Eq. 2 and 3 (top-p).

    >>> logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    >>> jnp.exp(filtered_logits(logits, top_p=0.7)).round(1).tolist()
    [0.5, 0.30000001192092896, 0.0]
    """
    if temperature == 0:
        temperature, top_k = 1.0, 1
    logits = tempered(logits, temperature)
    if top_k:
        least = jax.lax.top_k(logits, min(top_k, logits.shape[-1]))[0][..., -1:]
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    if top_p < 1:
        probabilities = jax.nn.softmax(logits)
        kept = probabilities >= _nucleus_edge(probabilities, top_p)
        logits = jnp.where(kept, logits, -jnp.inf)
    return logits


def _nucleus_edge(probabilities: jax.Array, top_p: float) -> jax.Array:
    """The largest probability p for which the tokens of probability >= p together reach top_p.

    Bisects the bit pattern, whose order is that of positive floats: exact, and no sort of `[B, V]`.
    """

    def halve(_: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) // 2
        edge = jax.lax.bitcast_convert_type(middle, jnp.float32)
        mass = jnp.sum(jnp.where(probabilities >= edge, probabilities, 0.0), axis=-1, keepdims=True)
        reached = mass >= top_p
        return jnp.where(reached, middle, low), jnp.where(reached, high, middle)

    low = jnp.zeros_like(probabilities[..., :1], jnp.int32)
    high = jnp.full_like(low, jnp.float32(1.0).view(jnp.int32) + 1)
    low, _ = jax.lax.fori_loop(0, 30, halve, (low, high))
    return jax.lax.bitcast_convert_type(low, jnp.float32)


def categorical(probabilities: jax.Array, uniforms: jax.Array) -> jax.Array:
    """Tokens drawn by inversion of the distribution function, of blocks first, then within a block.

    Args:
      probabilities: `[B, V]`, >= 0; need not sum to one.
      uniforms: `[B, 2]` in [0, 1), independent.

    Returns:
      `[B]` int32 tokens, each of positive probability.

    Source: Devroye 1986, Non-Uniform Random Variate Generation, section III.2.
    """
    batch, vocabulary = probabilities.shape
    size = math.isqrt(vocabulary - 1) + 1
    padded = jnp.pad(probabilities, ((0, 0), (0, -vocabulary % size)))
    blocks = padded.reshape(batch, -1, size)
    block = _invert(blocks.sum(axis=-1), uniforms[:, 0])
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    return block * size + _invert(inside, uniforms[:, 1])


def _invert(weights: jax.Array, uniforms: jax.Array) -> jax.Array:
    """The first index of positive weight whose cumulative weight exceeds u times the total."""
    cumulative = jnp.cumsum(weights, axis=-1)
    reached = cumulative > uniforms[:, None] * cumulative[:, -1:]
    positive = weights > 0
    # Sums in blocks may fall by an ulp: should none be reached, take the first positive one.
    return jnp.argmax(2 * (reached & positive) + positive, axis=-1).astype(jnp.int32)


@functools.partial(
    jax.jit,
    static_argnames=(
        "model", "max_new_tokens", "eos_id", "temperature", "top_k", "top_p", "min_new_tokens",
        "repeats",
    ),
)  # fmt: skip
def sample(
    model: LanguageModel,
    params: Params,
    prompts: TokenBatch,
    key: jax.Array,
    *,
    max_new_tokens: int,
    eos_id: int | tuple[int, ...],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_new_tokens: int = 0,
    repeats: int = 1,
) -> Samples:
    """Sampled responses, one a row; decoding stops early when all of them have ended.

    Token t of row i is drawn with the key `fold_in(fold_in(key, index_i), t)`. A response that
    reaches max_new_tokens is cut, not ended: it has none. Rows without a prompt stay empty.

    Args:
      model: with a logits head.
      params: its parameters.
      prompts: `[B, P]`, all real tokens are the prompt; padded left, right or inside.
      key: typed key of this pass.
      max_new_tokens: N >= 1.
      eos_id: the token that ends a response, or all that do; they may occur in the prompt.
      temperature, top_k, top_p: see `filtered_logits`.
      min_new_tokens: what ends a response has probability 0 before that many tokens were drawn.
      repeats: number of rows, side by side, that have the same prompt; it is read once for them.

    Returns:
      See `Samples`.
    """

    def distribution(logits_of_models: list[jax.Array], drawn: jax.Array) -> jax.Array:
        (logits,) = logits_of_models
        if min_new_tokens:
            ends = is_end(jnp.arange(logits.shape[-1]), eos_id) & (drawn < min_new_tokens)
            logits = jnp.where(ends[None], -jnp.inf, logits)
        return filtered_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p)

    length = {"max_new_tokens": max_new_tokens, "eos_id": eos_id}
    return _decoded([(model, params)], distribution, prompts, key, repeats=repeats, **length)


@functools.partial(
    jax.jit, static_argnames=("models", "mixture", "max_new_tokens", "eos_id", "temperature")
)
def sample_mixture(
    models: tuple[LanguageModel, LanguageModel],
    params: tuple[Params, Params],
    prompts: TokenBatch,
    key: jax.Array,
    *,
    mixture: float,
    max_new_tokens: int,
    eos_id: int | tuple[int, ...],
    temperature: float = 1.0,
) -> Samples:
    """Responses sampled from the geometric mixture of two models, token by token.

      pi'(a) ~ pi(a)^(1 - mixture) pi_ref(a)^mixture,  both at that temperature

    Every token's distribution is normalised, so the log-probabilities are exact; their sum is not
    the normalised mixture of the two models' response probabilities, which nobody can sample from.
    At mixture 0 and 1 only the one model is run, and draws what `sample` draws.

    Args:
      models: policy and reference, both with a logits head and of one vocabulary.
      params: their parameters, in that order.
      prompts: as in `sample`.
      key: as in `sample`.
      mixture: weight of the reference, in [0, 1].
      max_new_tokens, eos_id: as in `sample`.
      temperature: above 0, of both.

    Returns:
      See `Samples`; the log-probabilities are those under the mixture.

    Raises:
      ValueError: `mixture` outside [0, 1].

    Source: Munos et al. 2023, https://arxiv.org/abs/2312.00886, the regularized policy of Nash-MD,
    one token at a time.
    """
    if not 0 <= mixture <= 1:
        raise ValueError(f"mixture must be in [0, 1], got {mixture}")
    length = {"max_new_tokens": max_new_tokens, "eos_id": eos_id}
    if mixture in (0, 1):
        alone = int(mixture)
        return sample(models[alone], params[alone], prompts, key, temperature=temperature, **length)

    def distribution(logits_of_models: list[jax.Array], drawn: jax.Array) -> jax.Array:
        policy, reference = (tempered(logits, temperature) for logits in logits_of_models)
        return mixture_logits(policy, reference, mixture=mixture)

    both = list(zip(models, params, strict=True))
    return _decoded(both, distribution, prompts, key, **length)


def _decoded(
    models: list[tuple[LanguageModel, Params]],
    distribution: Callable[[list[jax.Array], jax.Array], jax.Array],
    prompts: TokenBatch,
    key: jax.Array,
    *,
    max_new_tokens: int,
    eos_id: int | tuple[int, ...],
    repeats: int = 1,
) -> Samples:
    """Decoding loop: every model reads each token, and their logits give the next distribution.

    `distribution(logits of each model, tokens drawn so far)` returns logits `[B, V]`.
    """
    models = [unrolled(model, params) for model, params in models]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, prompts.index)
    prompt_columns = prompts.tokens.shape[1]

    def draw(logits: list[jax.Array], drawn: jax.Array) -> tuple[jax.Array, jax.Array]:
        logps = log_softmax(distribution(logits, drawn))
        uniforms = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, drawn), (2,)))(keys)
        tokens = categorical(jnp.exp(logps), uniforms)
        return tokens, jnp.take_along_axis(logps, tokens[:, None], axis=1)[:, 0]

    def unfinished(progress: Progress) -> jax.Array:
        return (progress.drawn < max_new_tokens) & progress.alive.any()

    def step(progress: Progress) -> Progress:
        batch, column = progress.batch, prompt_columns + progress.drawn
        tokens, mask = (_column_of(x, column - 1) for x in (batch.tokens, batch.mask))
        logits, caches = _read(models, tokens, mask, progress.caches)
        tokens, logps = draw([each[:, 0] for each in logits], progress.drawn)
        following = dataclasses.replace(progress, caches=caches)
        return _append(following, column, tokens=tokens, logps=logps, eos_id=eos_id)

    progress = _prefilled(models, prompts, max_new_tokens, repeats)
    progress = jax.lax.while_loop(unfinished, step, progress)
    return Samples(batch=progress.batch, logps=progress.logps)


def _prefilled(
    models: list[tuple[LanguageModel, Params]],
    prompts: TokenBatch,
    max_new_tokens: int,
    repeats: int,
) -> Progress:
    """Prompts with empty columns behind them, and caches of all their columns but the last."""
    batch = TokenBatch(
        tokens=jnp.pad(prompts.tokens, ((0, 0), (0, max_new_tokens))),
        prompt_mask=jnp.pad(prompts.mask, ((0, 0), (0, max_new_tokens))),
        response_mask=jnp.pad(jnp.zeros_like(prompts.mask), ((0, 0), (0, max_new_tokens))),
        index=prompts.index,
    )
    columns, once = batch.tokens.shape[1], batch.tokens[::repeats]
    caches = tuple(empty_cache(model.config, once, columns) for model, _ in models)
    if prompts.tokens.shape[1] > 1:
        tokens, mask = prompts.tokens[::repeats, :-1], prompts.mask[::repeats, :-1]
        _, caches = _read(models, tokens, mask, caches)
    caches = jax.tree.map(lambda x: x if x.ndim == 0 else jnp.repeat(x, repeats, axis=0), caches)
    logps = jnp.zeros_like(batch.tokens, jnp.float32)
    alive = prompts.mask.any(axis=1)
    return Progress(batch=batch, logps=logps, caches=caches, alive=alive, drawn=jnp.int32(0))


def _read(
    models: list[tuple[LanguageModel, Params]],
    tokens: jax.Array,
    mask: jax.Array,
    caches: tuple[Cache, ...],
) -> tuple[list[jax.Array], tuple[Cache, ...]]:
    """Logits of these columns under each model, and its cache after them."""
    logits, after = [], []
    for (model, params), cache in zip(models, caches, strict=True):
        outputs = model.apply({"params": params}, tokens, mask, cache=cache)
        assert isinstance(outputs, Outputs) and outputs.cache is not None
        logits.append(outputs.logits)
        after.append(outputs.cache)
    return logits, tuple(after)


def _column_of(buffer: jax.Array, column: jax.Array) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(buffer, column, 1, axis=1)


def _append(
    progress: Progress,
    column: jax.Array,
    *,
    tokens: jax.Array,
    logps: jax.Array,
    eos_id: int | tuple[int, ...],
) -> Progress:
    """Progress with a column of drawn tokens written into the rows that have not ended."""
    alive, batch = progress.alive, progress.batch

    def write(buffer: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(buffer, new[:, None], column, axis=1)

    batch = TokenBatch(
        tokens=write(batch.tokens, jnp.where(alive, tokens, 0)),
        prompt_mask=batch.prompt_mask,
        response_mask=write(batch.response_mask, alive),
        index=batch.index,
    )
    return Progress(
        batch=batch,
        logps=write(progress.logps, jnp.where(alive, logps, 0.0)),
        caches=progress.caches,
        alive=alive & ~is_end(tokens, eos_id),
        drawn=progress.drawn + 1,
    )
