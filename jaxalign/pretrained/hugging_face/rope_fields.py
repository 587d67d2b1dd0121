"""Rotary positions in a `config.json`: `rope_parameters`, or the older `rope_scaling`."""

import math
from typing import Any

from jaxalign.models.ranges import FROM_ZERO, RANGES, Range
from jaxalign.models.rope import RopeScaling
from jaxalign.pretrained.hugging_face.family import FULL, SLIDING
from jaxalign.pretrained.hugging_face.fields import Fields
from jaxalign.system.files import as_type, short_path


def rope(fields: Fields) -> dict[str, Any]:
    """Base and scaling of the rotary positions, in the newer spelling or the older one."""
    new, old = fields.get("rope_parameters", {}), fields.get("rope_scaling", {})
    _check_agree(fields, new, old)
    name = "rope_scaling" if old else "rope_parameters"
    theta, scaling = _scaling(
        fields, name, _merged_objects(new, old), base=("rope_theta", 10_000.0)
    )
    return {"rope_theta": theta, "rope_scaling": scaling}


def two_ropes(fields: Fields) -> dict[str, Any]:
    """Base and scaling of the rotary positions of layers without and with a window."""
    both, old = fields.get("rope_parameters", {}), fields.get("rope_scaling", {})
    for key in set(both) - {FULL, SLIDING}:  # transformers writes such beside the two, and no more
        if both[key] not in (None, "default"):
            fields.refuse("rope_parameters", f"{short_path(key)} stands in no kind of layer")
    parts = {kind: {} if both.get(kind) is None else both[kind] for kind in (FULL, SLIDING)}
    for kind, part in parts.items():
        if not isinstance(part, dict):
            fields.refuse("rope_parameters", f"{kind} must be an object with rope_type")
    _check_agree(fields, parts[FULL], old)
    name = "rope_scaling" if old else "rope_parameters"
    theta, scaling = _scaling(
        fields, name, _merged_objects(parts[FULL], old), base=("rope_theta", 1e6)
    )
    near, near_scaling = _scaling(
        fields, "rope_parameters", parts[SLIDING], base=("rope_local_base_freq", 1e4)
    )
    return {
        "rope_theta": theta,
        "rope_scaling": scaling,
        "window_rope_theta": near,
        "window_rope_scaling": near_scaling,
    }


def _merged_objects(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Fields of the newer object and the older one together."""
    kind = {"type", "rope_type"} if {"type", "rope_type"} & old.keys() else set()
    return {key: value for key, value in new.items() if key not in kind} | old


def _check_agree(fields: Fields, new: dict[str, Any], old: dict[str, Any]) -> None:
    """Refuse fields that differ between the newer object and the older one.

    "default" does not count: people add a `rope_scaling` beside it to stretch a model.
    """
    new = {key: value for key, value in new.items() if value != "default"}
    for key in new.keys() & old.keys():
        if None not in (new[key], old[key]) and new[key] != old[key]:
            fields.refuse("rope_scaling", f"{key} differs from that of rope_parameters")


def _scaling(
    fields: Fields, name: str, part: dict[str, Any], *, base: tuple[str, float]
) -> tuple[float, RopeScaling | None]:
    """Base and scaling of the rotary positions in one object.

    Args:
      fields: of the file.
      name: of the object in the file.
      part: the object.
      base: field that has the base outside of the object, and the base where there is none.
    """
    part = {key: value for key, value in part.items() if value is not None}
    kind = part.get("rope_type", part.get("type", "default"))
    if part.get("type", kind) != kind:
        fields.refuse(name, "type and rope_type differ")
    if kind not in ("default", "linear", "dynamic", "llama3", "yarn"):
        fields.refuse(name, "rope_type default, linear, dynamic, llama3 and yarn are")
    _check_scaling(fields, name, part)
    fields.agree(base[0], f"rope_theta in {name}", part.get("rope_theta"))
    theta = part.get("rope_theta", fields.get(*base))
    length = fields.need("max_position_embeddings")
    # "dynamic" stretches nothing up to max_position_embeddings, and beyond a model reads nothing
    if kind in ("default", "dynamic"):
        return theta, None
    scaling = {ours: part[theirs] for theirs, ours in SCALING_FIELDS.items() if theirs in part}
    if kind == "linear":
        scaling = {name: value for name, value in scaling.items() if name == "factor"}
    else:
        fields.agree(ORIGINAL, f"that in {name}", part.get(ORIGINAL))
        scaling["original_length"] = scaling.get("original_length", fields.get(ORIGINAL, length))
    if kind == "yarn":
        scaling.setdefault("factor", length / scaling["original_length"])
        scaling |= _mscale(part, scaling)
    if "factor" not in scaling:
        fields.refuse(name, "factor is missing")
    return theta, as_type({"kind": kind, **scaling}, RopeScaling, f"{fields.where}: {name}")


def _check_scaling(fields: Fields, name: str, part: dict[str, Any]) -> None:
    """Refuse numbers out of range and unknown fields of the object."""
    for key, value in part.items():
        if key in SCALING_NUMBERS and value not in SCALING_NUMBERS[key]:
            fields.refuse(name, f"{key} must be {SCALING_NUMBERS[key]}")
        if key not in SCALING_NUMBERS and key not in ("rope_type", "type", "truncate"):
            fields.refuse(name, f"{short_path(key)} is not known here")


def _mscale(part: dict[str, Any], scaling: dict[str, Any]) -> dict[str, Any]:
    """YaRN's attention factor by `mscale` and `mscale_all_dim`, as in DeepSeek's models."""
    mscale, all_dimensions = part.get("mscale"), part.get("mscale_all_dim")
    if "attention_factor" in scaling or not (mscale and all_dimensions):
        return {}
    log = math.log(max(scaling["factor"], 1))
    return {"attention_factor": (0.1 * mscale * log + 1) / (0.1 * all_dimensions * log + 1)}


ORIGINAL = "original_max_position_embeddings"
SCALING_FIELDS = {
    "factor": "factor",
    "original_max_position_embeddings": "original_length",
    "low_freq_factor": "low_frequency_factor",
    "high_freq_factor": "high_frequency_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "attention_factor": "attention_factor",
    "truncate": "truncate",
}
SCALING_NUMBERS = {
    **{theirs: RANGES[ours] for theirs, ours in SCALING_FIELDS.items() if ours in RANGES},
    "mscale": FROM_ZERO,
    "mscale_all_dim": FROM_ZERO,
    "partial_rotary_factor": Range(least=1, most=1),
    "rope_theta": RANGES["rope_theta"],
}
