"""Published architectures: our logits, loss and gradients against those of `transformers`.

    python -m benchmarks.parity --models DIR [--markdown FILE]

DIR holds a folder with `config.json` and weights for each model. What another library made of them
stands in a manifest, any `*.json` with `cases`, in DIR or above it, and in the `.npz` it names.
A case names its model (`args.path`), inputs (`ids`, `right_ids` with `right_mask`, ...), outputs
(`logits_unpadded`, `logits_right`, ..., `loss`, `grad_norms` of the right-padded batch) and the
parameters of the norms (`args.param_names`).

A row for each model: worst absolute error of the logits of real tokens, positions whose likeliest
token differs, relative errors of the loss and of the norms, and how far decoding with a cache is
from the full pass. Exit status 1 if an error is above 1e-4, a likeliest token differs by more than
rounding, or a model is refused that its manifest does not mark `refused`; 2 if there are no cases.

Takes a minute on two cores.
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxalign.errors import UserError
from jaxalign.logprobs import token_logps
from jaxalign.models.transformer import Transformer, empty_cache
from jaxalign.pretrained.folders import load_folder
from jaxalign.pretrained.hugging_face.config import family_of
from jaxalign.pretrained.hugging_face.names import plain_name, storage_rule
from jaxalign.system.files import read_json

TOLERANCE = 1e-4
HEADER = ("model", "kind", "parameters", "logits", "likeliest", "loss", "gradients", "cache", "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A model's worst errors; None: its case does not say."""

    name: str
    family: str = ""
    parameters: int = 0
    errors: dict[str, float | None] = dataclasses.field(default_factory=dict)
    flips: int = 0
    note: str = ""
    expected: bool = False

    @property
    def is_wrong(self) -> bool:
        if self.note:
            return not self.expected
        return (
            self.expected
            or self.flips > 0
            or any(error is not None and not error <= TOLERANCE for error in self.errors.values())
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What a manifest says of one model."""

    name: str
    folder: Path
    refused: bool
    parameter_names: list[str]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]

    def sides(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Name, ids and mask of every batch whose logits are stored."""
        for output in self.outputs:
            side = output.removeprefix("logits_")
            ids = self.inputs.get("ids" if side == "unpadded" else f"{side}_ids")
            if side != output and ids is not None:
                mask = self.inputs.get(f"{side}_mask", np.ones_like(ids))
                yield side, ids.astype(np.int32), mask.astype(bool)


def cases(models: Path) -> list[Case]:
    """The cases of all models in that folder, from the manifests in it and above it."""
    found = []
    for manifest in sorted({*models.glob("*.json"), *models.parent.glob("*.json")}):
        try:
            content = json.loads(manifest.read_text())
        except ValueError:
            continue
        if isinstance(content, dict) and isinstance(content.get("cases"), list):
            found += _cases(models, manifest, content)
    return found


def _cases(models: Path, manifest: Path, content: dict) -> Iterator[Case]:
    arrays = None
    for case in content["cases"]:
        path = case.get("args", {}).get("path")
        folder = path and _folder(models, manifest, path)
        names = case.get("outputs", {})
        refused = bool(case.get("refused") or case.get("args", {}).get("refused"))
        if folder is None or not (refused or any(name.startswith("logits_") for name in names)):
            continue
        if arrays is None:
            arrays = np.load(manifest.with_name(content.get("file", f"{manifest.stem}.npz")))
        yield Case(
            name=case.get("id", folder.name),
            folder=folder,
            refused=refused,
            parameter_names=case["args"].get("param_names", []),
            inputs={name: arrays[key] for name, key in case.get("inputs", {}).items()},
            outputs={name: arrays[key] for name, key in names.items()},
        )


def _folder(models: Path, manifest: Path, path: str) -> Path | None:
    """The model's folder, which must lie in `models`."""
    last = Path(path).name
    for folder in (manifest.parent / path, models / path, models / last, models / "hf" / last):
        inside = models.absolute() in Path(os.path.normpath(folder.absolute())).parents
        if inside and (folder / "config.json").is_file():
            return folder
    return None


def compare(case: Case, *, cached: bool = True) -> Row:
    """Everything that the case stores, against ours; `cached`: decoding too."""
    try:
        family = family_of(read_json(case.folder / "config.json"), str(case.folder))
        config, params = load_folder(case.folder)
    except UserError as error:
        return Row(name=case.name, note=f"refused: {error}", expected=case.refused)
    if case.refused:
        return Row(name=case.name, note="", family=family, expected=True)
    model, errors, flips = Transformer(config), {}, 0
    logits, loss, gradients = results(model, params, case)
    for side, _, mask in case.sides():
        ours, theirs = logits[side][mask], case.outputs[f"logits_{side}"][mask]
        error = float(np.abs(ours - theirs).max())
        flips += likeliest_differ(ours, theirs, error)
        errors["logits"] = float(np.maximum(errors.get("logits", 0.0), error))  # NaN stays NaN
    errors |= learning_errors(loss, gradients, family, case)
    errors["cache"] = cache_error(model, params, logits, case) if cached else None
    count = sum(x.size for x in jax.tree.leaves(params))
    return Row(name=case.name, family=family, parameters=count, errors=errors, flips=flips)


def whatever_comes(case: Case) -> Row:
    """`compare`; an error of ours is a row too."""
    try:
        return compare(case)
    except Exception as error:
        note = f"{type(error).__name__}: {error}"
        return Row(name=case.name, note=" ".join(note.split()))


def results(model: Transformer, params, case: Case):
    """Logits by side; loss and gradient of the right-padded batch. A pass for each length."""
    logits, loss, gradients = {}, None, None
    sides = list(case.sides())
    for length in {ids.shape[1] for _, ids, _ in sides}:
        same = [side for side in sides if side[1].shape[1] == length]
        names, ids, mask = zip(*same, strict=True)
        counts = [name == "right" for name in names for _ in ids[0]]
        rows = tuple(map(np.concatenate, (ids, mask))) if "right" in names else None
        if rows is None:
            logits |= {name: forward(model, params, *both) for name, *both in same}
            continue
        (loss, found), gradients = learning(model, params, *rows, np.array(counts))
        logits |= dict(zip(names, np.split(np.asarray(found), len(names)), strict=True))
    return logits, loss, gradients


@functools.partial(jax.jit, static_argnums=0)
def forward(model: Transformer, params, ids, mask):
    outputs: Any = model.apply({"params": params}, ids, mask)
    return outputs.logits


@functools.partial(jax.jit, static_argnums=0)
def learning(model: Transformer, params, ids, mask, counts):
    """Mean cross-entropy of all next tokens of the rows that count, as `labels=input_ids` gives
    it, with its gradient, and the logits of all rows.
    """

    def loss(params):
        logits = forward(model, params, ids, mask)
        predicted = mask[:, 1:] & mask[:, :-1] & counts[:, None]
        logps = jnp.where(predicted, token_logps(logits, ids)[:, 1:], 0)
        return -logps.sum() / predicted.sum(), logits

    return jax.value_and_grad(loss, has_aux=True)(params)


def likeliest_differ(ours: np.ndarray, theirs: np.ndarray, error: float) -> int:
    """Positions `[N, V]` whose largest logit is another, by more than two logits can be off."""
    rows = np.arange(len(theirs))
    lead = theirs.max(axis=-1) - theirs[rows, np.asarray(ours).argmax(axis=-1)]
    return int((lead > 2 * min(error, TOLERANCE)).sum())


def learning_errors(loss, gradients, family: str, case: Case) -> dict:
    """Relative errors of loss and gradient norms; a norm below 1e-4 of all counts as that."""
    errors: dict[str, float | None] = {"loss": None, "gradients": None}
    theirs, given = (case.outputs.get(name) for name in ("loss", "grad_norms"))
    if loss is not None and theirs is not None:
        errors["loss"] = abs(float(loss) - float(theirs)) / abs(float(theirs))
    if loss is not None and given is not None:
        ours, least = norms(gradients, family), 1e-4 * float(np.linalg.norm(given))
        named = dict(zip(map(plain_name, case.parameter_names), map(float, given), strict=True))
        off = {name: abs(ours.get(name, np.inf) - norm) for name, norm in named.items()}
        errors["gradients"] = float(np.max([off[name] / max(named[name], least) for name in off]))
    return errors


def norms(gradients, family: str) -> dict[str, float]:
    """L2 norms by the names of their tensors, several of ours in one of theirs added up."""
    squares: dict[str, float] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = storage_rule(jax.tree_util.keystr(path, simple=True, separator="/"), family).name
        squares[name] = squares.get(name, 0.0) + float(np.sum(np.square(leaf, dtype=np.float64)))
    return {name: square**0.5 for name, square in squares.items()}


def cache_error(model: Transformer, params, logits: dict, case: Case) -> float:
    """How far logits made token by token are from those of the full pass, on the longest batch,
    of several the left-padded one.
    """
    sides = sorted(case.sides(), key=lambda side: (side[1].shape[1], side[0] == "left"))
    name, ids, mask = sides[-1]
    return float(jnp.abs(logits[name] - decode(model, params, ids, mask))[mask].max())


@functools.partial(jax.jit, static_argnums=0)
def decode(model: Transformer, params, ids, mask):
    """`[B, T, V]` logits by way of the cache: half of the columns at once, then one at a time."""
    columns = ids.shape[1]
    half = columns // 2

    def read(cache, column):
        outputs: Any = model.apply({"params": params}, *column, cache=cache)
        return outputs.cache, outputs.logits

    cache, first = read(empty_cache(model.config, ids, columns), (ids[:, :half], mask[:, :half]))
    rest = tuple(jnp.moveaxis(x[:, half:, None], 1, 0) for x in (ids, mask))
    _, steps = jax.lax.scan(read, cache, rest)
    return jnp.concatenate((first, jnp.moveaxis(steps[:, :, 0], 0, 1)), axis=1)


def lines(rows: list[Row]) -> list[tuple[str, ...]]:
    """The table's cells."""

    def shown(error):
        return "" if error is None else f"{error:.1e}"

    return [
        (
            row.name,
            row.family,
            f"{row.parameters:,}" if row.parameters else "",
            shown(row.errors.get("logits")),
            ("same" if not row.flips else f"{row.flips} differ") if row.errors else "",
            *(shown(row.errors.get(name)) for name in ("loss", "gradients", "cache")),
            row.note or ("WRONG" if row.is_wrong else "ok"),
        )
        for row in rows
    ]


def markdown(rows: list[Row]) -> str:
    """The page."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("jax", "jaxlib", "flax"))
    head = [
        "# Published architectures\n",
        f"`python -m benchmarks.parity --models DIR`, float32; {libraries}. Worst absolute error",
        "of logits and of decoding with a cache, relative errors of loss and gradient norms.\n",
        f"| {' | '.join(HEADER)} |",
        f"|{'---|' * len(HEADER)}",
    ]
    return "\n".join(head + [f"| {' | '.join(line)} |" for line in lines(rows)]) + "\n"


def run(models: Path, markdown_file: Path | None = None) -> int:
    """Compares, prints and returns the exit status."""
    known = cases(models)
    named = {os.path.normpath(case.folder.absolute()) for case in known}
    rows = [whatever_comes(case) for case in known]
    if not rows:
        print(f"{models}: no manifest (*.json with cases) names a model in it", file=sys.stderr)
        return 2
    grid = Table()
    for name in HEADER:
        grid.add_column(name, overflow="fold")
    for line in lines(rows):
        grid.add_row(*line)
    Console(width=max(150, Console().width)).print(grid)
    wrong = sum(row.is_wrong for row in rows)
    print(f"{len(rows)} models, {wrong} wrong, bound {TOLERANCE}")
    folders = {file.parent for file in models.absolute().glob("*/config.json")}
    if others := sorted(x.name for x in folders if os.path.normpath(x) not in named):
        print(f"no manifest has logits of {', '.join(others)}")
    if markdown_file:
        markdown_file.write_text(markdown(rows))
    return int(wrong > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    return run(arguments.models, arguments.markdown)


if __name__ == "__main__":
    raise SystemExit(main())
