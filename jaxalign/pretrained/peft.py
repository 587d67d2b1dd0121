"""Adapters in the format of Hugging Face's PEFT: a JSON configuration and safetensors.

Theirs are `lora_A [r, in]` and `lora_B [out, r]` by the names of the model's modules. GPT-2 keeps
query, key and value in one layer: three adapters of rank r are one of rank 3 r there, B in blocks
on the diagonal; and one of theirs is three of ours with the same A.

What a folder says is read, known to change nothing in a forward pass, or an error that names it.
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
from jaxalign.pretrained.hugging_face.names import renamed, stored_as
from jaxalign.pretrained.patterns import Patterns
from jaxalign.pretrained.pickles import refuse_pickles
from jaxalign.pretrained.safetensors_file import open_safetensors
from jaxalign.pretrained.weights import Stored, Weights
from jaxalign.system.files import (
    exists,
    make_directory,
    read_json,
    replace_file,
    shown,
    shown_path,
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
    """Whose names the modules of such a model go by: GPT-2's, or those of Llama and its kin."""
    gated = ACTIVATIONS[config.activation][1]
    gpt2 = config.positions == "learned" and not gated and config.kv_heads == config.heads
    return "gpt2" if gpt2 else "llama"


def module_name(rule: Stored) -> str:
    """Their module that holds the tensor."""
    return rule.name.removesuffix(".weight")


def save_adapter(folder: Path, model: Adapted, params: dict) -> None:
    """Write the adapters of a model, all of one rank, for PEFT to put on the same base."""
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
        "target_modules": _targets(modules, dense_layers(params), family),
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
    """Their tensors of our adapters, and the modules that these belong to."""
    parts: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    counts = {}
    for path in adapted_layers(params):
        rule, adapter = stored_as(f"{path}/kernel", family), module_of(params[ADAPTERS], path)
        a, b = (np.asarray(adapter[name], np.float32) for name in "ab")
        parts.setdefault(module_name(rule), {})[rule.part] = a, b
        counts[module_name(rule)] = rule.parts
    tensors = {}
    for module, found in parts.items():
        a, b = _joined(found, counts[module])
        tensors[f"{PREFIX}{module}.lora_A.weight"] = np.ascontiguousarray(a.T)
        tensors[f"{PREFIX}{module}.lora_B.weight"] = np.ascontiguousarray(b.T)
    return tensors, set(parts)


def load_adapter(
    folder: str | Path, params: dict, config: TransformerConfig, *, scale: float
) -> dict:
    """The adapters of a folder, for a model with those parameters.

    Args:
      folder: that PEFT wrote.
      params: of the transformer.
      config: of the transformer.
      scale: what they will be multiplied by; where the folder has another one, b makes up for it.

    Returns:
      `a` and `b` by path, as `new_adapters` has them.

    Raises:
      UserError: no adapter, one of another model, or one that is more than low-rank matrices.
    """
    folder = Path(folder)
    fields = Fields(read_json(folder / CONFIG), shown_path(folder / CONFIG))
    scale_of = _read_fields(fields)
    if not exists(folder / TENSORS):
        refuse_pickles(folder)
        raise UserError(
            f"{shown_path(folder / TENSORS)} does not exist; --adapter takes a folder that PEFT "
            "wrote"
        )
    with open_safetensors([folder / TENSORS], shown_path(folder / TENSORS)) as found:
        _check_targets(fields, found)
        weights = found.renamed(lambda name: renamed(name.removeprefix(PREFIX)))
        flat = _read(weights, unrolled(Transformer(config), params)[1], config, scale_of, scale)
    if config.scan_layers:
        flat = _stacked(flat, config.layers, str(folder))
    return unflatten_dict(flat, sep="/")


def _read(
    weights: Weights, layers: dict, config: TransformerConfig, scale_of: Scale, scale: float
) -> dict[str, np.ndarray]:
    """The adapters by path, `trunk/layers_0/attention/query/a` and so on."""
    flat: dict[str, np.ndarray] = {}
    used: set[str] = set()
    for path in dense_layers(layers):
        rule = stored_as(f"{path}/kernel", family_of(config))
        names = [f"{module_name(rule)}.{part}.weight" for part in ("lora_A", "lora_B")]
        if not any(name in weights.shapes for name in names):
            continue
        if missing := [name for name in names if name not in weights.shapes]:
            raise UserError(f"{weights.where}: no tensor {PREFIX}{missing[0]}")
        inputs, outputs = np.shape(module_of(layers, path)["kernel"])
        rank = _rank(weights, names, inputs, outputs * rule.parts)
        whole = scale_of(module_name(rule), rank)
        a, b = (weights.read(name).T for name in names)
        a, b = _part(a, b, rule)
        flat[f"{path}/a"], flat[f"{path}/b"] = a, b * np.float32(whole / scale)
        used |= set(names)
    if unknown := sorted(set(weights.shapes) - used):
        raise UserError(
            f"{weights.where}: tensor {PREFIX}{shown_path(unknown[0])} belongs to no adapter of a "
            "dense layer of this model; it would be left out"
        )
    if not flat:
        raise UserError(f"{weights.where} holds no tensors")
    return flat


def _rank(weights: Weights, names: list[str], inputs: int, outputs: int) -> int:
    """Of the adapter of a layer, both of whose matrices fit it."""
    (a, b) = (weights.shapes[name] for name in names)
    fit = len(a) == len(b) == 2 and (a[1], b[0]) == (inputs, outputs)
    if not fit or a[0] != b[1] or not a[0]:
        raise UserError(
            f"{weights.where}: {names[0]} and {names[1]} have the shapes {a} and {b}; this model's "
            f"layer has {inputs} inputs and {outputs} outputs"
        )
    return a[0]


def _read_fields(fields: Fields) -> Scale:
    """`(module, rank) -> scale` of an `adapter_config.json`; refuses what is more than LoRA."""
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
    own = Patterns(alphas, f"{fields.where}: alpha_pattern", before=PATH)
    given = Patterns(ranks, f"{fields.where}: rank_pattern", before=PATH)

    def scale(module: str, rank: int) -> float:
        pattern = given.first(module)
        if (said := r if pattern is None else ranks[pattern]) != rank:
            name = "r" if pattern is None else "rank_pattern"
            fields.refuse(
                name,
                f"the tensors of {module} have rank {rank}; r and rank_pattern say {shown(said)}",
            )
        pattern = own.first(module)
        chosen = alpha if pattern is None else alphas[pattern]
        return chosen / (math.sqrt(rank) if rslora else rank)

    return scale


def _check_targets(fields: Fields, weights: Weights) -> None:
    """The tensors are of modules that the configuration chooses: PEFT leaves out the others."""
    chosen, excluded = _chooses(fields, "target_modules"), _chooses(fields, "exclude_modules")
    layers = fields.get("layers_to_transform")
    layers = (
        [layers] if isinstance(layers, int) else fields.of("layers_to_transform", list[int], [])
    )
    for name in weights.shapes:
        module = name.removeprefix(PREFIX).partition(".lora_")[0]
        number, said = LAYER_NUMBER.search(module), f"{shown_path(module)}, which has tensors"
        if chosen is not None and not chosen(module):
            fields.refuse(
                "target_modules", f"it does not choose {shown_path(module)}, which has tensors"
            )
        if excluded is not None and excluded(module):
            fields.refuse("exclude_modules", f"it excludes {said}")
        if layers and (number is None or int(number[1]) not in layers):
            fields.refuse(
                "layers_to_transform", f"it leaves out {shown_path(module)}, which has tensors"
            )


def _chooses(fields: Fields, name: str) -> Callable[[str], bool] | None:
    """What the field says of a module: ends of names, or one expression for whole names."""
    value = fields.get(name)
    if value is None or value == "all-linear":
        return None
    if isinstance(value, str):
        pattern = Patterns([value], f"{fields.where}: {name}")
        return lambda module: pattern.first(module) is not None
    ends = set(fields.of(name, list[str], []))
    return lambda module: any(end in ends for end in _ends(module))


def _ends(module: str) -> list[str]:
    """`a.b.c`, `b.c` and `c`."""
    words = module.split(".")
    return [".".join(words[i:]) for i in range(len(words))]


def _joined(found: dict[int, tuple[np.ndarray, np.ndarray]], parts: int):
    """One adapter of a layer whose outputs are so many parts, from one of each part that has one.

    A missing part changes nothing: its rows of b are zero.
    """
    if parts == 1:
        return found[0]
    (rank, width) = next(iter(found.values()))[1].shape
    inputs = next(iter(found.values()))[0].shape[0]
    a, b = np.zeros((inputs, parts * rank)), np.zeros((parts * rank, parts * width))
    for part, (one, two) in found.items():
        rows = slice(part * rank, (part + 1) * rank)
        a[:, rows], b[rows, part * width : (part + 1) * width] = one, two
    return a.astype(np.float32), b.astype(np.float32)


def _part(a: np.ndarray, b: np.ndarray, rule: Stored) -> tuple[np.ndarray, np.ndarray]:
    """The adapter of one of the parts that a layer's outputs are, from that of the layer.

    Where each part has rows of its own, only these: `_joined` undone.
    """
    blocks = np.split(b, rule.parts, axis=-1)
    rows = np.split(np.arange(len(b)), rule.parts) if len(b) % rule.parts == 0 else []
    apart = [not np.delete(x, own, axis=0).any() for x, own in zip(blocks, rows, strict=False)]
    if not apart or not all(apart):
        return a, blocks[rule.part]
    return a[:, rows[rule.part]], blocks[rule.part][rows[rule.part]]


def _stacked(flat: dict[str, np.ndarray], layers: int, where: str) -> dict[str, np.ndarray]:
    """The arrays of all layers as one, by the path in a scanned stack."""
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


def _targets(modules: set[str], dense: list[str], family: str) -> list[str]:
    """Names for `target_modules`: kinds of modules, or all of them where a kind has no adapter in
    some layer.
    """
    words = 2 if family == "gpt2" else 1
    kinds = {module: ".".join(module.split(".")[-words:]) for module in modules}
    everywhere = {module_name(stored_as(f"{path}/kernel", family)) for path in dense}
    partly = {kind for kind in kinds.values()
              if any(other.endswith(f".{kind}") for other in everywhere - modules)}  # fmt: skip
    return sorted({module if kind in partly else kind for module, kind in kinds.items()})
