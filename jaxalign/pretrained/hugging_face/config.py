"""`TransformerConfig` of a `config.json` in the format of Hugging Face transformers.

Every field is read, known to change nothing, or an error that names it. A family of models is a
file beside this one, which declares it, and a line here that imports it.
"""

import re
from typing import Any

from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.numerics.named import by_name
from jaxalign.pretrained.hugging_face.family import Family
from jaxalign.pretrained.hugging_face.fields import Fields
from jaxalign.system.files import as_type, quote

# isort: off
from jaxalign.pretrained.hugging_face.gpt2 import *
from jaxalign.pretrained.hugging_face.llama import *
from jaxalign.pretrained.hugging_face.mistral import *
from jaxalign.pretrained.hugging_face.qwen import *
from jaxalign.pretrained.hugging_face.gemma import *
# isort: on

FAMILIES = by_name([value for value in vars().copy().values() if isinstance(value, Family)])
# Matches the names of classes of transformers that belong to one of these families.
KINDS = "|".join(dict.fromkeys(family.classes for family in FAMILIES.values()))
CLASS = re.compile(rf"({KINDS})(?:For|LMHead|Model|Text)")


def read_config(content: dict[str, Any], where: str) -> TransformerConfig:
    """Configuration of the model that a `config.json` describes.

    Args:
      content: of the file.
      where: name of the file, for messages.

    Raises:
      UserError: another kind of model, a field that is missing, or one that is not supported.
    """
    family = FAMILIES[family_of(content, where)]
    fields = Fields(family.prepared(content, where), where, dict(family.defaults))
    if not fields.get("is_causal", True):
        fields.refuse("is_causal", "only causal attention is")
    config = family.read(fields)
    fields.finish()
    classes, labels = fields.get("architectures", []), fields.get("id2label", {"0": ""})
    for name in classes:
        if (kind := CLASS.match(name)) and kind[1] != family.classes:
            fields.refuse("architectures", f"model_type is {family.model_type}")
    classifies = any("SequenceClassification" in name for name in classes)
    if classifies and len(labels) != 1:
        raise UserError(f"{where}: a reward model has one label, this has {quote(labels)}")
    heads = ("score",) if classifies else ("logits",)
    return as_type(config | {"heads_out": heads}, TransformerConfig, where)


def family_of(fields: dict[str, Any], where: str) -> str:
    """Family of models (`model_type`) that a `config.json` names."""
    family = fields.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise UserError(f"{where}: model_type {quote(family)} is none of {', '.join(FAMILIES)}")
    return family
