"""GGUF files of Hugging Face folders, in the layout that llama.cpp's converter gives them.

Written from the rules of that converter, with the name table of the package gguf.
"""

import json

import gguf
import numpy as np
from safetensors.numpy import load_file

F32 = gguf.GGMLQuantizationType.F32
ARCHITECTURE = {"mistral": "llama", "gemma3_text": "gemma3"}
SETTERS = {
    "context_length": ("max_position_embeddings", "n_positions"),
    "embedding_length": ("hidden_size", "n_embd"),
    "block_count": ("num_hidden_layers", "n_layer"),
    "head_count": ("num_attention_heads", "n_head"),
    "head_count_kv": ("num_key_value_heads",),
    "key_length": ("head_dim",),
    "value_length": ("head_dim",),
    "layer_norm_rms_eps": ("rms_norm_eps",),
    "layer_norm_eps": ("layer_norm_epsilon",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "sliding_window": ("sliding_window",),
}


def write(path, architecture, tensors, *, keys=(), setters=(), kinds=None):
    """A file of `{name: array}`; keys are those below the architecture's name."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in setters:
        getattr(writer, f"add_{name}")(value)
    for name, value in dict(keys).items():
        add(writer, f"{architecture}.{name}", value)
    for name, array in tensors.items():
        kind = (kinds or {}).get(name, F32)
        data = gguf.quants.quantize(np.ascontiguousarray(array, np.float32), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    finish(writer)


def add(writer, name, value):
    if isinstance(value, list):
        return writer.add_array(name, value)
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    return kinds.get(type(value), writer.add_string)(name, value)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def convert(folder, path, *, kinds=None, keys=(), change=lambda tensors: tensors):
    """The file that the converter makes of a folder (and what a test changes about it)."""
    config = json.loads((folder / "config.json").read_text())
    kind = config["model_type"]
    architecture = ARCHITECTURE.get(kind, kind)
    setters = [
        (setter, config[name])
        for setter, names in SETTERS.items()
        for name in names
        if config.get(name) is not None
    ]
    setters.append(("feed_forward_length", config.get("intermediate_size", 192)))
    if rope := config.get("rope_parameters"):
        setters.append(("rope_freq_base", rope.get("full_attention", rope)["rope_theta"]))
    tensors = change(dict(converted(folder, config, architecture)))
    write(path, architecture, tensors, keys=keys, setters=setters, kinds=kinds)


def converted(folder, config, architecture):
    arch = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == architecture)
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    names = gguf.get_tensor_name_map(arch, layers)
    for name, array in load_file(folder / "model.safetensors").items():
        if architecture == "llama" and "q_proj" in name:
            array = permuted(array, config["num_attention_heads"])
        if architecture == "llama" and "k_proj" in name:
            array = permuted(array, config["num_key_value_heads"])
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            array = array + 1
        if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            array = array.T
        yield names.get_name(name, try_suffixes=(".weight", ".bias")), array


def permuted(rows, heads):
    """Row i of the first half of a head next to row i of the second half."""
    size = len(rows) // heads
    order = [h * size + half * size // 2 + i
             for h in range(heads) for i in range(size // 2) for half in (0, 1)]  # fmt: skip
    return rows[order]
