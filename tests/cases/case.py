"""An example of a public function: how its arguments are drawn, and what must hold of it."""

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

ROWS = 4  # of every draw: the leading axis of every array argument
SEEDS = (0, 1)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)  # compared as itself
class Case:
    """One function with all that the tests of every function need to know of it.

    function: of `jaxalign`. Its arguments are arrays, or pytrees of them, with a row axis first
      unless they are `shared`.
    draw: `rng -> arguments by name`; real numbers are float64.
    oracle: the same function of the same arguments and settings, written from the paper as loops
      over float64 numbers; it returns the same tree.
    settings: hyper-parameters to try, each a dictionary; an argument named there is replaced.
    trained: arguments that get a gradient. frozen: those whose gradient is exactly 0.
    shared: arguments without a row axis, the same for all rows.
    masked: arguments that are read only where the argument `mask` is true.
    mask: name of the argument that says which entries, or rows, are real.
    spread: what several devices do. "rows": each its own rows; "pooled": statistics of all rows,
      by `axis_name`; "sums": the results are sums over rows.
    extremes: further arguments, `rng -> arguments`, of sizes that no model should reach: 1e4 nats,
      say. Value and gradient must be finite in float32 and the oracle must be met in float64.
    invalid: settings with the beginning of the message of the ValueError.
    widens: whether bfloat16 is computed in float32; otherwise results have the arguments' type.
    fixed_rank: whether an axis more behind the others is refused, because it would be summed or
      sorted along the wrong one; otherwise it is one more axis of independent entries.
    order: how often it can be differentiated (0: it returns no real numbers, or its gradient is by
      design not the slope of its value).
    """

    function: Callable
    draw: Callable[[np.random.Generator], dict[str, Any]]
    oracle: Callable
    settings: tuple[Mapping[str, Any], ...] = ({},)
    trained: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    mask: str = "mask"
    spread: Literal["rows", "pooled", "sums"] = "rows"
    extremes: Callable[[np.random.Generator], dict[str, Any]] | None = None
    invalid: tuple[tuple[Mapping[str, Any], str], ...] = ()
    widens: bool = True
    fixed_rank: bool = False
    order: int = 2

    @property
    def name(self) -> str:
        return self.function.__name__

    def arguments(self, seed: int = 0) -> dict[str, Any]:
        """A draw; the same one for the same seed."""
        return self.draw(np.random.default_rng(seed))

    def __call__(self, arguments: Mapping[str, Any], **settings):
        """The result for named arguments."""
        return self._call(self.function, arguments, settings)

    @functools.cached_property
    def compiled(self) -> list[Callable]:
        """The function of its arguments for each of the settings, compiled once for all checks."""
        return [jax.jit(functools.partial(self, **settings)) for settings in self.settings]

    def expected(self, arguments: Mapping[str, Any], **settings):
        """What the oracle says."""
        return self._call(self.oracle, arguments, settings)

    def _call(self, function, arguments, settings):
        """By position where the function takes them so, in its order: jax sorts dictionaries."""
        arguments = {name: settings.get(name, x) for name, x in arguments.items()}
        settings = {name: x for name, x in settings.items() if name not in arguments}
        by_position = [
            name
            for name, parameter in inspect.signature(self.function).parameters.items()
            if name in arguments and parameter.kind is not parameter.KEYWORD_ONLY
        ]
        by_name = {name: x for name, x in arguments.items() if name not in by_position}
        return function(*(arguments[name] for name in by_position), **by_name, **settings)

    def on_rows(self, function: Callable, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with `function` applied to every array that has a row axis."""
        return {
            name: x if name in self.shared else jax.tree.map(function, x)
            for name, x in arguments.items()
        }


def case_of(function: Callable) -> Case:
    """The example of a public function, which stands where the function does."""
    module = importlib.import_module(function.__module__.replace("jaxalign", "tests.cases", 1))
    (case,) = (case for case in module.CASES if case.name == function.__name__)
    return case


def real(leaf) -> bool:
    """Whether an array holds real numbers, as opposed to tokens, labels and masks."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def cast(arguments, dtype):
    """The real numbers among the arguments in that type; all else as it is."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype) if real(x) else x, arguments)


def by_rows(oracle: Callable) -> Callable:
    """An oracle of single numbers as one of arrays `[B]`: called for each row.

    Where it returns a tuple, the result is a tuple of arrays.
    """

    def rows(*arguments, **settings):
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(arguments)]
        found = [oracle(*(x[i].item() for x in leaves), **settings) for i in range(len(leaves[0]))]
        return tuple(np.array(found).T) if isinstance(found[0], tuple) else np.array(found)

    return rows


def by_lists(oracle: Callable) -> Callable:
    """An oracle of lists as one of arrays `[B, ...]`: called for the lists of each row.

    An argument that is None is passed on.
    """

    def rows(*arguments, **settings):
        lists = [x if x is None else np.asarray(x).tolist() for x in arguments]
        return np.array(
            [
                oracle(*(x if x is None else x[i] for x in lists), **settings)
                for i in range(len(lists[0]))
            ]
        )

    return rows


def by_entries(oracle: Callable) -> Callable:
    """An oracle of single numbers as one of arrays of any shape: called for each entry."""

    def entries(*arguments, **settings):
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(arguments)]
        found = np.empty(leaves[0].shape)
        for at in np.ndindex(*found.shape):
            found[at] = oracle(*(x[at].item() for x in leaves), **settings)
        return found

    return entries
