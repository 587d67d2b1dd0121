"""Run directories with odd names: refused, or what is saved is found again."""

import functools
from collections.abc import Iterator

from benchmarks.hostile.base import Base, command
from benchmarks.hostile.judge import Fault, either
from benchmarks.hostile.trial import Room, Trial

KIND = "names"
NAMES = {
    "brackets": "runs/seed=[1,2]",
    "one_bracket": "runs/a[",
    "closed_range": "runs/[a-z]",
    "negated": "runs/[!a]",
    "backslash": "runs/a\\b",
    "backslash_end": "runs/a\\",
    "star": "runs/a*",
    "two_stars": "runs/**",
    "question": "runs/a?b",
    "braces": "runs/{a,b}",
    "dollar": "runs/$HOME",
    "tilde": "~no_such_user/run",
    "percent": "runs/a%20b%s",
    "colon": "runs/a:b",
    "quotes": "runs/'a'\"b\"",
    "space": "runs/ a  b ",
    "hash": "runs/a#b",
    "ampersand": "runs/a&b;c|d",
    "unicode": "runs/ä\u0308漢\U0001f600",
    "right_to_left": "runs/\u202ea",
    "line_end": "runs/a\nb",
    "tab": "runs/a\tb",
    "escape": "runs/\x1b[31m",
    "dots": "runs/...",
    "parent": "runs/../other",
    "double_slash": "runs//a///b",
    "dot": ".",
    "long": "runs/" + "x" * 240,
    "deep": "/".join(["d"] * 120),
    "surrogate": "runs/a\udc80",
    "number": "runs/6",
    "orbax_like": "runs/a.orbax-checkpoint-tmp-1",
    "scheme": "runs/gs:/a",
    "comma_equals": "lr=1e-3,seed=0",
    "parentheses": "runs/(a)+$",
    "markup": "runs/<b>&amp;",
    "dash": "-x",
}


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Every name."""
    for name, place in NAMES.items():
        yield Trial(kind=KIND, name=name, act=functools.partial(found_again, place=place))


def found_again(room: Room, *, place: str) -> str:
    """The same command again has nothing left to do, and with a damaged end goes on."""
    arguments = command("sft", room.base, run_dir=place)
    if place.startswith("-"):
        arguments[1:3] = [f"--output={place}"]
    ending = room.call(*arguments)

    def resumes() -> None:
        folder = room.path / place
        before = (folder / "metrics.jsonl").read_bytes()
        model = (folder / "model" / "model.safetensors").read_bytes()
        again = room.call(*arguments)
        if again.status or again.error:
            raise Fault("lost", f"cannot be gone on with: {(again.err or again.error)[-300:]}")
        if (folder / "metrics.jsonl").read_bytes() != before:
            raise Fault("lost", "the same command trained again: nothing was found")
        if (folder / "model" / "model.safetensors").read_bytes() != model:
            raise Fault("lost", "the same command gave another model")

    return either(ending, resumes, "--output", "directory", place[:20])
