"""Rotary positions in a `config.json`, in today's spelling or the older one."""

import math
from typing import Any

from jaxalign.models.ranges import FROM_ZERO, RANGES, Range
from jaxalign.models.rope import RopeScaling
from jaxalign.pretrained.hugging_face.family import FULL, SLIDING
from jaxalign.pretrained.hugging_face.fields import Fields
from jaxalign.system.files import shown_path, typed


def rope(found: Fields) -> dict[str, Any]:
    """Base and scaling of the rotary positions, in today's spelling or the older one."""
    new, old = found.get("rope_parameters", {}), found.get("rope_scaling", {})
    _check_agree(found, new, old)
    name = "rope_scaling" if old else "rope_parameters"
    theta, scaling = _scaling(found, name, _united(new, old), "rope_theta", 10_000.0)
    return {"rope_theta": theta, "rope_scaling": scaling}


def two_ropes(found: Fields) -> dict[str, Any]:
    """The same for layers that see all and those with a window."""
    both, old = found.get("rope_parameters", {}), found.get("rope_scaling", {})
    for key in set(both) - {FULL, SLIDING}:  # transformers writes such beside the two, and no more
        if both[key] not in (None, "default"):
            found.refuse("rope_parameters", f"{shown_path(key)} stands in no kind of layer")
    parts = {kind: {} if both.get(kind) is None else both[kind] for kind in (FULL, SLIDING)}
    for kind, part in parts.items():
        if not isinstance(part, dict):
            found.refuse("rope_parameters", f"{kind} must be an object with rope_type")
    _check_agree(found, parts[FULL], old)
    name = "rope_scaling" if old else "rope_parameters"
    theta, scaling = _scaling(found, name, _united(parts[FULL], old), "rope_theta", 1e6)
    near, near_scaling = _scaling(
        found, "rope_parameters", parts[SLIDING], "rope_local_base_freq", 1e4
    )
    return {
        "rope_theta": theta,
        "rope_scaling": scaling,
        "window_rope_theta": near,
        "window_rope_scaling": near_scaling,
    }


def _united(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Today's object with what the older one adds to it."""
    kind = {"type", "rope_type"} if {"type", "rope_type"} & old.keys() else set()
    return {key: value for key, value in new.items() if key not in kind} | old


def _check_agree(found: Fields, new: dict[str, Any], old: dict[str, Any]) -> None:
    """What stands in today's object and in the older one is the same.

    "default" says nothing there: people add a `rope_scaling` beside it to stretch a model.
    """
    new = {key: value for key, value in new.items() if value != "default"}
    for key in new.keys() & old.keys():
        if None not in (new[key], old[key]) and new[key] != old[key]:
            found.refuse("rope_scaling", f"{key} differs from that of rope_parameters")


def _scaling(found: Fields, name: str, given: dict[str, Any], base: str, default: float):
    """`(theta, RopeScaling or None)` of one object; `base` is the field of the theta outside it."""
    given = {key: value for key, value in given.items() if value is not None}
    kind = given.get("rope_type", given.get("type", "default"))
    if given.get("type", kind) != kind:
        found.refuse(name, "type and rope_type differ")
    if kind not in ("default", "linear", "dynamic", "llama3", "yarn"):
        found.refuse(name, "rope_type default, linear, dynamic, llama3 and yarn are")
    _check_scaling(found, name, given)
    found.agree(base, f"rope_theta in {name}", given.get("rope_theta"))
    theta = given.get("rope_theta", found.get(base, default))
    length = found.need("max_position_embeddings")
    # "dynamic" stretches nothing up to max_position_embeddings, and beyond a model reads nothing
    if kind in ("default", "dynamic"):
        return theta, None
    fields = {ours: given[theirs] for theirs, ours in SCALING_FIELDS.items() if theirs in given}
    if kind == "linear":
        fields = {name: value for name, value in fields.items() if name == "factor"}
    else:
        found.agree(ORIGINAL, f"that in {name}", given.get(ORIGINAL))
        fields["original_length"] = fields.get("original_length", found.get(ORIGINAL, length))
    if kind == "yarn":
        fields.setdefault("factor", length / fields["original_length"])
        fields |= _mscale(given, fields)
    if "factor" not in fields:
        found.refuse(name, "factor is missing")
    return theta, typed({"kind": kind, **fields}, RopeScaling, f"{found.where}: {name}")


def _check_scaling(found: Fields, name: str, given: dict[str, Any]) -> None:
    """Every number of the object is one, and nothing is unknown."""
    for key, value in given.items():
        if key in SCALING_NUMBERS and value not in SCALING_NUMBERS[key]:
            found.refuse(name, f"{key} must be {SCALING_NUMBERS[key]}")
        if key not in SCALING_NUMBERS and key not in ("rope_type", "type", "truncate"):
            found.refuse(name, f"{shown_path(key)} is not known here")


def _mscale(given: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """YaRN's amplitude where two other fields give it, as in DeepSeek's models."""
    own, all_dimensions = given.get("mscale"), given.get("mscale_all_dim")
    if "attention_factor" in fields or not (own and all_dimensions):
        return {}
    log = math.log(max(fields["factor"], 1))
    return {"attention_factor": (0.1 * own * log + 1) / (0.1 * all_dimensions * log + 1)}


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
