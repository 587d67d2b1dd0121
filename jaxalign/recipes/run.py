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
from jaxalign.recipes.endings import Ending
from jaxalign.recipes.going_on import check_config
from jaxalign.recipes.inputs import (
    EVALUATION_ROWS,
    FILE,
    Digest,
    Inputs,
    check_same,
    read_inputs,
)
from jaxalign.recipes.reproduction import configuration_name
from jaxalign.recipes.tracking import trackers_of
from jaxalign.system.console import tell
from jaxalign.system.files import (
    exists,
    make_directory,
    read_json,
    short_path,
    write_atomically,
)
from jaxalign.train.checkpoints import Checkpoints
from jaxalign.train.lines import LinesWriter
from jaxalign.train.metrics import MetricsWriter

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
    endings: how the training of each stage ended, by name, as far as it has.
    """

    directory: Path
    layout: Layout
    metrics: MetricsWriter
    samples: LinesWriter
    seed: int
    name: str = ""
    endings: dict[str, Ending] = dataclasses.field(default_factory=dict)
    passes: dict = dataclasses.field(default_factory=dict, repr=False)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *error: Any) -> None:
        self.metrics.close(failed=error[0] is not None)
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

    def checkpoints(self, name: str, *, keep: int = 2, layers: int | None = None) -> Checkpoints:
        """Checkpoints of a stage; arguments as of `Checkpoints`."""
        folder = self.directory / "checkpoints" / name
        return Checkpoints(folder, keep=keep, run=self.name, layers=layers)


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
    """Create or reopen a run directory; a run goes on only with what it began with, but for what
    `check_config` allows and an added evaluation set. Where nothing was saved yet, it begins again.

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
        saved = read_json(directory / "config.json")
        check_config(directory, saved, config, done=steps_made(directory))
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
    versions["configuration"] = configuration_name(config)
    _write_json(directory / "versions.json", versions)
    tell(f"device: {versions['device']}")
    return Run(
        directory=directory,
        layout=layout,
        metrics=MetricsWriter(directory, trackers_of(directory, config, key=record.run)),
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
        added = inputs.keys() & {EVALUATION_ROWS} - record.inputs.keys()
        check_same(record.inputs | {name: inputs[name] for name in added}, inputs, directory)
    updated = dataclasses.replace(record, inputs=dict(inputs))
    _write_json(directory / FILE, dataclasses.asdict(updated))


def has_saved(directory: Path) -> bool:
    """Whether a run directory holds a checkpoint or results."""
    return (directory / "results.json").exists() or any(_saved_steps(directory))


def steps_made(directory: Path) -> int:
    """Steps or iterations of the last checkpoint of a run directory, of whatever stage."""
    return max((steps[-1] for steps in _saved_steps(directory) if steps), default=0)


def _saved_steps(directory: Path) -> list[list[int]]:
    """Steps of the checkpoints of every stage."""
    stages = directory / "checkpoints"
    folders = [path for path in stages.iterdir() if path.is_dir()] if stages.is_dir() else []
    return [Checkpoints(folder).steps() for folder in folders]


def _check_free(directory: Path) -> None:
    """Check that a directory without a run holds no file that a run would overwrite."""
    there = [name for name in WRITTEN if exists(directory / name)]
    if has_saved(directory):
        there.append("checkpoints")
    if there:
        raise UserError(
            f"{short_path(directory)} holds {there[0]} and no {FILE}, so it is no run's directory; "
            "give another --output, one that is new or empty"
        )


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(content, indent=2))
