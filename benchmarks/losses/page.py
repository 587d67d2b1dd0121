"""The results as Markdown."""

import os
import platform
import statistics
from pathlib import Path

import jax
import jaxlib
import numpy as np
import optax

from benchmarks.losses.functions import Function
from benchmarks.losses.material import ROWS
from benchmarks.losses.steps import Case

STEPS = f"""
## The whole step

One jitted `train_step` on a batch of {ROWS} rows: the model both ways, loss, metrics, clipping,
AdamW. Median milliseconds; the ratio is to plain DPO in the same round, also for each text that the
model reads ("per text"), since rows hold one to four. Sampling, scoring and reference passes come
before a step and are not in it. "Lowest to highest" is that of the ratio over rounds; the last line
is plain DPO once more, at the end of each round.

| loss | a row is | texts | ms | ratio | lowest to highest | per text |
|:--|:--|--:|--:|--:|--:|--:|
"""
FUNCTIONS = """
## The loss alone

Value and gradient of the unreduced losses of one batch on ready log-probabilities (distillation: on
logits; reward models: on scores), summed, jitted; median microseconds of a call. The first line is
what a call costs whatever it computes.

| loss | shape | microseconds |
|:--|:--|--:|
"""


def page(command: str, steps: list[tuple[Case, list[float]]], alone) -> str:
    """Both tables under a heading that says where they were measured."""
    heading = f"# What a loss costs\n\n`{command}`; {machine()}.\n"
    return heading + STEPS + step_rows(steps) + FUNCTIONS + function_rows(alone)


def machine() -> str:
    """Processor, device and versions."""
    versions = ", ".join(f"{module.__name__} {module.__version__}" for module in VERSIONS)
    device = jax.devices()[0].device_kind
    cores = f"{os.cpu_count()} cores of {processor()}, device {device}"
    return f"{cores}; Python {platform.python_version()}, {versions}"


VERSIONS = (jax, jaxlib, optax, np)


def processor() -> str:
    """Its name where Linux tells, the architecture otherwise."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def step_rows(steps: list[tuple[Case, list[float]]]) -> str:
    """A row a loss; the first is plain DPO."""
    dpo, base = steps[0]
    lines = []
    for case, times in steps:
        ratios = [x / y for x, y in zip(times, base, strict=True)]  # to the same round's DPO
        ratio = statistics.median(ratios)
        cells = (
            *(case.name, case.kind, str(case.texts)),
            f"{1e3 * statistics.median(times):.1f}",
            f"{ratio:.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            f"{ratio * dpo.texts / case.texts:.2f}",
        )
        lines.append("| " + " | ".join(cells) + " |\n")
    return "".join(lines)


def function_rows(alone: list[tuple[Function, list[float]]]) -> str:
    """A row a loss."""
    return "".join(
        f"| {function.name} | {function.shape} | {1e6 * statistics.median(times):,.0f} |\n"
        for function, times in alone
    )
