"""The training step of every stage: local sums, global sums, one division.

A loss is a function `loss_fn(params, batch, key) -> (sum, (weight, metric_sums))`: sums over the
rows that it was given, and the weight (tokens, pairs, decisions) to divide them by. Sums can be
added over micro-batches and devices in any split and order, means cannot; so the one division by
the one global weight is here. A metric with a weight of its own (a mean over some of the rows only)
is a pair `(sum, weight)` among the metric sums.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxalign.batches.functions import BatchSums, LossFn, LossSums, Metrics
from jaxalign.batches.tokens import pytree
from jaxalign.errors import UserError
from jaxalign.numerics.collectives import psum, vary
from jaxalign.numerics.types import Params, Tree

Batch = Any  # pytree of arrays with a row axis first
Track = Callable[[Tree, Metrics], Tree]  # `(statistics, metric sums) -> statistics`


@pytree
class TrainState:
    """State of training: parameters, optimizer state, and the key of its noise.

    step: int32 scalar, updates done so far.
    params: pytree of parameters.
    opt_state: state of the optimizer.
    key: typed random key of the run; it never changes, update i draws from `fold_in(key, i)`.
    statistics: pytree that the loss reads and every update moves on (a running mean), or that
      iterations of sampling do (PPO's KL coefficient), or None.
    frozen: dict of parameters that the loss reads beside `params` and nothing changes, or None.
      They have no gradient and no optimizer state, checkpoints leave them out, and a step hands
      their memory on.
    rates: numbers of the learning-rate schedule that the optimizer is told, or None; checkpoints
      leave them out.
    """

    step: jax.Array
    params: Params
    opt_state: Tree
    key: jax.Array
    statistics: Tree = None
    frozen: Params | None = None
    rates: Tree = None

    @property
    def all_params(self) -> Params:
        """Trained and frozen parameters: those of the model."""
        return self.completed(self.params)

    def completed(self, params: Params) -> Params:
        """Parameters of the model with other values of the trained ones."""
        return params if self.frozen is None else {**self.frozen, **params}


def initial_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    *,
    statistics: Tree = None,
    frozen: Params | None = None,
    rates: Tree = None,
) -> TrainState:
    """Training state before the first update.

    Args:
      params: pytree of parameters; a dict beside frozen ones.
      optimizer: the optax transformation of `train_step`.
      key: typed key, `jax.random.key(seed)`.
      statistics: initial running statistics of the loss; None for a loss without.
      frozen: dict of parameters that stay as they are, of other names than the trained ones.
      rates: for an optimizer of `make_optimizer`, from `rates_of`: its schedule in place of the
        optimizer's own, so that a compiled step serves any learning rate and number of steps.

    Raises:
      UserError: a parameter is trained and frozen.
    """
    if frozen is not None and (both := sorted(frozen.keys() & params.keys())):
        raise UserError(f"parameter {both[0]} is among the trained and the frozen ones")
    return TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state=optimizer.init(params),
        key=key,
        statistics=statistics,
        frozen=frozen,
        rates=rates,
    )


def train_step(state: TrainState, batch: Batch, **options: Any) -> tuple[TrainState, Metrics]:
    """The state after one update from a global batch, equal for every split of its rows, and its
    metrics.

    Args:
      state: before the update.
      batch: as in `summed_step`.
      options: the keyword arguments of `summed_step`.

    Returns:
      The new state, and metrics divided by the global weight, with `loss` and `grad_norm` (before
      any clipping); 0 for a batch of weight 0.

    Raises:
      UserError: the rows do not split into `micro_batches` equal parts.
    """
    state, sums = summed_step(state, batch, **options)
    return state, metric_means(sums, 0)


def summed_step(
    state: TrainState,
    batch: Batch,
    *,
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    axis_name: str | None = None,
    micro_batches: int = 1,
    track: Track | None = None,
    measure: BatchSums | None = None,
) -> tuple[TrainState, Metrics]:
    """The state after one update, and metrics as sums: added up over steps they are divided once.

      gradient = (sum over devices and micro-batches of grad sum_loss) / (sum of weights)

    A batch of weight 0 leaves parameters and optimizer as they were (weight decay and momentum
    included) and its metrics weigh nothing; only `step` moves on.

    Args:
      state: before the update.
      batch: pytree of arrays with a row axis first: this device's rows under a mapped axis, all
        rows otherwise.
      loss_fn: gives sums and a weight. Its key is the same on every device: fold in the example
        index.
      optimizer: an optax transformation.
      axis_name: mapped axis that the other devices' rows are on, or None.
      micro_batches: the rows are taken in this many parts, one after the other, to save memory.
      measure: `(params, rows, key) -> pytree of sums` for a loss that depends on the whole batch:
        they are added up over micro-batches and devices before the gradient is taken, and the loss
        is then called with `measured=` the totals, which get no gradient. One without, which adds
        up its sums over the devices itself, saves a forward pass where it has all rows of a device
        at once.
      track: `(statistics, metric sums) -> statistics` after this batch, from the metric sums of the
        loss over the whole batch; the loss is called with `statistics=` those before. They change
        between steps only, so every split of the rows has the same ones.

    Returns:
      The new state, and `(sum, weight)` of each metric over the global batch, with `loss` and
      `grad_norm` (before any clipping), which weighs 1.

    Raises:
      UserError: the rows do not split into `micro_batches` equal parts.
    """
    if state.frozen is not None:
        loss_fn = _completing(loss_fn, state)
        measure = None if measure is None else _completing(measure, state)
    if track is not None:
        loss_fn = functools.partial(loss_fn, statistics=state.statistics)
    cut = {"axis_name": axis_name, "micro_batches": micro_batches}
    (loss, (weight, metrics)), grads = _loss_and_gradient(loss_fn, measure, state, batch, **cut)
    grads = means(grads, weight)

    told = {} if state.rates is None else {"rates": state.rates}

    def update(params: Params, opt_state: Tree, statistics: Tree) -> tuple[Params, Tree, Tree]:
        updates, opt_state = optimizer.update(grads, opt_state, params, **told)
        if track is not None:
            statistics = track(statistics, metrics)
        return optax.apply_updates(params, updates), opt_state, statistics

    sums = metrics | {"loss": loss}
    sums = {name: x if isinstance(x, tuple) else (x, weight) for name, x in sums.items()}
    sums["grad_norm"] = (optax.tree.norm(grads), (weight > 0).astype(weight.dtype))
    return _updated(state, update, weight), sums


def _loss_and_gradient(
    loss_fn: LossFn,
    measure: BatchSums | None,
    state: TrainState,
    batch: Batch,
    *,
    axis_name: str | None,
    micro_batches: int,
) -> tuple[LossSums, Params]:
    """The sums of a loss over the global batch, and the gradient of the first of them."""
    key, params = jax.random.fold_in(state.key, state.step), vary(state.params, axis_name)

    def global_sums(fn: Callable[[Params, Batch, jax.Array], Tree]) -> Tree:
        sums = _local_sums(lambda rows: fn(params, rows, key), batch, micro_batches, axis_name)
        return psum(sums, axis_name)

    if measure is not None:
        loss_fn = functools.partial(loss_fn, measured=global_sums(measure))
    return global_sums(jax.value_and_grad(loss_fn, has_aux=True))


def _updated(
    state: TrainState, update: Callable[..., tuple[Params, Tree, Tree]], weight: jax.Array
) -> TrainState:
    """The state after an update, or with its step moved on alone where the weight is 0."""
    # a branch, not a `where`, which would copy the whole optimizer state
    params, opt_state, statistics = jax.lax.cond(
        weight > 0,
        update,
        lambda *before: before,
        *(state.params, state.opt_state, state.statistics),
    )
    return dataclasses.replace(
        state,
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        statistics=statistics,
    )


def _completing(fn: Callable[..., Any], state: TrainState) -> Callable[..., Any]:
    """A function of all parameters as one of the trained parameters alone."""
    return lambda params, *rest, **more: fn(state.completed(params), *rest, **more)


def loss_sums(
    params_and_key: tuple[Params, jax.Array],
    batch: Batch,
    *,
    loss_fn: LossFn,
    axis_name: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """Weight and metric sums of one global batch, without an update.

    Add them up over batches, then divide once.

    Args:
      params_and_key: parameters, and the key for a loss that draws noise.
      batch: as in `train_step`.
      loss_fn: as in `train_step`.
      axis_name: as in `train_step`.

    Returns:
      `(weight, metric_sums)`, the latter with `loss`.
    """
    loss, (weight, metrics) = loss_fn(params_and_key[0], batch, params_and_key[1])
    return psum(_wide((weight, metrics | {"loss": loss})), axis_name)


def _local_sums(
    fn: Callable[[Batch], Tree], batch: Batch, micro_batches: int, axis_name: str | None
) -> Tree:
    """Sum of `fn(rows)` over the micro-batches of these rows, in float32 or wider."""

    def sums(rows: Batch) -> Tree:
        return _wide(fn(rows))

    if micro_batches == 1:
        return sums(batch)
    parts = jax.tree.map(lambda rows: _split_rows(rows, micro_batches), batch)
    first = jax.tree.map(lambda rows: rows[0], parts)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(sums, first))
    total, _ = jax.lax.scan(
        lambda total, rows: (jax.tree.map(jnp.add, total, sums(rows)), None),
        vary(zeros, axis_name),
        parts,
    )
    return total


def _split_rows(rows: jax.Array, micro_batches: int) -> jax.Array:
    """Rows `[B, ...]` as micro-batches `[K, B / K, ...]` with row r in part r mod K.

    Strided, so that rows that lie on different devices do so within every part: no part is one
    device's work.
    """
    if len(rows) % micro_batches:
        raise UserError(
            f"{len(rows)} rows on a device do not split into {micro_batches} micro-batches; "
            "the batch size must be a multiple of devices x micro_batches"
        )
    return jnp.moveaxis(rows.reshape(-1, micro_batches, *rows.shape[1:]), 1, 0)


def _wide(tree: Tree) -> Tree:
    """The leaves in float32 or wider, so that sums of them are."""

    def wide(x: jax.Array) -> jax.Array:
        return jnp.asarray(x, jnp.promote_types(jnp.result_type(x, float), jnp.float32))

    return jax.tree.map(wide, tree)


def means(sums: Tree, weight: jax.Array | float) -> Tree:
    """Sums divided by the weight; 0 where the weight is 0."""
    divisor = jnp.where(weight > 0, weight, 1)
    return jax.tree.map(lambda total: jnp.where(weight > 0, total / divisor, 0), sums)


def metric_means(sums: Metrics, weight: jax.Array | float) -> Metrics:
    """Means of metrics: sums over their own weight where they have one, else over the loss's."""
    return {
        name: means(*total) if isinstance(total, tuple) else means(total, weight)
        for name, total in sums.items()
    }
