"""Tensors of model files and their validation, whatever the format.

Readers of Hugging Face folders, GGUF files, adapters and our own folders supply the tensors
(`Weights`) and the rule by which each parameter is stored (`StorageRule`); `parameters` checks
names, shapes and numbers and reads one after another.
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
from jaxalign.system.files import short_path

FIRST_LAYER = re.compile(r"\blayers_0/")
ROWS = 4096  # of a tensor that are compared at once
Put = Callable[[np.ndarray], Any]
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StorageRule:
    """Rule by which a file stores a parameter: the tensor's name and layout.

    name: of the tensor.
    transposed: whether the tensor is `[out, in]`, the parameter `[in, out]`.
    part, parts: the parameter is part number `part` of `parts` equal ones of the last axis.
    offset: parameter minus tensor (Gemma's norms multiply by 1 + weight).
    """

    name: str
    transposed: bool = False
    part: int = 0
    parts: int = 1
    offset: float = 0.0

    def shape(self, parameter: Shape) -> Shape:
        """Shape of the tensor, from that of the parameter."""
        tensor = parameter[::-1] if self.transposed else parameter
        return tensor if self.parts == 1 else (*tensor[:-1], tensor[-1] * self.parts)

    def read(self, tensor: np.ndarray) -> np.ndarray:
        """Parameter, float32, from the tensor."""
        array = np.asarray(tensor, np.float32)
        if self.parts > 1:
            array = np.split(array, self.parts, axis=-1)[self.part]
        array = array.T if self.transposed else array
        return array + np.float32(self.offset) if self.offset else array

    def written(self, array: np.ndarray) -> np.ndarray:
        """Tensor from the parameter, or the part of it that is this parameter."""
        array = np.asarray(array, np.float32)
        array = array - np.float32(self.offset) if self.offset else array
        return np.array(array.T if self.transposed else array, order="C")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Tensors in files, each read when it is needed.

    where: name of the files, for messages.
    shapes: of every tensor, by its name.
    rows: `(name, slice)` to these rows of a tensor.
    """

    where: str
    shapes: Mapping[str, Shape]
    rows: Callable[[str, slice], np.ndarray]

    def read(self, name: str) -> np.ndarray:
        """Whole tensor in float32.

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
        """Whether two tensors are equal, compared a few rows at a time."""
        if self.shapes[one] != self.shapes[other]:
            return False
        rows = self.shapes[one][0] if self.shapes[one] else 0
        parts = (slice(start, min(start + ROWS, rows)) for start in range(0, rows, ROWS))
        return all(np.array_equal(self.rows(one, x), self.rows(other, x)) for x in parts)

    def with_names(self, name_of: Callable[[str], str]) -> "Weights":
        """The same tensors under other names.

        Raises:
          UserError: two of them get the same name.
        """
        old_names: dict[str, str] = {}
        for name in self.shapes:
            if (other := old_names.setdefault(name_of(name), name)) != name:
                raise UserError(
                    f"{self.where}: tensors {short_path(other)} and {short_path(name)} are the "
                    "same parameter; take one out"
                )
        return Weights(
            where=self.where,
            shapes={new: self.shapes[name] for new, name in old_names.items()},
            rows=lambda name, rows: self.rows(old_names[name], rows),
        )


def parameters(
    weights: Weights,
    rules: Mapping[str, StorageRule],
    shapes: Mapping[str, Shape],
    *,
    optional: Iterable[str] = (),
    ignored: Callable[[str], bool] = lambda name: False,
) -> Iterator[tuple[str, np.ndarray]]:
    """Parameters of a model by path, one after another, float32 and finite.

    Names and shapes of all are checked before the first is read.

    Args:
      weights: of the files.
      rules: how each parameter is stored, by its path.
      shapes: of the parameters, by path.
      optional: names of tensors that may be missing: the parameter is zero then.
      ignored: whether a tensor is no parameter and changes nothing.

    Raises:
      UserError: a tensor is missing, belongs to no parameter, has another shape or dtype, or holds
        a number that is not finite.
    """
    used = {rule.name for rule in rules.values()}
    known = set(weights.shapes)
    if missing := sorted(used - known - set(optional)):
        raise UserError(
            f"{weights.where}: no tensor {missing[0]} (of {len(missing)} that are missing)"
        )
    if unused := sorted(name for name in known - used if not ignored(name)):
        raise UserError(
            f"{weights.where}: tensor {short_path(unused[0])} (of {len(unused)}) is no parameter "
            "of the model that is described there; it would be left out"
        )
    for path, rule in rules.items():
        shape, expected = weights.shapes.get(rule.name), rule.shape(shapes[path])
        if shape is not None and shape != expected:
            raise UserError(
                f"{weights.where}: tensor {rule.name} has the shape {shape}, the configuration "
                f"wants {expected}"
            )
    return _read(weights, rules, shapes)


def _read(
    weights: Weights, rules: Mapping[str, StorageRule], shapes: Mapping[str, Shape]
) -> Iterator[tuple[str, np.ndarray]]:
    """Parameters by path, zero where the tensor is missing."""
    for path, rule in rules.items():
        if rule.name in weights.shapes:
            yield path, rule.read(weights.read(rule.name))
        else:
            yield path, np.zeros(shapes[path], np.float32)


def nested_parameters(
    parameters_by_path: Iterator[tuple[str, np.ndarray]], put: Put
) -> dict[str, Any]:
    """Nested dictionaries of parameters, each put in its place by `put`.

    Args:
      parameters_by_path: `(path, array)` with paths such as `trunk/embedding`.
      put: puts an array where the parameter belongs.
    """
    params: dict[str, Any] = {}
    for path, array in parameters_by_path:
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
    """Path and shape of every parameter of a model, without computing any.

    All layers have the same shapes, so that only one is traced.
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
