"""The harness of `benchmarks.hostile`: each outcome is recognised, on trials made for it."""

import os
import signal
import sys
import time
import warnings

import pytest

from benchmarks.hostile import pool, table
from benchmarks.hostile.base import Base
from benchmarks.hostile.judge import OUTCOMES, Ending, Fault, either, refused, worked
from benchmarks.hostile.kinds import all_trials
from benchmarks.hostile.trial import Room, Trial, called

pytestmark = pytest.mark.slow


LINE = "jaxalign: data.jsonl:3: no field text; add it\n"


def line(room: Room) -> str:
    return refused(Ending(2, err=LINE), "data.jsonl")


def fault(outcome: str):
    def act(room: Room) -> str:
        raise Fault(outcome, "as made up")

    return act


def traceback(room: Room) -> str:
    return refused(called(lambda: 1 // 0))


def hang(room: Room) -> str:
    while True:
        pass


def hang_that_is_caught(room: Room) -> str:
    while True:
        try:
            time.sleep(9)
        except BaseException:
            return "right"


def crash(room: Room) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "right"


def much_memory(room: Room) -> str:
    room.kept["much"] = b"x" * (4 * pool.MEMORY)  # what the kernel counts is rough
    return "right"


def broken(room: Room) -> str:
    raise KeyError("of the trial itself")


def files(room: Room) -> str:
    room.write("a/b.json", {"c": 1})
    return "right" if os.listdir() == ["a"] else "broken"


ACTS = {
    "right": files,
    "line": line,
    "unclear": lambda room: refused(Ending(2, err="no line\n")),
    "refused": lambda room: worked(Ending(2, err=LINE)),
    "traceback": traceback,
    "hang": hang,
    "memory": much_memory,
    "silent": lambda room: refused(Ending(0, out="done")),
    "lost": fault("lost"),
    "broken": broken,
    "hang, caught": hang_that_is_caught,
    "traceback, crash": crash,
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Of all of them, in forked processes of little patience and little memory."""
    work = tmp_path_factory.mktemp("hostile")
    trials = [Trial(kind="made up", name=name, act=act) for name, act in ACTS.items()]
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called")  # no trial here uses jax
        patch.setattr(pool, "MEMORY", 2**27)
        found = pool.run_all(trials, Base(work), limit=3, workers=2, report=lambda found: None)
    assert not any(work.glob("trial-*")), "a room was left behind"
    return {outcome.trial.name: outcome for outcome in found}


@pytest.mark.parametrize("name", ACTS)
def test_every_outcome_is_recognised(outcomes, name):
    assert outcomes[name].outcome == name.partition(",")[0], outcomes[name].detail


def test_the_table_counts_them(outcomes):
    assert {name.partition(",")[0] for name in ACTS} == set(OUTCOMES)
    rows = table.table(list(outcomes.values()))
    assert rows[-1][:2] == ["all", str(len(ACTS))]
    counted = dict(zip(rows[0], rows[-1], strict=True))
    assert counted["hang"] == counted["traceback"] == "2" and counted["silent"] == "1"
    assert "| made up | 12 |" in table.markdown(list(outcomes.values()), "a tree", 60.0)


@pytest.mark.parametrize(
    ("err", "complaint"),
    [
        ("", "no line"),
        (LINE + LINE, "several lines"),
        (LINE + "and more\n", "more than a line"),
        ("jaxalign: " + "x" * 700, "characters"),
        ("jaxalign: a\x1b[31m data.jsonl", "not printable"),
        ("jaxalign: something is wrong", "names none of data.jsonl"),
    ],
)
def test_lines_that_are_not_clear(err, complaint):
    with pytest.raises(Fault) as fault:
        refused(Ending(2, err=err), "data.jsonl")
    assert fault.value.outcome == "unclear" and complaint in fault.value.detail


def test_rows_may_be_listed_below_the_line():
    assert refused(Ending(2, err=LINE + "  data.jsonl:7: no field text\n"), "data.jsonl") == "line"


def test_another_exit_status_is_not_clear():
    with pytest.raises(Fault, match="another exit status"):
        refused(Ending(1, err=LINE))


def test_either_needs_the_right_result():
    assert either(Ending(0), lambda: None) == "right"
    assert either(Ending(2, err=LINE), fault("silent"), "data.jsonl") == "line"
    with pytest.raises(Fault, match="as made up"):
        either(Ending(0), lambda: fault("silent")(Room))


def test_a_traceback_of_another_thread_counts():
    err = 'Traceback (most recent call last):\n  File "a.py", line 1\nOSError: full\n'
    with pytest.raises(Fault) as found:
        worked(Ending(0, err=err))
    assert found.value.outcome == "traceback" and "OSError: full" in found.value.detail


def test_a_call_leaves_no_handler_and_no_directory_behind(tmp_path):
    before, here = signal.getsignal(signal.SIGTERM), os.getcwd()

    def program() -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        os.chdir(tmp_path)
        print("out")
        print("err", file=sys.stderr)
        raise SystemExit("bye")

    assert called(program) == Ending(1, "out\n", "err\nbye\n")
    assert (signal.getsignal(signal.SIGTERM), os.getcwd()) == (before, here)


def test_there_are_many_trials_of_many_kinds_with_a_name_each(tmp_path):
    trials = all_trials(Base(tmp_path), seed=0)
    labels = [trial.label for trial in trials]
    assert len(labels) == len(set(labels)) >= 1500
    assert len({trial.kind for trial in trials}) >= 20
    assert sum(trial.kind == "kills" for trial in trials) == 30
    assert labels == [trial.label for trial in all_trials(Base(tmp_path), seed=0)]
    assert labels != [trial.label for trial in all_trials(Base(tmp_path), seed=1)]
