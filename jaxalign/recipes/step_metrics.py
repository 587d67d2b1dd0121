"""Metrics that every training loop logs of its steps: learning rate, epoch, tokens and speed."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from jaxalign.batches.functions import Metrics
from jaxalign.batches.tokens import token_count
from jaxalign.system.peaks import peak_flops
from jaxalign.train.metrics import MetricsWriter, logged

SAMPLING = "seconds/sampling"  # of steps that sample first


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What a loop knows of its steps beforehand.

    learning_rate: number of a step, from 1 -> the rate of its last update.
    steps_per_epoch: in which all rows (or prompts) come once; may be broken.
    flops_per_token: of the model in training; None: not known.
    devices: that share the work.
    """

    learning_rate: Callable[[int], float]
    steps_per_epoch: float | None = None
    flops_per_token: float | None = None
    devices: tuple[Any, ...] = ()


def training_flops(*, parameters: int, trained: int) -> float:
    """Floating-point operations of a token in training: 2 N forward, 2 N back to the activations
    and 2 N to the gradients of the N parameters, where they are trained.

    Source: Kaplan et al. 2020, https://arxiv.org/abs/2001.08361, Table 1 (6 N).

    >>> training_flops(parameters=10, trained=10), training_flops(parameters=10, trained=1)
    (60.0, 42.0)
    """
    return 4.0 * parameters + 2.0 * trained


class StepMetrics:
    """Counter of a stage's steps and tokens, and of the time that they take.

    Between two lines it measures tokens a second; the first step of a process, which compiles, and
    evaluations are left out.
    """

    def __init__(self, writer: MetricsWriter, stage: str, facts: StepFacts):
        self.writer, self.stage, self.facts = writer, stage, facts
        self.step, self.tokens = 0, 0
        self.since: tuple[float, int] | None = None  # time and tokens
        self.ends: dict[int, float] = {}  # of steps that had ended before they were handed on

    def start(self, step: int, batches: Callable[[int], Any]) -> None:
        """Go on from a step: its tokens are those of its line, or of the last line before it and
        of the batches since then.

        What was sampled between that line and the step is not known any longer, and not counted.
        """
        before = logged(self.writer.directory, self.stage, "tokens_seen")
        line = max((number for number in before if number <= step), default=0)
        self.tokens = int(before.get(line, 0))
        self.tokens += sum(token_count(batches(number)) for number in range(line, step))
        self.step = step

    def of_step(self, batch: Any, metrics: Metrics) -> Metrics:
        """Metrics of the step that was just handed to the device.

        Args:
          batch: in NumPy.
          metrics: with `tokens`, a float, where the batch alone does not say how many they are.
        """
        known = metrics.get("tokens")
        self.step += 1
        self.tokens += int(known) if isinstance(known, float) else token_count(batch)
        more: dict[str, Any] = {"learning_rate": self.facts.learning_rate(self.step)}
        if self.facts.steps_per_epoch is not None:
            more["epoch"] = self.step / self.facts.steps_per_epoch
        if self.tokens:
            more["tokens_seen"] = float(self.tokens)
        now = time.monotonic()
        if self.since is None:
            self.since = now, self.tokens
        if SAMPLING in metrics:  # which waited for the device
            self.ends[self.step] = now
        return more

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Write the metrics of a step, with the speed since the line before."""
        is_step = "tokens_seen" in metrics
        tokens = int(metrics["tokens_seen"]) if is_step else self.tokens
        now = self.ends.get(step, time.monotonic()) if is_step else time.monotonic()
        speed = self._speed(tokens, now) if is_step else {}
        self.writer.write(self.stage, step, metrics | speed)
        self.ends = {number: end for number, end in self.ends.items() if number > step}
        if self.since is not None:
            self.since = now, max(tokens, self.since[1])

    def _speed(self, tokens: int, now: float) -> dict[str, float]:
        if self.since is None or tokens <= self.since[1] or now <= self.since[0]:
            return {}
        rate = (tokens - self.since[1]) / (now - self.since[0])
        speed = {"tokens_per_second": rate}
        peaks = [peak_flops(device.device_kind) for device in self.facts.devices]
        if self.facts.flops_per_token is not None and peaks and None not in peaks:
            total = sum(peak for peak in peaks if peak is not None)
            speed["utilisation"] = rate * self.facts.flops_per_token / total
        return speed
