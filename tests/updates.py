"""Several updates by each of several losses: all in one program, which compiles once."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np
import optax

from jaxalign.layouts.choice import make_layout
from jaxalign.layouts.layout import Layout, pad_rows
from jaxalign.train.step import initial_state, train_step

KEY = jax.random.key(0)


def no_options(name: str, micro_batches: int) -> dict[str, Any]:
    return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Updates:
    """What every loss starts from, and how it is applied.

    objective: from the name of a loss and the name of the devices' axis to the loss function.
    batches: a batch of 13 rows for every loss.
    statistics: from the name of a loss to what the state carries beside its parameters.
    options: from the name and the number of parts to further arguments of `train_step`.
    """

    objective: Callable[[str, str | None], Callable]
    params: Any
    optimizer: optax.GradientTransformation
    batches: Callable[[], Mapping[str, Any]]
    steps: int = 2
    statistics: Callable[[str], Any] = lambda name: None
    options: Callable[[str, int], dict[str, Any]] = no_options

    @functools.cached_property
    def plain(self):
        """Outcome of the updates on one device, without padding."""
        return self.after(make_layout("device"), self.batches())

    def cut(self, layout: str, micro_batches: int = 1, names: Collection[str] | None = None):
        """Outcome with rows of padding, on that layout and in that many parts; of some losses."""
        padded = {
            name: pad_rows(batch, 16)[0]
            for name, batch in self.batches().items()
            if names is None or name in names
        }
        return self.after(make_layout(layout), padded, micro_batches)

    def states(self, names) -> dict[str, Any]:
        """Those before the first update."""
        return {
            name: initial_state(self.params, self.optimizer, KEY, statistics=self.statistics(name))
            for name in names
        }

    def step(self, states, batches, *, axis_name=None, micro_batches=1):
        """One update by every loss: states and metrics by name."""
        results = {
            name: train_step(
                state,
                batches[name],
                loss_fn=self.objective(name, axis_name),
                optimizer=self.optimizer,
                axis_name=axis_name,
                micro_batches=micro_batches,
                **self.options(name, micro_batches),
            )
            for name, state in states.items()
        }
        return {n: s for n, (s, _) in results.items()}, {n: m for n, (_, m) in results.items()}

    def after(self, layout: Layout, batches: Mapping[str, Any], micro_batches: int = 1):
        """Parameters and statistics by name, the first metrics, and the last."""
        single = jax.tree.map(lambda x: x.astype(np.float32) if is_double(x) else x, dict(batches))
        step = layout.step(functools.partial(self.step, micro_batches=micro_batches))
        states, metrics = layout.place(self.states(batches)), []
        for _ in range(self.steps):
            states, found = step(states, single)
            metrics.append(found)
        kept = {name: (state.params, state.statistics) for name, state in states.items()}
        return jax.device_get((kept, metrics[0], metrics[-1]))


def is_double(x) -> bool:
    return np.result_type(x) == np.float64
