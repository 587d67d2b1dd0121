"""Names and layout of parameters in model files of Hugging Face, for reading and writing.

Each family declares the rule of its own.
"""

import re
from collections.abc import Iterator

import numpy as np

from jaxalign.models.architecture import TransformerConfig
from jaxalign.pretrained.hugging_face.config import FAMILIES
from jaxalign.pretrained.hugging_face.llama_names import HEAD, SCORE_BIAS
from jaxalign.pretrained.weights import StorageRule, Weights, parameter_shapes, parameters

# Buffers that some files carry beside the parameters.
BUFFERS = re.compile(r".*(rotary_emb\.inv_freq|attn\.bias|attn\.masked_bias)$")
OTHER_PARTS = ("vision_tower.", "multi_modal_projector.")
PREFIXES = ("model.language_model.", "language_model.model.", "language_model.")


def storage_rule(path: str, family: str) -> StorageRule:
    """Rule by which a model of a family stores the parameter `path`."""
    return FAMILIES[family].rule(path)


def plain_name(name: str) -> str:
    """Name of a tensor in a plain text model of its family."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            return rest if rest.startswith(("model.", "lm_head.")) else f"model.{rest}"
    if name.startswith(("h.", "wte.", "wpe.", "ln_f.")):
        return f"transformer.{name}"  # a model without head, as GPT-2 is published, has no prefix
    if name.startswith(("layers.", "embed_tokens.", "norm.")):
        return f"model.{name}"
    return name


def parameters_of_tensors(
    config: TransformerConfig, family: str, weights: Weights
) -> Iterator[tuple[str, np.ndarray]]:
    """Parameters by path, one after another, read from the tensors of a Hugging Face model.

    Args:
      config: of the model.
      family: its `model_type`.
      weights: of the files, by the names of a plain text model.

    Raises:
      UserError: as `parameters` of `jaxalign.pretrained.weights`.
    """
    shapes = parameter_shapes(config)
    tied = {HEAD} if config.tie_embeddings else set()
    return parameters(
        weights,
        {path: storage_rule(path, family) for path in shapes},
        shapes,
        optional={SCORE_BIAS},  # a reward head of theirs has no bias
        ignored=lambda name: name in tied or not is_parameter(name),
    )


def embedding_name(family: str) -> str:
    """Name of the tensor of the token embeddings."""
    return storage_rule("trunk/embedding", family).name


def is_parameter(name: str) -> bool:
    """Whether a tensor is a parameter of the text model, and no buffer."""
    return not BUFFERS.match(name) and not name.removeprefix("model.").startswith(OTHER_PARTS)


def tensors_of_parameters(
    params: Iterator[tuple[str, np.ndarray]], family: str
) -> dict[str, np.ndarray]:
    """Tensors by name, as Hugging Face stores them, of parameters by path."""
    tensors, parts = {}, {}
    for path, array in params:
        rule = storage_rule(path, family)
        if rule.parts == 1:
            tensors[rule.name] = rule.written(array)
        else:
            parts.setdefault(rule.name, {})[rule.part] = rule.written(array)
    joined = {name: np.concatenate([x for _, x in sorted(each.items())], axis=-1)
              for name, each in parts.items()}  # fmt: skip
    return tensors | joined
