"""Tensors of a model's files, and every check of them, whatever wrote the files.

Readers of Hugging Face folders, GGUF files, adapters and our own folders say what tensors there are
(`Weights`) and which of them a parameter is (`Stored`); `parameters` checks names, shapes and
numbers and reads one after another.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.ngram_reward import NgramConfig
from jaxalign.models.transformer import Transformer
from jaxalign.system.files import shown_path

FIRST_LAYER = re.compile(r"\blayers_0/")
ROWS = 4096  # of a tensor that are compared at once
Put = Callable[[np.ndarray], Any]
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """Where and how a parameter of ours is stored.

    name: of their tensor.
    transposed: they keep `[out, in]` where we keep `[in, out]`.
    part, parts: ours is that one of so many equal parts of the last axis.
    offset: theirs is ours less this (Gemma's norms multiply by 1 + weight).
    """

    name: str
    transposed: bool = False
    part: int = 0
    parts: int = 1
    offset: float = 0.0

    def shape(self, ours: Shape) -> Shape:
        """Of their tensor."""
        theirs = ours[::-1] if self.transposed else ours
        return theirs if self.parts == 1 else (*theirs[:-1], theirs[-1] * self.parts)

    def read(self, tensor: np.ndarray) -> np.ndarray:
        """Our array, float32, from their tensor."""
        array = np.asarray(tensor, np.float32)
        if self.parts > 1:
            array = np.split(array, self.parts, axis=-1)[self.part]
        array = array.T if self.transposed else array
        return array + np.float32(self.offset) if self.offset else array

    def written(self, array: np.ndarray) -> np.ndarray:
        """Their tensor, or the part of it that is ours."""
        array = np.asarray(array, np.float32)
        array = array - np.float32(self.offset) if self.offset else array
        return np.array(array.T if self.transposed else array, order="C")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Tensors in files, read when they are asked for.

    where: the files' name, for messages.
    shapes: of every tensor, by its name.
    rows: reads some rows of one.
    """

    where: str
    shapes: Mapping[str, Shape]
    rows: Callable[[str, slice], np.ndarray]

    def read(self, name: str) -> np.ndarray:
        """A whole tensor in float32.

        Raises:
          UserError: a number in it is NaN or infinite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.asarray(self.rows(name, slice(None)), np.float32)
            total = array.sum(dtype=np.float64)  # finite where all are: 2^63 of the largest fit
        if not np.isfinite(total):
            place = np.unravel_index(np.argmin(np.isfinite(array)), array.shape)
            raise UserError(
                f"{self.where}: tensor {name} has the value {array[place]} at "
                f"{[int(i) for i in place]}; weights must be finite in float32"
            )
        return array

    def same(self, one: str, other: str) -> bool:
        """Whether two tensors hold the same numbers, compared a few rows at a time."""
        if self.shapes[one] != self.shapes[other]:
            return False
        rows = self.shapes[one][0] if self.shapes[one] else 0
        parts = (slice(start, min(start + ROWS, rows)) for start in range(0, rows, ROWS))
        return all(np.array_equal(self.rows(one, x), self.rows(other, x)) for x in parts)

    def renamed(self, name_of: Callable[[str], str]) -> "Weights":
        """The same tensors by other names.

        Raises:
          UserError: two of them get the same name.
        """
        theirs: dict[str, str] = {}
        for name in self.shapes:
            if (first := theirs.setdefault(name_of(name), name)) != name:
                raise UserError(
                    f"{self.where}: tensors {shown_path(first)} and {shown_path(name)} are the "
                    "same parameter; take one out"
                )
        return Weights(
            where=self.where,
            shapes={ours: self.shapes[name] for ours, name in theirs.items()},
            rows=lambda name, rows: self.rows(theirs[name], rows),
        )


def parameters(
    weights: Weights,
    rules: Mapping[str, Stored],
    shapes: Mapping[str, Shape],
    *,
    optional: Iterable[str] = (),
    ignored: Callable[[str], bool] = lambda name: False,
) -> Iterator[tuple[str, np.ndarray]]:
    """The parameters of a model one after another, float32 and finite.

    Names and shapes of all are checked before the first is read.

    Args:
      weights: of the files.
      rules: where each parameter is, by our path.
      shapes: of our parameters, by path.
      optional: tensors of theirs that may be missing: the parameter is zero then.
      ignored: whether a tensor is no parameter and changes nothing.

    Raises:
      UserError: a tensor is missing, is none that the model has, has another shape or dtype, or
        holds a number that is not finite.
    """
    used = {rule.name for rule in rules.values()}
    known = set(weights.shapes)
    if missing := sorted(used - known - set(optional)):
        raise UserError(
            f"{weights.where}: no tensor {missing[0]} (of {len(missing)} that are missing)"
        )
    if unused := sorted(name for name in known - used if not ignored(name)):
        raise UserError(
            f"{weights.where}: tensor {shown_path(unused[0])} (of {len(unused)}) is no parameter "
            "of the model that is described there; it would be left out"
        )
    for path, rule in rules.items():
        found, wanted = weights.shapes.get(rule.name), rule.shape(shapes[path])
        if found is not None and found != wanted:
            raise UserError(
                f"{weights.where}: tensor {rule.name} has the shape {found}, the configuration "
                f"wants {wanted}"
            )
    return _read(weights, rules, shapes)


def _read(weights, rules, shapes) -> Iterator[tuple[str, np.ndarray]]:
    for path, rule in rules.items():
        if rule.name in weights.shapes:
            yield path, rule.read(weights.read(rule.name))
        else:
            yield path, np.zeros(shapes[path], np.float32)


def placed(found: Iterator[tuple[str, np.ndarray]], put: Put) -> dict[str, Any]:
    """Nested dicts of what `put` makes of each parameter, from paths such as `trunk/embedding`."""
    params: dict[str, Any] = {}
    for path, array in found:
        *parents, name = path.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = put(array)
        del array  # before the next one is read
    return params


@functools.lru_cache(maxsize=64)
def parameter_shapes(
    config: TransformerConfig, ngrams: NgramConfig | None = None
) -> Mapping[str, Shape]:
    """Path and shape of every parameter of that model, nothing computed.

    All layers have the same shapes, so one of them is looked at.
    """
    one = config
    if not config.scan_layers:
        one = dataclasses.replace(config, layers=1, windows=config.windows[:1])
    tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    mask = jax.ShapeDtypeStruct((1, 2), jnp.bool_)
    init = jax.eval_shape(Transformer(one, ngrams=ngrams).init, jax.random.key(0), tokens, mask)
    shapes: dict[str, Shape] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(init["params"]):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        layers = range(config.layers) if FIRST_LAYER.search(name) else range(1)
        shapes |= {FIRST_LAYER.sub(f"layers_{i}/", name): leaf.shape for i in layers}
    return shapes
