"""`config.json` of a Hugging Face folder as our `TransformerConfig`.

Whatever a file says is either read, known to change nothing, or an error that names the field. A
family of models is a file beside this one, which declares it, and a line here that imports it.
"""

import re
from typing import Any

from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.pretrained.hugging_face.family import Family
from jaxalign.pretrained.hugging_face.fields import Fields
from jaxalign.system.files import shown, typed

# isort: off
from jaxalign.pretrained.hugging_face.gpt2 import *
from jaxalign.pretrained.hugging_face.llama import *
from jaxalign.pretrained.hugging_face.mistral import *
from jaxalign.pretrained.hugging_face.qwen import *
from jaxalign.pretrained.hugging_face.gemma import *
# isort: on

FAMILIES = {x.model_type: x for x in vars().copy().values() if isinstance(x, Family)}
# A class of transformers that is of one of these kinds of models, and of no other kind.
KINDS = "|".join(dict.fromkeys(family.classes for family in FAMILIES.values()))
CLASS = re.compile(rf"({KINDS})(?:For|LMHead|Model|Text)")


def read_config(fields: dict[str, Any], where: str) -> TransformerConfig:
    """Our configuration of a `config.json`.

    Raises:
      UserError: another kind of model, a field that is missing, or one that is not supported.
    """
    family = FAMILIES[family_of(fields, where)]
    found = Fields(family.prepared(fields, where), where, dict(family.defaults))
    if not found.get("is_causal", True):
        found.refuse("is_causal", "only causal attention is")
    config = family.read(found)
    found.finish()
    classes, labels = found.get("architectures", []), found.get("id2label", {"0": ""})
    for name in classes:
        if (kind := CLASS.match(name)) and kind[1] != family.classes:
            found.refuse("architectures", f"model_type is {family.model_type}")
    classifies = any("SequenceClassification" in name for name in classes)
    if classifies and len(labels) != 1:
        raise UserError(f"{where}: a reward model has one label, this has {shown(labels)}")
    heads = ("score",) if classifies else ("logits",)
    return typed(config | {"heads_out": heads}, TransformerConfig, where)


def family_of(fields: dict[str, Any], where: str) -> str:
    """The kind of model that a `config.json` says it is of."""
    family = fields.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise UserError(f"{where}: model_type {shown(family)} is none of {', '.join(FAMILIES)}")
    return family
