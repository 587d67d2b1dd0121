"""Run directories: configuration, inputs, metrics and checkpoints of a run, and its devices."""

import dataclasses
import functools
import importlib.metadata
import json
import platform
import secrets
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxalign.config.place import PlaceConfig
from jaxalign.data.templates import template_date
from jaxalign.errors import UserError
from jaxalign.layouts.choice import make_layout
from jaxalign.layouts.layout import Layout, pad_rows
from jaxalign.recipes.inputs import FILE, Digest, Inputs, check_same, read_inputs
from jaxalign.system.console import tell
from jaxalign.system.files import (
    exists,
    make_directory,
    quote,
    read_json,
    short_path,
    write_atomically,
)
from jaxalign.train.checkpoints import Checkpoints
from jaxalign.train.lines import LinesWriter
from jaxalign.train.metrics import MetricsWriter

# Options that name files: of them `inputs.json` keeps the content. The last names a cache.
PATHS = {"init", "policy", "teacher", "adapter", "reward", "data.path", "data.evaluation_path"}
PATHS |= {"reference_logps"}
# what a run writes, and never over what was there before it
WRITTEN = ("config.json", "results.json", "samples.json", "metrics.jsonl", "samples.jsonl")
WRITTEN += ("report.html", "model")
PACKAGES = ("jaxalign", "jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """An open run directory.

    directory: where everything is written.
    layout: where it computes.
    metrics: `metrics.jsonl` and TensorBoard events.
    samples: `samples.jsonl`, which methods that sample write.
    seed: all randomness of the run comes from it.
    name: that no other run has; its checkpoints bear it.
    """

    directory: Path
    layout: Layout
    metrics: MetricsWriter
    samples: LinesWriter
    seed: int
    name: str = ""
    passes: dict = dataclasses.field(default_factory=dict, repr=False)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *error: Any) -> None:
        self.metrics.close()
        self.samples.close()

    def rows(self, fn: Callable[..., Any]):
        """`layout.rows(fn)`, compiled once for every function."""
        if fn not in self.passes:
            self.passes[fn] = self.layout.rows(fn)
        return self.passes[fn]

    def step(self, fn: Callable[..., Any], *, micro_batches: int):
        """`layout.step(fn)` for batches of any number of rows.

        Devices and micro-batches cut a batch into equal parts; what it lacks for that is filled up
        with rows of zeros, which weigh nothing. So where a batch is computed changes neither what
        it holds nor the update.

        Args:
          fn: `train_step`, short of `micro_batches`.
        """
        compiled = self.layout.step(functools.partial(fn, micro_batches=micro_batches))
        parts = len(self.layout.devices) * micro_batches
        return lambda state, batch: compiled(state, pad_rows(batch, parts)[0])

    def key(self, name: str) -> jax.Array:
        """Random key of the run for a name."""
        return key_of(self.seed, name)

    def checkpoints(self, name: str) -> Checkpoints:
        """Checkpoints of a stage."""
        return Checkpoints(self.directory / "checkpoints" / name, run=self.name)


def key_of(seed: int, name: str) -> jax.Array:
    """Random key for a name in a run with this seed."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def open_run(
    directory: Path,
    config: Any,
    place: PlaceConfig,
    seed: int,
    *,
    inputs: Mapping[str, Digest] | None = None,
) -> Run:
    """Create or reopen a run directory; a run goes on only under the configuration and with the
    inputs that began it. Where nothing was saved yet, it begins again.

    Args:
      inputs: what else it depends on; None: `keep_inputs` will be told.

    Raises:
      UserError: the directory holds a run of others.
    """
    make_directory(directory)
    record = read_inputs(directory)
    if record is None:
        _check_free(directory)
    if record is not None and has_saved(directory):
        _check_config(directory, config)
    else:
        record = Inputs(run=secrets.token_hex(8), started=template_date().isoformat())
        _write_json(directory / FILE, dataclasses.asdict(record))
        for name in ("metrics.jsonl", "samples.jsonl"):
            (directory / name).unlink(missing_ok=True)
    if inputs is not None:
        keep_inputs(directory, inputs)
    _write_json(directory / "config.json", dataclasses.asdict(config))
    layout = make_layout(place.layout, devices=place.devices)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    versions |= {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{len(layout.devices)} x {layout.devices[0].device_kind} ({layout.name})",
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    _write_json(directory / "versions.json", versions)
    tell(f"device: {versions['device']}")
    return Run(
        directory=directory,
        layout=layout,
        metrics=MetricsWriter(directory),
        samples=LinesWriter(directory / "samples.jsonl"),
        seed=seed,
        name=record.run,
    )


def keep_inputs(directory: Path, inputs: Mapping[str, Digest]) -> None:
    """Compare the inputs of a run with those that it began with, or record them.

    Raises:
      UserError: it began with something else.
    """
    record = read_inputs(directory)
    assert record is not None, directory
    if record.inputs is not None:
        check_same(record.inputs, inputs, directory)
    updated = dataclasses.replace(record, inputs=dict(inputs))
    _write_json(directory / FILE, dataclasses.asdict(updated))


def has_saved(directory: Path) -> bool:
    """Whether a run directory holds a checkpoint or results."""
    stages = directory / "checkpoints"
    folders = [path for path in stages.iterdir() if path.is_dir()] if stages.is_dir() else []
    return (directory / "results.json").exists() or any(Checkpoints(f).steps() for f in folders)


def _check_free(directory: Path) -> None:
    """Check that a directory without a run holds no file that a run would overwrite."""
    there = [name for name in WRITTEN if exists(directory / name)]
    if has_saved(directory):
        there.append("checkpoints")
    if there:
        raise UserError(
            f"{short_path(directory)} holds {there[0]} and no {FILE}, so it is no run's directory; "
            "give another run_dir, one that is new or empty"
        )


def _check_config(directory: Path, config: Any) -> None:
    """Check that the configuration is that of the run, but for paths, whose content is compared."""
    current = json.loads(json.dumps(dataclasses.asdict(config)))
    saved = read_json(directory / "config.json")
    before, now = flat_fields(saved), flat_fields(current)
    for name in sorted(before | now):
        if before.get(name) != now.get(name) and not _is_path(name, before, now):
            raise UserError(
                f"{short_path(directory)} holds a run with {name} = {quote(before.get(name))}, "
                f"this one has {quote(now.get(name))}; use the same configuration to resume it, or "
                "another run_dir"
            )


def _is_path(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a field names a file in both configurations, or is the key of a reward source."""
    both = isinstance(before.get(name), str) and isinstance(now.get(name), str)
    return name.startswith("rewards.") or (name in PATHS and both)


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(content, indent=2))


def flat_fields(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict, names joined by dots."""
    flat = {}
    for name, value in tree.items():
        flat |= (
            flat_fields(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else {prefix + name: value}
        )
    return flat
