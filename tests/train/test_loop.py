"""The loop: what is called when, stopping and going on, and what it refuses."""

import signal

import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.errors import StepRefused, UserError
from jaxalign.train.checkpoints import Checkpoints
from jaxalign.train.evaluations import Best, Evaluations
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

    _, reported = run(5, evaluations=Evaluations(evaluate=evaluate, every=2), log_every=3)
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
    evaluations = Evaluations(evaluate=lambda state: {"e": 0.0})
    options = {"checkpoints": checkpoints, "on_start": starts.append}
    state, reported = run(6, evaluations=evaluations, **options)
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
        UserError, match=r"^loss is nan at step 8, .* lower learning_rate .* --output$"
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


# The metric of the state after 0, 1, 2 ... updates, which `choosing` evaluates every second step.
CURVE = (9.0, 8.0, 5.0, 4.0, 6.0, 5.5, 7.0, 6.5, 5.2, 3.0, 6.1, 1.0, 2.0)


def choosing(steps, checkpoints, *, patience=None, metric="eval/loss", logged=None, **options):
    """A run of `add` that takes the state with the best value of the curve; with it what chose.

    Args:
      logged: lines of earlier runs, `(step, metrics)`, which this one adds to and drops from as a
        run directory does.
    """
    lines = [] if logged is None else logged

    def drop(start):
        lines[:] = [line for line in lines if start and line[0] <= start]

    def evaluate(state):
        return {metric: CURVE[int(state).bit_length()]}

    best = Best(
        metric=metric,
        patience=patience,
        logged=lambda: {step: values[metric] for step, values in lines if metric in values},
    )
    evaluations = Evaluations(evaluate=evaluate, every=2, best=best)
    state = fit(
        jnp.float32(0), add, options.pop("batches", float), steps=steps, evaluations=evaluations,
        on_metrics=lambda step, metrics: lines.append((step, metrics)), on_start=drop,
        checkpoints=checkpoints, save_every=3, **options,
    )  # fmt: skip
    return int(state).bit_length(), best


def test_the_best_state_is_the_result_and_its_checkpoint_stays(checkpoints):
    step, best = choosing(9, checkpoints)
    assert (step, best.step, best.value) == (9, 9, 3.0)  # the last step is evaluated too
    assert checkpoints.steps() == [6, 9]
    step, best = choosing(10, checkpoints, metric="eval/rewards/margin")  # more is better there
    assert (step, best.value) == (10, 6.1)


def test_the_best_of_equal_ones_is_the_first_and_nan_is_never_best():
    best = Best(metric="loss", patience=2)
    for step, value in ((0, float("nan")), (1, 2.0), (2, 2.0)):
        best.add(step, value)
    assert (best.step, best.exhausted) == (1, False)
    best.add(3, float("nan"))
    assert (best.step, best.exhausted) == (1, True)
    best.add(4, 1.0)
    assert (best.step, best.exhausted) == (4, False)


def test_training_ends_without_a_better_evaluation_and_does_not_go_on(checkpoints):
    logged = []
    step, best = choosing(12, checkpoints, patience=2, logged=logged)
    assert (step, best.step, best.exhausted) == (2, 2, True)
    assert checkpoints.steps() == [2, 3, 6]  # best, every third, and where it stopped
    assert logged[-1] == (6, {"eval/loss": CURVE[6]})
    before = list(logged)
    step, best = choosing(12, checkpoints, patience=2, logged=logged)
    assert (step, best.exhausted, logged) == (2, True, before)
    step, best = choosing(12, checkpoints, patience=5, logged=logged)  # more patience goes on
    assert (step, best.step, best.exhausted) == (12, 12, False)


@pytest.mark.parametrize("last", range(1, 12))
def test_a_run_that_was_killed_chooses_as_one_that_was_not(checkpoints, tmp_path, last):
    """Killed in any step, whose lines may be written already: the same lines and the same state."""

    def batches(i):
        if i == last:
            raise InterruptedError
        return float(i)

    whole, parts = [], []
    other = Checkpoints(tmp_path / "other", keep=1)
    expected = choosing(12, other, patience=3, logged=whole)[0]
    other.close()
    if last < 8:
        with pytest.raises(InterruptedError):
            choosing(12, checkpoints, patience=3, logged=parts, batches=batches)
    assert choosing(12, checkpoints, patience=3, logged=parts)[0] == expected == 2
    assert parts == whole and whole[-1][0] == 8


def test_without_a_checkpoint_nothing_is_the_best(checkpoints):
    """Of a run that had not asked for the best one, only the states that are kept can be it."""
    logged = [(step, {"eval/loss": CURVE[step]}) for step in (0, 2, 4, 6)]
    run(6, checkpoints=checkpoints, save_every=2)
    step, best = choosing(8, checkpoints, logged=logged)
    assert (step, best.step) == (8, 8)  # 5.0 after step 2 is gone, 6.0 and 7.0 are there


def test_a_run_that_goes_on_without_an_evaluation_is_evaluated_first(checkpoints):
    run(4, checkpoints=checkpoints)
    seen = []
    evaluations = Evaluations(
        evaluate=lambda state: {"e": 0.0}, every=9, logged=lambda: [step for step, _ in seen]
    )
    for steps, expected in ((6, [4, 5, 6, 6]), (7, [7, 7])):
        _, reported = run(steps, checkpoints=checkpoints, evaluations=evaluations)
        assert [step for step, _ in reported] == expected
        seen += reported


@pytest.mark.parametrize(("every", "last"), [(None, 5), (3, 3), (2, 4)])
@pytest.mark.parametrize("fault", [InterruptedError, StepRefused])
def test_a_run_that_ends_within_an_evaluation_has_its_state_and_evaluates_it(
    checkpoints, every, last, fault
):
    """Killed, where a checkpoint is due as well, or refused by a reward that is not there."""
    lines = []

    def begin(start):
        lines[:] = [line for line in lines if start and line[0] <= start]

    def evaluate(state):
        if broken and int(state).bit_length() == last:
            raise fault("gone")
        return {"e": float(state)}

    evaluations = Evaluations(
        evaluate=evaluate, every=every, logged=lambda: [step for step, x in lines if "e" in x]
    )
    options = {"checkpoints": checkpoints, "evaluations": evaluations, "on_start": begin}
    options |= {"on_metrics": lambda step, metrics: lines.append((step, metrics)), "steps": 5}
    options["save_every"] = 4 if fault is StepRefused else 1
    broken = True
    with pytest.raises(fault, match="gone"):
        fit(jnp.float32(0), add, float, **options)
    checkpoints.wait()
    assert checkpoints.steps()[-1] == last
    broken, drawn = False, []
    state = fit(jnp.float32(0), add, lambda i: drawn.append(i) or float(i), **options)
    assert (int(state), drawn) == (0b11111, list(range(last, 5)))
    evaluated = [step for step, x in lines if "e" in x]
    assert evaluated == [step for step in range(6) if step == 5 or (every and step % every == 0)]
