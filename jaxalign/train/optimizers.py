"""Optimizers and learning-rate schedules: optax chains with the names of the config."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from jaxalign.errors import UserError
from jaxalign.numerics.types import Params

OPTIMIZERS = ("adamw", "rmsprop", "muon")
ADAM_SHARE = 0.2  # step of Adam relative to Muon, whose updates are of unit scale
SCHEDULES = ("constant", "linear", "cosine")


def make_schedule(
    *, learning_rate: float, schedule: str, warmup_steps: int, total_steps: int
) -> optax.Schedule:
    """Learning-rate schedule: the rate as a function of the number of updates done.

    It rises linearly from 0 over `warmup_steps`, then stays (constant) or falls to 0 at
    `total_steps` (linear, cosine). With a warm-up the very first update has rate
    `learning_rate / warmup_steps`, not 0.

    Args:
      learning_rate: the peak.
      schedule: "constant", "linear" or "cosine".
      warmup_steps: updates until the peak.
      total_steps: updates of the whole run.

    Raises:
      UserError: unknown schedule, or a warm-up longer than the run.
    """
    if schedule not in SCHEDULES:
        raise UserError(f"schedule {schedule!r} is unknown; use one of {', '.join(SCHEDULES)}")
    if warmup_steps > total_steps:
        raise UserError(
            f"warmup_steps {warmup_steps} exceeds total_steps {total_steps}; shorten the warm-up"
        )
    rates = rates_of(
        learning_rate=learning_rate, warmup_steps=warmup_steps, total_steps=total_steps
    )
    return functools.partial(rate_at, rates, schedule=schedule)


class Rates(NamedTuple):
    """Numbers of a learning-rate schedule, arguments of a compiled step: another learning rate or
    length of the run needs no new program.

    peak: the learning rate after the warm-up.
    rise: first rate minus the peak.
    warmup_steps, falling_steps: updates until the peak, and from there to 0.
    per_rising, per_falling, angle: 1 / (warmup_steps - 1), 1 / falling_steps, pi / falling_steps.
    """

    peak: Any
    rise: Any
    warmup_steps: Any
    falling_steps: Any
    per_rising: Any
    per_falling: Any
    angle: Any


def rates_of(*, learning_rate: float, warmup_steps: int, total_steps: int) -> Rates:
    """Numbers of a schedule, as scalars on the host; arguments of `make_schedule`."""
    falling_steps = max(total_steps - warmup_steps, 1)
    first = learning_rate / warmup_steps if warmup_steps else learning_rate
    number = np.dtype(jax.dtypes.canonicalize_dtype(float)).type  # float32, or float64 in x64
    per_falling = number(1) / number(falling_steps)
    return Rates(
        peak=number(learning_rate),
        rise=number(first - learning_rate),
        warmup_steps=np.int32(warmup_steps),
        falling_steps=np.int32(falling_steps),
        per_rising=number(1) / number(max(warmup_steps - 1, 1)),
        per_falling=per_falling,
        angle=number(np.pi) * per_falling,
    )


def rate_at(rates: Rates, count: Any, *, schedule: str) -> jax.Array:
    """Learning rate after `count` updates."""
    dtype = rates.peak.dtype
    fallen = jnp.clip(count - rates.warmup_steps, 0, rates.falling_steps).astype(dtype)
    shares: dict[str, Any] = {
        "constant": 1.0,
        "linear": 1 - fallen * rates.per_falling,
        "cosine": 0.5 * (1 + jnp.cos(fallen * rates.angle)),
    }
    after = rates.peak * shares[schedule]
    risen = jnp.clip(count, 0, jnp.maximum(rates.warmup_steps - 1, 0)).astype(dtype)
    rising = rates.rise * (1 - risen * rates.per_rising) + rates.peak
    return jnp.where(count < rates.warmup_steps, rising, after)


def scale_by_rate(schedule: str, rates: Rates) -> optax.GradientTransformationExtraArgs:
    """Descent along the updates by a learning rate of a schedule.

    Args:
      schedule: "constant", "linear" or "cosine".
      rates: its numbers where `update` is given none as `rates=`.
    """

    def update(
        updates: Any,
        state: optax.ScaleByScheduleState,
        params: Any = None,
        *,
        rates: Rates = rates,
        **_: Any,
    ) -> tuple[Any, optax.ScaleByScheduleState]:
        rate = -rate_at(rates, state.count, schedule=schedule)
        scaled = jax.tree.map(lambda g: rate.astype(g.dtype) * g, updates)
        return scaled, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    def init(params: Any) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def learning_rate_at(
    update: int, *, learning_rate: float, schedule: str, warmup_steps: int, total_steps: int
) -> float:
    """Learning rate of one update of `make_schedule`'s, without any work for the device.

    >>> rates = {"learning_rate": 8.0, "schedule": "linear", "warmup_steps": 2, "total_steps": 6}
    >>> [learning_rate_at(update, **rates) for update in range(6)]
    [4.0, 8.0, 8.0, 6.0, 4.0, 2.0]
    """
    if update < warmup_steps:
        return learning_rate * (update + 1) / warmup_steps
    done = min((update - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
    shares = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return learning_rate * shares[schedule]


def make_optimizer(
    *,
    learning_rate: float,
    schedule: str = "constant",
    warmup_steps: int = 0,
    total_steps: int,
    weight_decay: float = 0.0,
    max_grad_norm: float | None = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    name: str = "adamw",
) -> optax.GradientTransformationExtraArgs:
    """Optimizer: clipping by the global norm, preconditioner, weight decay of matrices, schedule.

      g <- g min(1, max_grad_norm / |g|)      w <- w - rate (precondition(g) + weight_decay w)

    Decay is decoupled from the gradient and applies to matrices only: not to biases, norm scales or
    other vectors, also when these are stacked over layers. `update(..., rates=rates_of(...))` takes
    the schedule's numbers as arguments of a compiled step.

    Args:
      learning_rate, schedule, warmup_steps, total_steps: as in `make_schedule`.
      weight_decay: per unit of learning rate.
      max_grad_norm: largest global norm of the gradient; None does not clip.
      b1: decay rate of the first moment, in [0, 1) (adamw only; rmsprop keeps none).
      b2: decay rate of the second moment, in [0, 1).
      eps: added to the root of the second moment, as in the papers.
      name: "adamw", "rmsprop" (the optimizer of the DPO paper), or "muon": matrices of the blocks
        with Adam for all else (embeddings, heads, vectors), whose updates are ADAM_SHARE as large.

    Raises:
      UserError: unknown optimizer or schedule.

    Source: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101, Algorithm 2 (the decay
    there is times the schedule only, here times the learning rate, as in PyTorch and optax). Muon:
    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/.
    """
    if name not in OPTIMIZERS:
        raise UserError(f"optimizer {name!r} is unknown; use one of {', '.join(OPTIMIZERS)}")
    length = {"warmup_steps": warmup_steps, "total_steps": total_steps}
    make_schedule(learning_rate=learning_rate, schedule=schedule, **length)  # it checks them
    rates = rates_of(learning_rate=learning_rate, **length)
    return optax.chain(
        optax.identity() if max_grad_norm is None else optax.clip_by_global_norm(max_grad_norm),
        preconditioner(name, b1=b1, b2=b2, eps=eps),
        optax.add_decayed_weights(weight_decay, mask=decayed),
        scale_by_rate(schedule, rates),
    )


def preconditioner(name: str, *, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Preconditioner of the optimizer of that name; arguments of `make_optimizer`."""
    if name == "rmsprop":
        return optax.scale_by_rms(decay=b2, eps=eps, eps_in_sqrt=False)
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)
    return orthogonalised(adam) if name == "muon" else adam


def orthogonalised(adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """Muon for the matrices of the blocks, the given optimizer for all other parameters."""
    muon = optax.chain(
        optax.contrib.scale_by_muon(weight_dimension_numbers=_matrix_axes),
        optax.stateless_with_tree_map(_scaled_to_shape),
    )
    rest = optax.chain(adam, optax.scale(ADAM_SHARE))
    return optax.partition({"muon": muon, "rest": rest}, _in_blocks)


def _scaled_to_shape(update: Any, _: Any) -> jax.Array:
    """An orthogonal matrix times sqrt(max(1, columns / rows))."""
    return update * max(1.0, update.shape[-1] / update.shape[-2]) ** 0.5


def _in_blocks(params: Params) -> Params:
    """Pytree of labels: "muon" for kernels of the blocks, "rest" for all other parameters."""

    def label(path: tuple[Any, ...], leaf: jax.Array) -> str:
        in_block = any("layers" in str(key) or "stack" in str(key) for key in path)
        return "muon" if in_block and leaf.ndim >= 2 and _name(path) == "kernel" else "rest"

    return jax.tree_util.tree_map_with_path(label, params)


def _matrix_axes(params: Params) -> Params:
    """Axes of the matrix in each leaf: the last two, as a stack of layers has one more in front."""
    return jax.tree.map(lambda leaf: optax.contrib.MuonDimensionNumbers(-2, -1), params)


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path[-1:], simple=True) if path else ""


def decayed(params: Params) -> Params:
    """Pytree of bools: whether weight decay applies (to matrices; to no `bias` or `scale`)."""

    def is_matrix(path: tuple[Any, ...], leaf: jax.Array) -> bool:
        return leaf.ndim >= 2 and _name(path) not in ("bias", "scale")

    return jax.tree_util.tree_map_with_path(is_matrix, params)
