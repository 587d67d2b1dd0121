"""Numbers at their edges: equal scores, empty minibatches, huge margins, devices, tiny data."""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from benchmarks.hostile.base import Base, command, loop, rounds, rows
from benchmarks.hostile.judge import Ending, Fault, either, refused, worked
from benchmarks.hostile.trial import Room, Trial

KIND = "numerics"
# Weights and two columns of 0/1 rewards whose sums are equal in real numbers.
EQUAL = {
    "three": ((0.1, 0.6, 0.7), (1, 1, 0), (0, 0, 1)),
    "tenths": ((0.1, 0.2, 0.3), (1, 1, 0), (0, 0, 1)),
    "four": ((0.1, 0.3, 0.2, 0.2), (1, 1, 0, 0), (0, 0, 1, 1)),
    "large": ((1e6 + 0.1, 0.2, 1e6 + 0.3), (1, 1, 0), (0, 0, 1)),
    "signs": ((0.7, -0.1, 0.6), (1, 1, 0), (0, 0, 1)),
}
MARGINS = {"beyond_float32": 1e39, "near": 3e38, "minus": -1e39, "large": 1e30}


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """All of them."""
    for name, (weights, one, other) in EQUAL.items():
        for drop in (False, True):
            settings = {"weights": weights, "one": one, "other": other, "drop": drop}
            yield _trial(f"equal_scores_{name}{'_dropped' if drop else ''}", equal, **settings)
    yield _trial("really_different_scores", different)
    for keep in (1, 2, 3):
        yield _trial(f"empty_minibatches_{keep}_of_4", empty_minibatches, keep=keep)
    for name, margin in MARGINS.items():
        yield _trial(f"margin_{name}", margins, margin=margin)
    for name in ("sft", "dpo"):
        for devices in (2, 4):
            yield _alone(f"{name}_on_{devices}_devices", on_devices, name=name, devices=devices)
    for micro in (2, 4):
        yield _alone(f"sft_in_{micro}_micro_batches", in_parts, micro=micro)
    for name, count in (("one_row", 1), ("two_rows", 2), ("three_rows", 3)):
        for what in ("sft", "dpo", "kto", "grpo", "reward"):
            yield _trial(f"{what}_{name}", few_rows, name=what, count=count)
    for steps in (0, 1):
        yield _trial(f"sft_{steps}_steps", few_steps, steps=steps)
    yield _trial("source_that_never_judges", never_judges)


def _trial(name: str, act: Callable[..., str], /, **settings: Any) -> Trial:
    return Trial(kind=KIND, name=name, act=functools.partial(act, **settings))


def _alone(name: str, act: Callable[..., str], /, **settings: Any) -> Trial:
    return Trial(kind=KIND, name=name, act=functools.partial(act, **settings), alone=True)


def metrics(room: Room, run_dir: str = "run") -> list[dict[str, Any]]:
    """The lines of metrics of a run."""
    return [json.loads(line) for line in (room.path / run_dir / "metrics.jsonl").open()]


def judged(room: Room, bodies: dict[str, str], weights: list[float], *more: str) -> Ending:
    """`grpo` with several functions."""
    text = "".join(f"def {name}(prompts, responses, **c):\n    n = len(responses)\n    {body}\n"
                   for name, body in bodies.items())  # fmt: skip
    file = room.write("rewards.py", text)
    given = command("grpo", room.base)
    place = given.index("--reward")
    pairs = [
        x for name, w in zip(bodies, weights, strict=True) for x in (f"{file}:{name}", repr(w))
    ]
    given[place : place + 2] = ["--rewards", *pairs]
    for flag in more[::2]:  # which may be given once
        if flag in given:
            del given[given.index(flag) : given.index(flag) + 2]
    return room.call(*given, *more)


def equal(room: Room, *, weights, one, other, drop: bool) -> str:
    """Responses of a group that score the same in turn: no advantage, and said to be equal."""
    bodies = {f"r{i}": f"return [{float(a)}, {float(b)}] * (n // 2)"
              for i, (a, b) in enumerate(zip(one, other, strict=True))}  # fmt: skip
    more = ["--grpo.drop_equal_groups", "True"] if drop else []
    ending = judged(room, bodies, list(weights), *more, "--grpo.group_size", "4")

    def check() -> None:
        first = metrics(room)[0]
        share = first.get("scores/equal_groups", 1.0)
        if share != 1 or abs(first.get("grad_norm", 0.0)) > 1e-6:
            raise Fault("silent", f"equal scores: equal_groups {share}, gradient "
                                  f"{first.get('grad_norm')}")  # fmt: skip

    return either(ending, check, "reward", "scores")


def different(room: Room) -> str:
    """A difference of a millionth is one."""
    bodies = {"r0": "return [1.0, 1.000001] * (n // 2)"}
    ending = judged(room, bodies, [1.0])

    def check() -> None:
        first = metrics(room)[0]
        if first.get("scores/equal_groups", 0.0) != 0 or first.get("grad_norm", 1.0) == 0:
            raise Fault("silent", "different scores are taken as equal")

    return worked(ending, check)


def empty_minibatches(room: Room, *, keep: int) -> str:
    """Minibatches in which nothing was judged weigh nothing in the means."""
    body = f"return [1.0 if i < {keep} else None for i in range(len(responses))]"
    text = f"def reward(prompts, responses, **c):\n    {body}\n"
    file = room.write("rewards.py", text)
    found = {}
    for count in ("1", "4"):
        given = command("ppo", room.base, run_dir=f"run{count}", reward=file)
        cut = given.index("--ppo.iterations")
        still = rounds("ppo", 1, minibatches=count, learning_rate="0.0")
        worked(room.call(*given[:cut], *still))
        found[count] = metrics(room, f"run{count}")[0]
    for name in ("ratio/mean", "ppo/ratio", "entropy", "ppo/clip_fraction", "approx_kl"):
        whole, parts = (found[count].get(name) for count in ("1", "4"))
        if whole is not None and not np.isclose(whole, parts, rtol=1e-3, atol=1e-5):
            raise Fault("silent", f"{name} is {parts} in minibatches, {whole} in one")
    return "right"


def margins(room: Room, *, margin: float) -> str:
    """A margin that no float32 loss can hold is named where it is read."""
    given = [*rows("pairs")[:7], rows("pairs")[7] | {"margin": margin}]
    ending = room.call(*command("reward", room.base, data=room.write("data.jsonl", given)))
    if abs(margin) < 1e38:
        return either(ending, lambda: None, "margin")
    return refused(ending, "margin")


def weights(room: Room, run_dir: str) -> dict[str, np.ndarray]:
    """The parameters of a run."""
    return load_file(room.path / run_dir / "model" / "model.safetensors")


def with_devices(count: int) -> Callable[[], None]:
    """So many devices in a new process."""

    def before() -> None:
        import jax

        jax.config.update("jax_num_cpu_devices", count)

    return before


def on_devices(room: Room, *, name: str, devices: int) -> str:
    """The same update on any number of devices."""
    uneven = [{"text": " ".join(["a", "fine", "film"] * (i % 5 + 1))} for i in range(21)]
    data = room.write("data.jsonl", uneven) if name == "sft" else room.base.pairs
    for count in (1, devices):
        given = command(name, room.base, run_dir=f"on{count}", data=data)
        given[given.index(f"--{'' if name == 'sft' else 'dpo.'}fit.batch_size") + 1] = "8"
        worked(room.start(*given, before=with_devices(count)).ending())
    return close(room, "on1", f"on{devices}")


def in_parts(room: Room, *, micro: int) -> str:
    """The same update in any number of parts."""
    uneven = [{"text": " ".join(["a", "fine", "film"] * (i % 5 + 1))} for i in range(21)]
    data = room.write("data.jsonl", uneven)
    for count in (1, micro):
        given = command("sft", room.base, run_dir=f"in{count}", data=data)
        given[given.index("--fit.batch_size") + 1] = "8"
        given += ["--fit.micro_batches", str(count)]
        worked(room.start(*given).ending())
    return close(room, "in1", f"in{micro}")


def close(room: Room, one: str, other: str) -> str:
    """Two runs have one model, to rounding.

    Raises:
      Fault: they have two.
    """
    first, second = weights(room, one), weights(room, other)
    for name, array in first.items():
        if array.shape != second[name].shape or not np.allclose(array, second[name], atol=2e-5):
            raise Fault("silent", f"{name} of {one} and of {other} differ")
    return "right"


def few_rows(room: Room, *, name: str, count: int) -> str:
    """Fewer rows than a batch holds: trained on, or refused in a line."""
    kind = {"sft": "texts", "kto": "labelled", "grpo": "prompts"}.get(name, "pairs")
    data = room.write("data.jsonl", rows(kind)[:count])
    return either(
        room.call(*command(name, room.base, data=data)), lambda: finite(room), "data", "row"
    )


def finite(room: Room) -> None:
    """All parameters are numbers.

    Raises:
      Fault: they are not.
    """
    for name, array in weights(room, "run").items():
        if not np.isfinite(array).all():
            raise Fault("silent", f"{name} is not finite")


def few_steps(room: Room, *, steps: int) -> str:
    """No step, or one."""
    given = command("sft", room.base)
    cut = given.index("--fit.steps")
    return either(room.call(*given[:cut], *loop(steps=steps)), lambda: finite(room), "steps")


def never_judges(room: Room) -> str:
    """A source that returns None for some responses must not let these win by it."""
    bodies = {"always": "return [1.0] * n",
              "penalty": "return [None if i % 2 else -5.0 for i in range(n)]"}  # fmt: skip
    ending = judged(room, bodies, [1.0, 1.0])
    told = f"{ending.out} {ending.err}"

    def check() -> None:
        first = metrics(room)[0]
        if (
            first.get("grad_norm", 0.0) > 1e-6
            and "None" not in told
            and not any(
                name.startswith("scores/unjudged") and value for name, value in first.items()
            )
        ):
            raise Fault("silent", "responses that were not judged win, and nothing says so")

    return either(ending, check, "penalty", "reward")
