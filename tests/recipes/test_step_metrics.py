"""Learning rate, epoch, tokens and speed of the steps of a loop."""

import numpy as np
import pytest

from jaxalign.batches.tokens import PackedBatch, SharedPrompts, TokenBatch, token_count
from jaxalign.config.loop import OptimizerConfig
from jaxalign.recipes import step_metrics as module
from jaxalign.recipes.optimizer import learning_rates
from jaxalign.recipes.step_metrics import SAMPLING, StepFacts, StepMetrics
from jaxalign.system.peaks import peak_flops
from jaxalign.train.metrics import MetricsWriter, read_metrics
from jaxalign.train.optimizers import SCHEDULES, learning_rate_at, make_schedule


def rows(*lengths, columns=8):
    mask = np.arange(columns) < np.array(lengths)[:, None]
    zeros = np.zeros(mask.shape, np.int32)
    index = np.arange(len(lengths))
    return TokenBatch(tokens=zeros, prompt_mask=mask & False, response_mask=mask, index=index)


def test_real_tokens_of_every_kind_of_batch():
    one = rows(3, 5)
    fields = {"tokens": one.tokens, "prompt_mask": one.prompt_mask}
    packed = PackedBatch(
        **fields, response_mask=one.response_mask, segments=one.tokens, index=one.index[:, None]
    )
    shared = SharedPrompts(
        prompts=one.tokens,
        prompt_mask=one.response_mask,  # 8 tokens, once for the two responses
        responses=np.zeros((2, 2, 3), np.int32),
        mask=np.ones((2, 2, 3), bool),
        response_mask=np.ones((2, 2, 3), bool),
        index=one.index,
    )
    assert token_count(one) == token_count(packed) == 8 and token_count(shared) == 20
    assert token_count({"a": (one, None), "b": [shared], "c": np.ones(3)}) == 28
    assert token_count(np.ones((2, 2))) == 0


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup_steps", [0, 1, 3, 10])
def test_the_rate_is_that_of_the_optimizer(schedule, warmup_steps):
    given = {"learning_rate": 0.3, "schedule": schedule, "warmup_steps": warmup_steps}
    rate = make_schedule(**given, total_steps=10)
    for update in range(10):
        found = learning_rate_at(update, **given, total_steps=10)
        assert found == pytest.approx(float(rate(update)), abs=1e-7)


def test_the_rate_of_an_iteration_is_that_of_its_last_update():
    optimizer = OptimizerConfig(learning_rate=1.0, schedule="linear", warmup_steps=0)
    rates = learning_rates(optimizer, 8, updates=4)
    assert [rates(step) for step in (1, 2)] == [1 - 3 / 8, 1 - 7 / 8]


class Device:
    device_kind = "NVIDIA A100-SXM4-80GB"


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def counts_of():
    """Makes the counter of a stage of a run."""
    writers = []

    def made(folder, **facts):
        facts = {"learning_rate": lambda step: 0.1 * step, "steps_per_epoch": 4.0, **facts}
        writers.append(MetricsWriter(folder))
        return StepMetrics(writers[-1], "sft", StepFacts(**facts))

    yield made
    for writer in writers:
        writer.close()


def test_a_loop_over_rows(tmp_path, clock, counts_of):
    """Speed is counted from the end of the first step on; evaluations are left out of it."""
    counts = counts_of(tmp_path, flops_per_token=6e11, devices=(Device(), Device()))
    counts.start(0, lambda number: rows(4))
    first = counts.of_step(rows(4), {}) | {"loss": 1.0}  # the step that compiles
    clock[0] += 10
    second = counts.of_step(rows(4, 6), {}) | {"loss": 1.0}
    assert first == {"learning_rate": 0.1, "epoch": 0.25, "tokens_seen": 4, "loss": 1.0}
    assert second["epoch"] == 0.5 and second["tokens_seen"] == 14
    counts.write(2, second)
    clock[0] += 5
    counts.write(2, {"eval/loss": 1.0})
    third = counts.of_step(rows(8), {})
    clock[0] += 2
    counts.write(3, third)
    lines = read_metrics(tmp_path)
    assert [line.get("tokens_per_second") for line in lines] == [1.0, None, 4.0]
    assert lines[2]["utilisation"] == pytest.approx(4 * 6e11 / (2 * 312e12))


def test_steps_that_sample_have_ended_when_they_are_handed_on(tmp_path, clock, counts_of):
    """They are written later, the last ones all at once."""
    counts = counts_of(tmp_path)
    counts.start(0, lambda number: rows(4))
    steps = []
    for seconds in (30, 2, 4):
        clock[0] += seconds
        steps.append(counts.of_step(None, {"tokens": 8.0, SAMPLING: 1.0}))
    for number, metrics in enumerate(steps, 1):
        counts.write(number, metrics)
    speeds = [line.get("tokens_per_second") for line in read_metrics(tmp_path)]
    assert speeds == [None, 4.0, 2.0]
    assert "utilisation" not in read_metrics(tmp_path)[-1]


def test_tokens_go_on_where_a_run_does(tmp_path, counts_of):
    """Those since the last line are counted again from the batches."""

    def batches(number):
        return rows(number + 1)

    counts = counts_of(tmp_path)
    counts.start(0, batches)
    metrics = [counts.of_step(batches(number), {}) for number in range(5)]
    counts.write(3, metrics[2])  # of 1 + 2 + 3 tokens
    again = counts_of(tmp_path)
    again.start(4, batches)
    assert again.of_step(batches(4), {}) == metrics[4]
    assert metrics[4]["tokens_seen"] == 15


def test_a_peak_is_known_or_nothing_is_said():
    assert peak_flops("TPU v5 lite") == 197e12 and peak_flops("TPU v5") == 459e12
    assert peak_flops("cpu") is peak_flops("NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None
