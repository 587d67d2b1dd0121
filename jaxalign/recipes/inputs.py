"""Digests of what a run depends on beside its configuration: rows, models, templates, functions.

They lie in `inputs.json` of the run directory. A run goes on with the same ones only, wherever they
lie: the content decides, not the path.
"""

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import CannotGoOn, UserError
from jaxalign.models.lora import ADAPTERS, Adapted
from jaxalign.recipes.text_models import TextModel, fields_of
from jaxalign.system.console import tell
from jaxalign.system.files import read_json, regular_file, short_path

FILE = "inputs.json"
EVALUATION_ROWS = "data.evaluation_path"  # an input that may be added when a run goes on
Digest = dict[str, str | int | float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Name, start and digests of the inputs of a run: the content of `inputs.json`.

    run: a name that no other run has; its checkpoints bear it.
    started: the moment of the start, which chat templates are told, in ISO format.
    inputs: name to what identifies it; None as long as nothing was read.
    """

    run: str
    started: str
    inputs: dict[str, Digest] | None = None


def read_inputs(directory: Path) -> Inputs | None:
    """Inputs of a run directory; None where it has no `inputs.json`."""
    file = directory / FILE
    return read_json(file, Inputs) if file.exists() else None


def started(directory: Path) -> datetime.datetime | None:
    """Moment when the run of a directory began; None where there is no run."""
    inputs = read_inputs(directory)
    try:
        return None if inputs is None else datetime.datetime.fromisoformat(inputs.started)
    except ValueError:
        raise UserError(f"{directory / FILE}: started is no moment in ISO format") from None


def inputs_of(
    *,
    models: Mapping[str, TextModel | None],
    data: Sequence[Any],
    held_out: Sequence[Any] = (),
    tokenizer: Tokenizer | None = None,
    adapter: str = "",
    rewards: Iterable[tuple[str, float, TextModel | Callable[..., Any]]] = (),
) -> dict[str, Digest]:
    """Digests of the inputs of a command on text; those derived from others come after them.

    Args:
      models: option to model, None where the option is not given; the first one tokenizes.
      data, held_out: records or token ids, as read and in order.
      tokenizer: of a run without a model to start from.
      adapter: its folder, or "".
      rewards: source, weight and judge of every reward.
    """
    digests = {name: model_digest(model) for name, model in models.items() if model is not None}
    for model in [model for model in models.values() if model is not None][:1]:
        digests |= tokenizer_digests(model.tokenizer)
    if adapter:
        digests["adapter"] = files_digest(sorted(Path(adapter).glob("adapter_*")))
    for number, (source, weight, judge) in enumerate(rewards, start=1):
        digests[f"reward {number}"] = {"weight": float(weight), **judge_digest(source, judge)}
    digests["data.path"] = rows_digest(data)
    if held_out:
        digests[EVALUATION_ROWS] = rows_digest(held_out)
    if tokenizer is not None and not any(models.values()):  # it was learned from the rows
        digests |= tokenizer_digests(tokenizer)
    return digests


def rows_digest(rows: Iterable[Any]) -> Digest:
    """Digest of rows in their order; `in_any_order` is the same for the same rows shuffled."""
    digests = [hashlib.sha256(_row(row)).digest() for row in rows]
    return {
        "rows": len(digests),
        "sha256": hashlib.sha256(b"".join(digests)).hexdigest(),
        "in_any_order": hashlib.sha256(b"".join(sorted(digests))).hexdigest(),
    }


def model_digest(model: TextModel) -> Digest:
    """Digest of architecture and parameters, whatever files they were read from."""
    return {"sha256": weights_digest(model)}


def judge_digest(source: str, judge: TextModel | Callable[..., Any]) -> Digest:
    """Digest of a reward model, or of a function and the file that it was read from."""
    if isinstance(judge, TextModel):
        return model_digest(judge)
    file, _, name = source.rpartition(".py")
    return {"function": name.lstrip(":") or "reward", **files_digest([Path(f"{file}.py")])}


def tokenizer_digests(tokenizer: Tokenizer) -> dict[str, Digest]:
    """Digests of the tokenizer and of the chat template."""
    ids = [tokenizer.pad_id, tokenizer.bos_id, *tokenizer.stop_ids]
    names = [tokenizer.special_names, tokenizer.chat_template]
    contents = {"tokenizer": [tokenizer.backend.to_str(), ids], "chat template": names}
    return {name: {"sha256": _of_json(value)} for name, value in contents.items()}


def files_digest(files: Sequence[Path]) -> Digest:
    """Digest of the content of files."""
    found = hashlib.sha256()
    for path in files:
        with regular_file(path).open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return {"sha256": found.hexdigest()}


def weights_digest(policy: TextModel) -> str:
    """SHA-256 of architecture and parameters, in hexadecimal.

    Adapters that add nothing yet are left out: such a policy is its base, whatever their rank and
    the draw that they start from.
    """
    params, fields = dict(policy.params), fields_of(policy.model)
    adapters = params.pop(ADAPTERS, {})
    if isinstance(policy.model, Adapted) and _adds(adapters):
        params[ADAPTERS] = adapters
        fields["adapter_scale"] = float(policy.model.scale)
    found = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def check_same(before: Mapping[str, Digest], now: Mapping[str, Digest], directory: Path) -> None:
    """Compare inputs with those that the run began with; a changed reward function is only
    reported.

    Raises:
      CannotGoOn: the first one that differs.
    """
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if old and new and old.get("function") and _without_file(old) == _without_file(new):
            tell(f"{name}: the function's file has changed; from here on the new one judges")
            continue
        raise CannotGoOn(
            f"{short_path(directory)} holds a run with {_difference(name, old, new)}; "
            "bring back what it began with to resume it, or give another --output",
            field=name,
        )


def _difference(name: str, old: Digest | None, new: Digest | None) -> str:
    """Difference between an input of the run's start and the one of now, in words."""
    if old is None or new is None:
        return f"no {name}, this one has one" if old is None else f"{name}, this one has none"
    if "rows" not in old or "rows" not in new:
        values = {key: (old.get(key), new.get(key)) for key in ("weight", "function")}
        for key, (theirs, ours) in values.items():
            if theirs != ours:
                return f"{name} of {key} {theirs}, this one has {ours}"
        return f"another {name} than this one (its content differs, whatever its path)"
    if old["in_any_order"] == new["in_any_order"]:
        return f"the rows of {name} in another order than this one"
    if old["rows"] != new["rows"]:
        return f"{old['rows']:,} rows in {name}, this one has {new['rows']:,}"
    return f"other rows in {name} than this one ({old['rows']:,} each)"


def _without_file(digest: Digest) -> Digest:
    return {key: value for key, value in digest.items() if key != "sha256"}


def _row(row: Any) -> bytes:
    content = vars(row) if hasattr(row, "__dict__") else row
    return json.dumps(content, default=_plain, sort_keys=True).encode()


def _of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Text for a value that JSON has no type for, without its address in memory."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    text = repr(value)
    return type(value).__name__ if " at 0x" in text else text


def _adds(adapters: Any) -> bool:
    """Whether the second factor of any adapter differs from 0."""
    leaves = jax.tree_util.tree_leaves_with_path(adapters)
    return any(np.any(np.asarray(leaf)) for path, leaf in leaves if path[-1].key == "b")
