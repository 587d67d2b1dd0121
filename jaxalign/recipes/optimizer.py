"""The optimizer of a configuration, and its learning rates."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import optax

from jaxalign.config.defaults import filled_optimizer
from jaxalign.config.loop import OptimizerConfig
from jaxalign.train.optimizers import Rates, learning_rate_at, make_optimizer, rates_of


def optimizer_of(settings: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Optax transformation of a configuration; fields that are None are as for a small model."""
    return make_optimizer(**_optimizer_fields(settings, total_steps), total_steps=total_steps)


def schedule_of(settings: OptimizerConfig, total_steps: int) -> Rates:
    """Numbers of the schedule of a configuration, as the optimizer's."""
    fields = _optimizer_fields(settings, total_steps)
    named = {name: fields[name] for name in ("learning_rate", "warmup_steps")}
    return rates_of(**named, total_steps=total_steps)


def learning_rates(
    settings: OptimizerConfig, total_steps: int, *, updates: int = 1
) -> Callable[[int], float]:
    """Number of a step, from 1 -> learning rate of the last of its updates."""
    filled = filled_optimizer(settings, total_steps)
    names = ("learning_rate", "schedule", "warmup_steps")
    schedule: dict[str, Any] = {name: getattr(filled, name) for name in names}
    rate = functools.partial(learning_rate_at, **schedule, total_steps=total_steps)
    return lambda step: rate(step * updates - 1)


def _optimizer_fields(settings: OptimizerConfig, total_steps: int) -> dict[str, Any]:
    fields = dataclasses.asdict(filled_optimizer(settings, total_steps))
    del fields["warmup_share"]  # in steps now
    return fields
