"""What a run depends on changes between two calls: named, and never a mixture."""

import functools
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.hostile.base import Base, rows
from benchmarks.hostile.judge import Fault, either, refused, tail, whole, worked
from benchmarks.hostile.processes import arguments, lines, model_of
from benchmarks.hostile.trial import Room, Trial

KIND = "resume"
STEPS = 300
DATA = {"sft": "texts", "dpo": "pairs", "kto": "labelled", "grpo": "prompts"}
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}{{ strftime_now('%d %b %Y') }}: {{ m.content }}<eos>"
    "{% endfor %}"
)


def reordered(path: Path) -> None:
    """The rows in another order."""
    given = path.read_text().splitlines(keepends=True)
    path.write_text("".join(reversed(given)))


def edited(path: Path) -> None:
    """Another word in one row, of the same length."""
    path.write_text(path.read_text().replace("film", "flim", 1))


def longer(path: Path) -> None:
    """One row more."""
    given = path.read_text()
    path.write_text(given + given.splitlines(keepends=True)[0])


def shorter(path: Path) -> None:
    """One row less."""
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def removed(path: Path) -> None:
    """No file any more."""
    path.unlink()


CHANGES: dict[str, Callable[[Path], None]] = {
    "reordered": reordered,
    "edited": edited,
    "longer": longer,
    "shorter": shorter,
    "removed": removed,
}


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Rows, models, reward models, paths, templates, flags."""
    for name in ("sft", "dpo", "grpo"):
        for change in CHANGES:
            if (name, change) != ("grpo", "longer"):
                yield _trial(f"{name}_rows_{change}", rows_changed, name=name, change=change)
    for name in ("dpo", "grpo"):
        yield _trial(f"{name}_policy_replaced", policy_replaced, name=name)
    yield _trial("grpo_reward_replaced", reward_replaced)
    yield _trial("reward_function_mended", function_mended)
    for how in ("copied", "linked", "relative", "dotted"):
        yield _trial(f"other_path_{how}", other_path, how=how)
    yield _trial("fewer_steps", flag_changed, flag="--fit.steps", value="1")
    yield _trial("other_seed", flag_changed, flag="--seed", value="7")
    yield _trial("lower_learning_rate", lower_learning_rate)
    yield _trial("another_day", another_day)
    yield _trial("renamed_directory", renamed_directory)


def _trial(name: str, act: Callable[..., str], /, **settings) -> Trial:
    return Trial(kind=KIND, name=name, act=functools.partial(act, **settings), alone=True)


def steps_of(name: str) -> int:
    """Steps of a run that is interrupted within."""
    return 40 if name == "grpo" else STEPS


def interrupted(room: Room, given: list[str], after: int = 3) -> None:
    """A run that was stopped by SIGTERM in its loop.

    Raises:
      Fault: it did not stop there.
    """
    process = room.start(*given)
    process.until(lambda: lines(room) >= after)
    process.send(signal.SIGTERM)
    ending = process.ending()
    whole(ending)
    assert ending.status, "it was over before it was stopped"


def own_data(room: Room, name: str) -> str:
    """A copy of the rows in the room."""
    return room.write("data.jsonl", rows(DATA[name]))


def rows_changed(room: Room, *, name: str, change: str) -> str:
    """Other rows at the same path."""
    data = own_data(room, name)
    given = arguments(room, name, steps_of(name), data=data)
    interrupted(room, given, 1 if name == "grpo" else 3)
    CHANGES[change](Path(data))
    return refused(room.start(*given).ending(), "data.jsonl", "data.path")


def policy_replaced(room: Room, *, name: str) -> str:
    """Another model at the path of the policy."""
    shutil.copytree(room.base.policy, room.path / "policy")
    given = arguments(room, name, steps_of(name), policy="policy")
    interrupted(room, given, 1 if name == "grpo" else 3)
    replace_model(room.path / "policy" / "model")
    return refused(room.start(*given).ending(), "policy")


def replace_model(folder: Path) -> None:
    """The same model with other numbers."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    file = folder / "model.safetensors"
    with safe_open(file, framework="numpy") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    changed = {name: x * 1.01 if x.dtype.kind == "f" else x for name, x in tensors.items()}
    arrays = {name: np.asarray(x, tensors[name].dtype) for name, x in changed.items()}
    save_file(arrays, file, metadata=metadata)


def reward_replaced(room: Room) -> str:
    """Another reward model at the same path."""
    shutil.copytree(room.base.reward, room.path / "reward")
    given = arguments(room, "grpo", 40, reward="reward")
    interrupted(room, given, 1)
    replace_model(room.path / "reward" / "model")
    return refused(room.start(*given).ending(), "reward")


def function_mended(room: Room) -> str:
    """A reward function may change, and that is said."""
    body = "return [float(i) for i in range(len(responses))]"
    text = f"def reward(prompts, responses, **c):\n    {body}\n"
    source = room.write("rewards.py", text)
    given = arguments(room, "grpo", 40, reward=source)
    interrupted(room, given, 1)
    room.write("rewards.py", text.replace("float(i)", "float(-i)"))
    ending = room.start(*given).ending()
    worked(ending)
    if "file has changed" not in ending.out + ending.err:
        raise Fault("silent", "nothing is said of the change")
    return "right"


def other_path(room: Room, *, how: str) -> str:
    """The same file by another path is the same file: the run goes on."""
    data = own_data(room, "sft")
    given = arguments(room, "sft", STEPS, data=data)
    interrupted(room, given)
    place = given.index("--data.path") + 1
    if how == "copied":
        shutil.copy(data, room.path / "moved.jsonl")
    if how == "linked":
        (room.path / "moved.jsonl").symlink_to(data)
    given[place] = {"relative": "data.jsonl", "dotted": f"{room.path}/./x/../data.jsonl"}.get(
        how, str(room.path / "moved.jsonl")
    )
    if how == "dotted":
        (room.path / "x").mkdir()
    ending = room.start(*given).ending()
    return worked(ending, lambda: model_of(room))


def flag_changed(room: Room, *, flag: str, value: str) -> str:
    """Another setting in the same directory."""
    given = arguments(room, "sft", STEPS)
    interrupted(room, given)
    if flag in given:
        given[given.index(flag) + 1] = value
    else:
        given += [flag, value]
    return refused(room.start(*given).ending(), flag[2:], "steps")


def lower_learning_rate(room: Room) -> str:
    """The advice that a diverged run gives works as it is given."""
    given = arguments(room, "sft", 6)
    place = given.index("--fit.optimizer.learning_rate") + 1
    given[place] = "1e30"
    first = room.start(*given).ending()
    if first.status == 0:
        return worked(first)
    refused(first, "learning_rate")
    given[place] = "1e-3"
    again = room.start(*given).ending()
    if again.status and "--output" not in first.err:
        raise Fault("lost", f"advised: {tail(first.err)}; then refused: {tail(again.err)}")
    return "line"


def another_day(room: Room) -> str:
    """A template that writes the date, on another day: named, or the date of the run is kept."""
    shutil.copytree(room.base.published("llama"), room.path / "policy")
    room.write("policy/chat_template.jinja", TEMPLATE)
    answer = {"role": "assistant", "content": "film"}
    chats = [{"messages": [{"role": "user", "content": f"a {i}"}, answer]} for i in range(8)]
    data = room.write("chats.jsonl", chats)
    given = ["sft", "--output", "run", "--init", "policy", "--data.path", data]
    given += arguments(room, "sft", STEPS)[arguments(room, "sft", STEPS).index("--fit.steps") :]
    interrupted(room, given)
    shutil.copytree(room.path / "run", room.path / "same_day")

    def tomorrow() -> None:
        import datetime as module

        real = module.datetime

        class Later(real):
            @classmethod
            def now(cls, tz=None):
                return real.now(tz) + module.timedelta(days=40)

        module.datetime = Later

    on_that_day = [x if x != "run" else "same_day" for x in given]
    ending = room.start(*given, before=tomorrow).ending()

    def same() -> None:
        worked(room.start(*on_that_day).ending())
        if model_of(room) != model_of(room, "same_day"):
            raise Fault("lost", "went on with the date of another day")

    return either(ending, same, "date", "day", "template")


def renamed_directory(room: Room) -> str:
    """The run directory was moved: it is the same run."""
    given = arguments(room, "sft", STEPS)
    interrupted(room, given)
    kept = lines(room)
    (room.path / "run").rename(room.path / "moved")
    given[given.index("--output") + 1] = "moved"
    ending = room.start(*given).ending()
    worked(ending)
    rows_of = [json.loads(line) for line in (room.path / "moved" / "metrics.jsonl").open()]
    if [row["step"] for row in rows_of if row["stage"] == "sft"][: kept // 2] == []:
        raise Fault("lost", "the run began anew")
    return "right"
