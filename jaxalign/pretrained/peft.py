"""LoRA adapters in the format of Hugging Face's PEFT: a JSON configuration and safetensors.

PEFT stores `lora_A [r, in]` and `lora_B [out, r]` by the names of the model's modules. GPT-2 has
query, key and value in one layer: three adapters of rank r are one of rank 3 r there, B in blocks
on the diagonal; and one adapter of PEFT is three of ours with the same A.

Every field of a configuration is read, known to change nothing in a forward pass, or an error.
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flax.traverse_util import unflatten_dict

from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.layers import ACTIVATIONS
from jaxalign.models.lora import ADAPTERS, Adapted, adapted_layers, dense_layers, module_of
from jaxalign.models.ranges import POSITIVE
from jaxalign.models.transformer import Transformer, unrolled
from jaxalign.pretrained.hugging_face.fields import Fields
from jaxalign.pretrained.hugging_face.names import plain_name, storage_rule
from jaxalign.pretrained.patterns import Patterns
from jaxalign.pretrained.pickles import refuse_pickles
from jaxalign.pretrained.safetensors_file import open_safetensors
from jaxalign.pretrained.weights import StorageRule, Weights
from jaxalign.system.files import (
    exists,
    make_directory,
    quote,
    read_json,
    replace_file,
    short_path,
    write_atomically,
)

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
PATH = r"(.*\.)?"  # PEFT's patterns match from the start of any word of a module's name
LAYER_NUMBER = re.compile(r"\.(\d+)\.")
Scale = Callable[[str, int], float]
WITHOUT_EFFECT = {  # on a forward pass with the tensors of the folder
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "target_modules", "exclude_modules", "lora_dropout", "fan_in_fan_out"),
    *("layers_to_transform", "layers_pattern", "megatron_config", "megatron_core"),
    *("loftq_config", "eva_config", "qalora_group_size", "runtime_config", "ensure_weight_tying"),
}
PLAIN_INITS = (True, False, "gaussian", "eva", "orthogonal")  # those that leave the base as it is


def family_of(config: TransformerConfig) -> str:
    """Family by whose names the modules go: "gpt2", or "llama" for Llama and its descendants."""
    gated = ACTIVATIONS[config.activation][1]
    gpt2 = config.positions == "learned" and not gated and config.kv_heads == config.heads
    return "gpt2" if gpt2 else "llama"


def module_name(rule: StorageRule) -> str:
    """Name of the PEFT module that holds a tensor."""
    return rule.name.removesuffix(".weight")


def save_adapter(folder: Path, model: Adapted, params: dict) -> None:
    """Write the adapters of a model, all of one rank, as a folder for PEFT.

    Args:
      folder: to write.
      model: with adapters.
      params: of the model, its adapters among them.
    """
    from safetensors.numpy import save_file

    model, params = unrolled(model, params)
    family = family_of(model.config)
    tensors, modules = to_peft(params, family)
    joint = family == "gpt2"
    rank = module_of(params[ADAPTERS], adapted_layers(params)[0])["b"].shape[0]
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": model.scale * rank,
        "lora_dropout": model.dropout,
        "target_modules": _target_names(modules, dense_layers(params), family),
        "fan_in_fan_out": joint,
        "bias": "none",
        "use_rslora": False,
        "inference_mode": True,
        "rank_pattern": {"c_attn": 3 * rank} if joint else {},
        "alpha_pattern": {"c_attn": 3 * model.scale * rank} if joint else {},
    }
    make_directory(folder)
    replace_file(folder / TENSORS, lambda file: save_file(tensors, file, metadata={"format": "pt"}))
    write_atomically(folder / CONFIG, json.dumps(fields, indent=2, sort_keys=True))


def to_peft(params: dict, family: str) -> tuple[dict[str, np.ndarray], set[str]]:
    """PEFT tensors by name of a model's adapters, and the names of their modules."""
    parts: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    counts = {}
    for path in adapted_layers(params):
        rule, adapter = storage_rule(f"{path}/kernel", family), module_of(params[ADAPTERS], path)
        a, b = (np.asarray(adapter[name], np.float32) for name in "ab")
        parts.setdefault(module_name(rule), {})[rule.part] = a, b
        counts[module_name(rule)] = rule.parts
    tensors = {}
    for module, adapters in parts.items():
        a, b = _joint_adapter(adapters, counts[module])
        tensors[f"{PREFIX}{module}.lora_A.weight"] = np.ascontiguousarray(a.T)
        tensors[f"{PREFIX}{module}.lora_B.weight"] = np.ascontiguousarray(b.T)
    return tensors, set(parts)


def load_adapter(
    folder: str | Path, params: dict, config: TransformerConfig, *, scale: float
) -> dict:
    """Adapters of a PEFT folder, for a model with these parameters.

    Args:
      folder: that PEFT wrote.
      params: of the transformer.
      config: of the transformer.
      scale: of the model; where the folder has another one, b is multiplied by their quotient.

    Returns:
      `a` and `b` by path, as `new_adapters` has them.

    Raises:
      UserError: no adapter, one of another model, or one that is more than low-rank matrices.
    """
    folder = Path(folder)
    fields = Fields(read_json(folder / CONFIG), short_path(folder / CONFIG))
    scale_of = _read_fields(fields)
    if not exists(folder / TENSORS):
        refuse_pickles(folder)
        raise UserError(
            f"{short_path(folder / TENSORS)} does not exist; --adapter takes a folder that PEFT "
            "wrote"
        )
    with open_safetensors([folder / TENSORS], short_path(folder / TENSORS)) as tensors:
        _check_targets(fields, tensors)
        weights = tensors.with_names(lambda name: plain_name(name.removeprefix(PREFIX)))
        layers = unrolled(Transformer(config), params)[1]
        flat = _adapters_by_path(
            weights, layers, config, scale=lambda module, rank: scale_of(module, rank) / scale
        )
    if config.scan_layers:
        flat = _stacked_layers(flat, config.layers, str(folder))
    return unflatten_dict(flat, sep="/")


def _adapters_by_path(
    weights: Weights, layers: dict, config: TransformerConfig, *, scale: Scale
) -> dict[str, np.ndarray]:
    """Adapters by path, `trunk/layers_0/attention/query/a` and so on, each b times its scale."""
    flat: dict[str, np.ndarray] = {}
    used: set[str] = set()
    for path in dense_layers(layers):
        rule = storage_rule(f"{path}/kernel", family_of(config))
        names = [f"{module_name(rule)}.{part}.weight" for part in ("lora_A", "lora_B")]
        if not any(name in weights.shapes for name in names):
            continue
        if missing := [name for name in names if name not in weights.shapes]:
            raise UserError(f"{weights.where}: no tensor {PREFIX}{missing[0]}")
        inputs, outputs = np.shape(module_of(layers, path)["kernel"])
        rank = _rank(weights, names, inputs, outputs * rule.parts)
        factor = np.float32(scale(module_name(rule), rank))
        a, b = (weights.read(name).T for name in names)
        a, b = _adapter_of_part(a, b, rule)
        flat[f"{path}/a"], flat[f"{path}/b"] = a, b * factor
        used |= set(names)
    if unknown := sorted(set(weights.shapes) - used):
        raise UserError(
            f"{weights.where}: tensor {PREFIX}{short_path(unknown[0])} belongs to no adapter of a "
            "dense layer of this model; it would be left out"
        )
    if not flat:
        raise UserError(f"{weights.where} holds no tensors")
    return flat


def _rank(weights: Weights, names: list[str], inputs: int, outputs: int) -> int:
    """Rank of a layer's adapter, both of whose matrices must fit the layer."""
    (a, b) = (weights.shapes[name] for name in names)
    fit = len(a) == len(b) == 2 and (a[1], b[0]) == (inputs, outputs)
    if not fit or a[0] != b[1] or not a[0]:
        raise UserError(
            f"{weights.where}: {names[0]} and {names[1]} have the shapes {a} and {b}; this model's "
            f"layer has {inputs} inputs and {outputs} outputs"
        )
    return a[0]


def _read_fields(fields: Fields) -> Scale:
    """Function `(module, rank) -> scale` of an `adapter_config.json` of plain LoRA."""
    fields.choose("peft_type", {"LORA": "lora"}, "LORA")
    fields.choose("bias", {"none": "none"}, "none")
    init = fields.get("init_lora_weights", True)
    if not isinstance(init, bool | str) or init not in PLAIN_INITS:
        fields.refuse("init_lora_weights", "it changes the base model; convert it to plain LoRA")
    for name in WITHOUT_EFFECT:
        fields.get(name)
    alpha, rslora = fields.of("lora_alpha", float, 8.0), fields.of("use_rslora", bool, False)
    r = fields.of("r", int, 8)
    alphas = fields.of("alpha_pattern", dict[str, float], {})
    ranks = fields.of("rank_pattern", dict[str, int], {})
    for name, values in (("lora_alpha", [alpha]), ("alpha_pattern", alphas.values())):
        if any(value not in POSITIVE for value in values):
            fields.refuse(name, f"it must be {POSITIVE}")
    fields.finish()
    alpha_patterns = Patterns(alphas, f"{fields.where}: alpha_pattern", before=PATH)
    rank_patterns = Patterns(ranks, f"{fields.where}: rank_pattern", before=PATH)

    def scale(module: str, rank: int) -> float:
        pattern = rank_patterns.first(module)
        if (rank_of_config := r if pattern is None else ranks[pattern]) != rank:
            name = "r" if pattern is None else "rank_pattern"
            wanted = f"r and rank_pattern say {quote(rank_of_config)}"
            fields.refuse(name, f"the tensors of {module} have rank {rank}; {wanted}")
        pattern = alpha_patterns.first(module)
        chosen = alpha if pattern is None else alphas[pattern]
        return chosen / (math.sqrt(rank) if rslora else rank)

    return scale


def _check_targets(fields: Fields, weights: Weights) -> None:
    """Refuse tensors of modules that the configuration does not choose: PEFT ignores them."""
    chosen, excluded = _predicate(fields, "target_modules"), _predicate(fields, "exclude_modules")
    layers = fields.get("layers_to_transform")
    layers = (
        [layers] if isinstance(layers, int) else fields.of("layers_to_transform", list[int], [])
    )
    for name in weights.shapes:
        module = name.removeprefix(PREFIX).partition(".lora_")[0]
        number, described = LAYER_NUMBER.search(module), f"{short_path(module)}, which has tensors"
        if chosen is not None and not chosen(module):
            fields.refuse(
                "target_modules", f"it does not choose {short_path(module)}, which has tensors"
            )
        if excluded is not None and excluded(module):
            fields.refuse("exclude_modules", f"it excludes {described}")
        if layers and (number is None or int(number[1]) not in layers):
            fields.refuse(
                "layers_to_transform", f"it leaves out {short_path(module)}, which has tensors"
            )


def _predicate(fields: Fields, name: str) -> Callable[[str], bool] | None:
    """Predicate of a field on module names: ends of names, or one expression for whole names."""
    value = fields.get(name)
    if value is None or value == "all-linear":
        return None
    if isinstance(value, str):
        pattern = Patterns([value], f"{fields.where}: {name}")
        return lambda module: pattern.first(module) is not None
    ends = set(fields.of(name, list[str], []))
    return lambda module: any(end in ends for end in _ends(module))


def _ends(module: str) -> list[str]:
    """Ends of a module's name at a dot: `a.b.c`, `b.c` and `c`."""
    words = module.split(".")
    return [".".join(words[i:]) for i in range(len(words))]


def _joint_adapter(
    adapters: dict[int, tuple[np.ndarray, np.ndarray]], parts: int
) -> tuple[np.ndarray, np.ndarray]:
    """Adapter of a layer whose outputs are `parts` parts, from the adapters of some of them.

    A missing part changes nothing: its rows of b are zero.
    """
    if parts == 1:
        return adapters[0]
    (rank, width) = next(iter(adapters.values()))[1].shape
    inputs = next(iter(adapters.values()))[0].shape[0]
    a, b = np.zeros((inputs, parts * rank)), np.zeros((parts * rank, parts * width))
    for part, (one, two) in adapters.items():
        rows = slice(part * rank, (part + 1) * rank)
        a[:, rows], b[rows, part * width : (part + 1) * width] = one, two
    return a.astype(np.float32), b.astype(np.float32)


def _adapter_of_part(
    a: np.ndarray, b: np.ndarray, rule: StorageRule
) -> tuple[np.ndarray, np.ndarray]:
    """Adapter of one part of a layer's outputs, from that of the layer.

    Where each part has rows of its own, only these: the inverse of `_joint_adapter`.
    """
    blocks = np.split(b, rule.parts, axis=-1)
    rows = np.split(np.arange(len(b)), rule.parts) if len(b) % rule.parts == 0 else []
    apart = [not np.delete(x, own, axis=0).any() for x, own in zip(blocks, rows, strict=False)]
    if not apart or not all(apart):
        return a, blocks[rule.part]
    return a[:, rows[rule.part]], blocks[rule.part][rows[rule.part]]


def _stacked_layers(flat: dict[str, np.ndarray], layers: int, where: str) -> dict[str, np.ndarray]:
    """Arrays of all layers stacked, by the path in a scanned stack."""
    names = {path.partition("trunk/layers_")[2].partition("/")[2] for path in flat}
    stacked = {}
    for name in names:
        paths = [f"trunk/layers_{i}/{name}" for i in range(layers)]
        shapes = {flat[path].shape if path in flat else None for path in paths}
        if len(shapes) > 1:
            raise UserError(
                f"{where}: {name.rpartition('/')[0]} is not adapted alike in all layers, which are "
                "scanned here; load a model with scan_layers false"
            )
        stacked[f"trunk/stack/{name}"] = np.stack([flat[path] for path in paths])
    return stacked


def _target_names(modules: set[str], dense: list[str], family: str) -> list[str]:
    """Names for `target_modules`: the last words of module names, or whole names.

    Whole names are for kinds of modules that have no adapter in some layer.
    """
    words = 2 if family == "gpt2" else 1
    kinds = {module: ".".join(module.split(".")[-words:]) for module in modules}
    everywhere = {module_name(storage_rule(f"{path}/kernel", family)) for path in dense}
    partly = {kind for kind in kinds.values()
              if any(other.endswith(f".{kind}") for other in everywhere - modules)}  # fmt: skip
    return sorted({module if kind in partly else kind for module, kind in kinds.items()})
