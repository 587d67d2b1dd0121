"""Loading of models from GGUF files: parameters dequantised, one tensor at a time."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.pretrained.gguf.config import read_gguf_config
from jaxalign.pretrained.gguf.file import GGUFTensor, metadata, open_gguf
from jaxalign.pretrained.hugging_face.llama_names import LAYER
from jaxalign.pretrained.weights import (
    Put,
    StorageRule,
    Weights,
    nested_parameters,
    parameter_shapes,
    parameters,
)
from jaxalign.system.files import short_path

DIVISORS = "rope_freqs.weight"
ROWS = 4096  # that are dequantised at once
PLAIN = {
    "trunk/embedding": StorageRule(name="token_embd.weight"),
    "trunk/positions": StorageRule(name="position_embd.weight"),
    "trunk/norm/scale": StorageRule(name="output_norm.weight"),
    "trunk/norm/bias": StorageRule(name="output_norm.bias"),
    "unembedding": StorageRule(name="output.weight", transposed=True),
}
IN_LAYER = {
    "attention/query": "attn_q",
    "attention/key": "attn_k",
    "attention/value": "attn_v",
    "attention/output": "attn_output",
    "attention/query_norm": "attn_q_norm",
    "attention/key_norm": "attn_k_norm",
    "feed_forward/up": "ffn_up",
    "feed_forward/gate": "ffn_gate",
    "feed_forward/down": "ffn_down",
    "attention_norm": "attn_norm",
    "attention_out_norm": "post_attention_norm",
    "feed_forward_norm": "ffn_norm",
    "feed_forward_out_norm": "post_ffw_norm",
}
JOINT = ("attention/query", "attention/key", "attention/value")
# Old files repeat the rotary frequencies, which the metadata give, beside the parameters.
BUFFERS = re.compile(r"blk\.\d+\.attn_rot_embd(\.weight)?$")


def load_gguf(
    path: str | Path, *, put: Put = np.asarray
) -> tuple[TransformerConfig, dict[str, Any]]:
    """Configuration and parameters of a GGUF file, or of all parts of a split one.

    The file is memory-mapped, and each parameter is dequantised to float32 and goes through `put`
    before the next one is read.

    Args:
      path: of the file; of several, the first.
      put: puts an array where the parameter belongs, for example onto the devices of a mesh.

    Raises:
      UserError: no such model, or one that would not be computed as the file means it.
    """
    (fields, tensors), where = _metadata_and_tensors(path), short_path(path)
    shapes = {name: tuple(reversed(x.shape)) for name, x in tensors.items()}
    divisors = float32_tensor(tensors[DIVISORS], where) if DIVISORS in tensors else None
    config = read_gguf_config(fields, shapes, divisors, where)
    family = fields["general.architecture"]
    return config, nested_parameters(_parameters(config, family, tensors, where), put)


def _metadata_and_tensors(path: str | Path) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
    """Metadata and tensors, without the tokenizer, which takes most of a reader's memory."""
    files = open_gguf(path)
    fields = {k: v for k, v in metadata(files[0]).items() if not k.startswith("tokenizer.")}
    return fields, {name: tensor for file in files for name, tensor in file.tensors.items()}


def float32_tensor(tensor: GGUFTensor, where: str) -> np.ndarray:
    """Tensor of a file in float32, rows first."""
    from gguf.quants import dequantize

    array = np.empty(tensor.shape[::-1], np.float32)
    try:
        for start in range(0, len(array), ROWS):  # the package holds what it is given twice
            rows = slice(start, start + ROWS)
            array[rows] = dequantize(tensor.data[rows], tensor.tensor_type)
    except NotImplementedError:
        raise UserError(
            f"{where}: tensor {tensor.name} is of type {tensor.tensor_type.name}, which the "
            "package gguf does not dequantise"
        ) from None
    return array


def storage_rule(path: str, family: str) -> StorageRule:
    """Rule by which a file of an architecture stores the parameter `path`."""
    if (layer := LAYER.match(path)) is None:
        return PLAIN[path]
    number, module, kind = layer.groups()
    suffix = "bias" if kind == "bias" else "weight"
    if family == "gpt2" and module in JOINT:
        name = f"blk.{number}.attn_qkv.{suffix}"
        return StorageRule(name=name, part=JOINT.index(module), parts=3)
    name = f"blk.{number}.{IN_LAYER[module]}.{suffix}"
    return StorageRule(name=name, transposed=kind == "kernel")


def _parameters(
    config: TransformerConfig, family: str, tensors: Mapping[str, GGUFTensor], where: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Parameters by path, one after another."""

    def rows(name: str, selection: slice) -> np.ndarray:
        return _rule_layout(float32_tensor(tensors[name], where), name, family, config)[selection]

    weights = Weights(
        where=where,
        shapes={name: x.shape if _by_columns(name) else tuple(reversed(x.shape))
                for name, x in tensors.items()},
        rows=rows,
    )  # fmt: skip
    shapes = parameter_shapes(config)
    return parameters(
        weights,
        {path: storage_rule(path, family) for path in shapes},
        shapes,
        ignored=lambda name: name == DIVISORS or BUFFERS.match(name) is not None,
    )


def _by_columns(name: str) -> bool:
    """Whether a tensor is gpt2's joint query, key and value, which is read by columns."""
    return name.endswith(".attn_qkv.weight")


def _rule_layout(
    array: np.ndarray, name: str, family: str, config: TransformerConfig
) -> np.ndarray:
    """Tensor in the layout of its rule: rotary pairs of llama as halves.

    llama.cpp rotates the pairs (x_{2i}, x_{2i+1}) of a llama's heads, so its rows are in that
    order; here the pairs are (x_i, x_{i+H/2}), as in files of other architectures. GPT-2's joint
    query, key and value is read by columns.
    """
    heads = {"attn_q": config.heads, "attn_k": config.kv_heads}
    module = name.split(".")[-2]
    if family == "llama" and module in heads and array.shape[0] % (2 * heads[module]) == 0:
        pairs = array.reshape(heads[module], -1, 2, *array.shape[1:])
        return pairs.swapaxes(1, 2).reshape(array.shape)
    return array.T if _by_columns(name) else array
