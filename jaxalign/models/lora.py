"""LoRA: low-rank adapters beside frozen dense layers, as a transform of the parameters.

  y = W x + scale B A x        scale = alpha / r

The transformer's code knows nothing of it: adapters are one more entry of its parameters, in a tree
of the same paths, and `Adapted` adds their outputs while the transformer is applied.

Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685, Eq. 3. The scale alpha / sqrt(r):
Kalajdzievski 2023, https://arxiv.org/abs/2312.03732.
"""

import dataclasses
import functools
import math
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.layers import drop, fold
from jaxalign.models.ngram_reward import FEATURES, NgramConfig
from jaxalign.models.quantised import dense, floats, weights_of
from jaxalign.models.transformer import Outputs, Transformer

ADAPTERS = "adapters"
BASE = ("trunk", "unembedding")  # what stays frozen; heads are trained in full
MODULE = re.compile(r"trunk/(?:layers_(?P<layer>\d+)|stack)/(?P<name>.+)")
# Folded into the dropout keys of an adapter's input, beyond any site of the trunks.
FIRST_SITE = 1 << 21


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapted:
    """A transformer with LoRA adapters; its parameters are the transformer's and `adapters`.

    Without `adapters` among them it is the transformer.

    transformer: may be quantised.
    scale: factor of the adapters' outputs.
    dropout: share of the features of an adapter's input that keys make it drop.
    """

    transformer: Transformer
    scale: float
    dropout: float = 0.0

    @property
    def config(self) -> TransformerConfig:
        """Architecture of the transformer."""
        return self.transformer.config

    @property
    def ngrams(self) -> NgramConfig | None:
        """Of the transformer."""
        return self.transformer.ngrams

    def clone(self, **changes: Any) -> "Adapted":
        """The same adapters on a transformer with other fields."""
        return dataclasses.replace(self, transformer=self.transformer.clone(**changes))

    def apply(
        self, variables: dict[str, Any], *arguments: Any, keys: jax.Array | None = None, **more: Any
    ) -> Outputs:
        """Outputs for the transformer's arguments."""
        params = dict(variables["params"])
        adapters = with_sites(params.pop(ADAPTERS, {}), self.config.layers)
        noise = {"keys": keys, "segments": more.get("segments")}
        adds = functools.partial(_added, scale=self.scale, dropout=self.dropout, **noise)
        with nn.intercept_methods(adds):
            variables = {"params": floats(params), ADAPTERS: adapters}
            return self.transformer.apply(variables, *arguments, keys=keys, **more)  # pyright: ignore[reportReturnType]


def _added(
    call: Callable[..., Any],
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    context: nn.module.InterceptorContext,
    *,
    scale: float,
    dropout: float,
    keys: jax.Array | None,
    segments: jax.Array | None,
) -> Any:
    """Output of a dense layer plus that of its adapter; any other method as it is."""
    module = context.module
    if not isinstance(module, nn.Dense) or context.method_name != "__call__":
        return call(*arguments, **options)
    (x,) = arguments
    y = dense(module, x, call)
    if not module.has_variable(ADAPTERS, "a"):
        return y
    a, b, site = (module.get_variable(ADAPTERS, name) for name in ("a", "b", "site"))
    x = drop(x, dropout, fold(keys, FIRST_SITE + site), segments).astype(y.dtype)
    return y + scale * ((x @ a.astype(y.dtype)) @ b.astype(y.dtype))


def adapter_scale(rank: int, alpha: float, *, rslora: bool = False) -> float:
    """Factor of the adapters' outputs: `alpha / rank`, or `alpha / sqrt(rank)` with rslora.

    >>> adapter_scale(8, 16.0), adapter_scale(4, 16.0, rslora=True)
    (2.0, 8.0)
    """
    return alpha / (math.sqrt(rank) if rslora else rank)


def new_adapters(
    params: dict, config: TransformerConfig, patterns: Sequence[str], *, rank: int, key: jax.Array
) -> dict:
    """New adapters, whose outputs are 0: a uniform within `1 / sqrt(inputs)`, b zero.

    Args:
      params: of the transformer.
      config: of the transformer.
      patterns: regular expressions for whole paths such as `trunk/layers_3/attention/query`.
      rank: r.
      key: typed key; an adapter's draw does not depend on the other adapters, nor on whether the
        layers are scanned.

    Returns:
      `a [inputs, r]` and `b [r, outputs]` by path; the layer axis comes first in a stack.

    Raises:
      UserError: a pattern that matches nothing, or some layers of a scanned stack only.

    Source: the initialisation of PEFT, Kaiming uniform with a = sqrt(5).
    """
    chosen = targets(params, config, patterns)
    flat: dict[str, Any] = {}
    for path in chosen:
        module = params
        for name in path.split("/"):
            module = module[name]
        *stack, inputs, outputs = np.shape(module["kernel"])
        places = [path] if not stack else [_in_layer(path, i) for i in range(config.layers)]
        draws = [
            jax.random.uniform(_key_of(key, place), (inputs, rank), minval=-1.0, maxval=1.0)
            for place in places
        ]
        a = np.stack(draws) if stack else np.asarray(draws[0])
        flat[f"{path}/a"] = (a / math.sqrt(inputs)).astype(np.float32)
        flat[f"{path}/b"] = np.zeros((*stack, rank, outputs), np.float32)
    return unflatten_dict(flat, sep="/")


def targets(params: dict, config: TransformerConfig, patterns: Sequence[str]) -> list[str]:
    """Paths of the dense layers of the trunk's blocks that a pattern matches."""
    known = dense_layers(params)
    chosen: dict[str, bool] = {}
    for pattern in patterns:
        places = {path: _places(path, config) for path in known}
        matched = {path: [_matches(pattern, p) for p in ps] for path, ps in places.items()}
        if partly := [path for path, hits in matched.items() if any(hits) and not all(hits)]:
            raise UserError(
                f"lora.targets {pattern!r} chooses some layers of {partly[0]}, which is scanned; "
                "name all layers, or load a model with scan_layers false"
            )
        hits = {path: True for path, matches in matched.items() if all(matches)}
        if not hits:
            raise UserError(
                f"lora.targets {pattern!r} matches no dense layer; such a path is "
                f"{_places(known[0], config)[-1]}"
            )
        chosen |= hits
    return [path for path in known if path in chosen]


def dense_layers(params: dict) -> list[str]:
    """Paths of all dense layers of the trunk's blocks."""
    paths = [path.removesuffix("/kernel") for path in flatten_dict(params, sep="/")
             if path.endswith("/kernel")]  # fmt: skip
    return [path for path in paths if MODULE.fullmatch(path)]


def split(model: Any, params: dict) -> tuple[dict, dict | None]:
    """Trained parameters, and frozen ones; None: all are trained."""
    names = (*BASE, FEATURES) if isinstance(model, Adapted) else (FEATURES,)
    frozen = {name: tree for name, tree in params.items() if name in names}
    if not frozen:
        return params, None
    return {name: tree for name, tree in params.items() if name not in names}, frozen


def merged(model: Adapted, params: dict) -> tuple[Transformer, dict]:
    """The transformer with its adapters merged into the weights, in float32: `W + scale a b`."""
    base = {name: tree for name, tree in params.items() if name != ADAPTERS}
    flat: dict[str, Any] = flatten_dict(weights_of(base), sep="/")
    for path in adapted_layers(params):
        a, b = (np.asarray(module_of(params[ADAPTERS], path)[name], np.float32) for name in "ab")
        kernel = flat[f"{path}/kernel"]
        flat[f"{path}/kernel"] = kernel + np.float32(model.scale) * (a @ b)
    return model.transformer, unflatten_dict(flat, sep="/")


def adapted_layers(params: dict) -> list[str]:
    """Paths of the dense layers that have an adapter."""
    flat = flatten_dict(params.get(ADAPTERS, {}), sep="/")
    return sorted({path.rpartition("/")[0] for path in flat})


def module_of(tree: dict, path: str) -> dict:
    """The subtree of nested dicts at a path."""
    return functools.reduce(lambda node, name: node[name], path.split("/"), tree)


def with_sites(adapters: dict, layers: int) -> dict:
    """Adapters with a dropout site each, the same whether layers are scanned or not."""
    matches = {path: MODULE.fullmatch(path) for path in adapted_layers({ADAPTERS: adapters})}
    names = sorted({match["name"] for match in matches.values() if match})
    flat = flatten_dict(adapters, sep="/")
    for path, match in matches.items():
        assert match is not None, path
        layer = np.arange(layers) if match["layer"] is None else int(match["layer"])
        flat[f"{path}/site"] = jnp.int32(layer * len(names) + names.index(match["name"]))
    return unflatten_dict(flat, sep="/")


def _places(path: str, config: TransformerConfig) -> list[str]:
    """Paths of a dense layer in every layer of a stack; of any other, its own."""
    if "trunk/stack/" not in path:
        return [path]
    return [_in_layer(path, i) for i in range(config.layers)]


def _in_layer(path: str, layer: int) -> str:
    return path.replace("trunk/stack/", f"trunk/layers_{layer}/")


def _matches(pattern: str, path: str) -> bool:
    try:
        return re.fullmatch(pattern, path) is not None
    except re.error as error:
        raise UserError(f"lora.targets {pattern!r} is no regular expression: {error}") from None


def _key_of(key: jax.Array, place: str) -> jax.Array:
    """Random key of the adapter at a path."""
    return jax.random.fold_in(key, np.uint32(zlib.crc32(place.encode())))
