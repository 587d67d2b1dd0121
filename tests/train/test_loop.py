"""The loop: what is called when, stopping and going on, and what it refuses."""

import signal

import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.errors import UserError
from jaxalign.train.checkpoints import Checkpoints
from jaxalign.train.loop import fit


def add(state, batch):
    """A step whose state is the list of batches that it has seen, as a sum of powers of two."""
    return state + 2.0**batch, {"loss": state, "batch": jnp.float32(batch)}


def run(steps, *, state=0.0, batches=float, **options):
    """`fit` of `add`; returns the state and everything that was reported."""
    reported = []
    options = {"on_metrics": lambda step, metrics: reported.append((step, metrics))} | options
    return fit(jnp.float32(state), add, batches, steps=steps, **options), reported


@pytest.fixture
def checkpoints(tmp_path):
    opened = Checkpoints(tmp_path / "checkpoints")
    yield opened
    opened.close()


def test_every_batch_once_and_metrics_by_step():
    state, reported = run(5)
    assert state == 0b11111
    assert [(step, metrics["batch"]) for step, metrics in reported] == [
        (step, step - 1) for step in range(1, 6)
    ]
    assert reported[3][1] == {"loss": 0b111, "batch": 3}
    assert all(type(value) is float for value in reported[0][1].values())


def test_metrics_every_few_steps():
    _, reported = run(10, log_every=4)
    assert [step for step, _ in reported] == [4, 8, 10]


def test_no_steps():
    assert run(0) == (0, [])


class Scalar:
    """A number on a device, as far as the loop can tell; it notes when somebody waits for it."""

    def __init__(self, events, step):
        self.events, self.step = events, step

    def block_until_ready(self):
        self.events.append(f"wait {self.step}")

    def __float__(self):
        return 0.0


def test_nobody_waits_for_the_running_step():
    events = []

    def step(state, batch):
        events.append(f"start {batch}")
        return state, {"accuracy": Scalar(events, batch)}

    fit(0, step, lambda i: i + 1, steps=4, on_metrics=lambda step, metrics: None, log_every=2)
    assert events == [
        "start 1",
        "start 2",
        "start 3",
        "wait 1",
        "start 4",
        "wait 2",
        "wait 3",
        "wait 4",
    ]


def test_evaluation_at_the_start_now_and_then_and_at_the_end():
    def evaluate(state):
        return {"seen": float(state)}

    _, reported = run(5, evaluate=evaluate, evaluate_every=2, log_every=3)
    assert reported == [
        (0, {"seen": 0}),
        (2, {"seen": 0b11}),
        (3, {"loss": 0b11, "batch": 2}),
        (4, {"seen": 0b1111}),
        (5, {"loss": 0b1111, "batch": 4}),
        (5, {"seen": 0b11111}),
    ]


def test_going_on_from_a_checkpoint(checkpoints):
    starts = []
    run(4, checkpoints=checkpoints, on_start=starts.append)
    state, reported = run(
        6, checkpoints=checkpoints, on_start=starts.append, evaluate=lambda state: {"e": 0.0}
    )
    assert state == 0b111111
    assert starts == [0, 4]
    assert [step for step, _ in reported] == [5, 6, 6]  # no evaluation of the start again
    state, reported = run(6, checkpoints=checkpoints, on_start=starts.append)
    assert (state, reported, starts) == (0b111111, [], [0, 4, 6])


def test_a_checkpoint_beyond_the_run(checkpoints):
    run(4, checkpoints=checkpoints)
    with pytest.raises(
        UserError, match=r"^the checkpoint is of step 4, the run has 3 steps; give at least"
    ):
        run(3, checkpoints=checkpoints)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(checkpoints, capfd, number):
    def batches(i):
        if i == 2:
            signal.raise_signal(number)  # to this thread: the kernel may choose another one
        return float(i)

    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    reported = []
    with pytest.raises(SystemExit) as stopped:
        run(
            9,
            batches=batches,
            checkpoints=checkpoints,
            on_metrics=lambda step, metrics: reported.append(step),
        )
    assert stopped.value.code == 128 + number
    assert reported == [1, 2, 3]
    assert capfd.readouterr().err == (
        f"{number.name}: finishing this step and saving (again to stop at once)\n"
        f"{number.name} after step 3 of 9: saved; run the same command again to go on\n"
    )
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    state, _ = run(9, checkpoints=checkpoints)
    assert state == 2**9 - 1


def test_a_signal_without_checkpoints(capfd):
    def batches(i):
        signal.raise_signal(signal.SIGTERM)
        return float(i)

    with pytest.raises(SystemExit):
        run(9, batches=batches)
    *_, line = capfd.readouterr().err.splitlines()
    assert line == "SIGTERM after step 1 of 9: not saved"


def test_a_second_interrupt_does_not_wait():
    def batches(i):
        signal.raise_signal(signal.SIGINT)  # to this thread: two sent to the process may merge
        signal.raise_signal(signal.SIGINT)
        return float(i)

    with pytest.raises(KeyboardInterrupt):
        run(9, batches=batches)


def test_a_loss_that_is_not_finite_is_never_saved(checkpoints):
    def step(state, batch):
        return state + 1, {"loss": jnp.where(batch < 5, 1.0, np.nan)}

    with pytest.raises(
        UserError, match=r"^loss is nan at step 8, .* lower learning_rate .* run_dir$"
    ):
        fit(
            jnp.float32(0),
            step,
            float,
            steps=9,
            on_metrics=lambda step, metrics: None,
            log_every=100,
            checkpoints=checkpoints,
            save_every=4,
        )
    assert checkpoints.restore(jnp.float32(0)) == (4, 4)


def test_progress_in_plain_lines(capsys):
    """The first step apart; metrics that matter are those of the last step at the end."""
    run(20, label="toy", tokens_per_step=3, shown=("loss", "nothing"))
    first, compiling, after, last = capsys.readouterr().out.splitlines()
    assert (first, compiling) == ("toy: 0/20", "toy: compiling, first step")
    assert after.startswith("toy: first step after ")
    assert last.startswith("toy: 20/20 ") and last.endswith("0:00:00 left, loss 5.243e+05")  # 2^19
    assert "steps/s" in last and "tokens/s" in last
