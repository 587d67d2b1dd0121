"""Flags of every command with values that none may have, and command lines that are none."""

import dataclasses
import functools
import importlib
import random
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from benchmarks.hostile.base import Base, command
from benchmarks.hostile.judge import Fault, refused, tail, unclear, worked
from benchmarks.hostile.trial import Room, Trial

KIND = "flags"
FLOATS = ("nan", "inf", "-inf", "1e999", "abc", "", "1,5", "0x10", "1e", "--")
HUGE = "99999999999999999999999999"
INTS = ("1.5", "abc", "", "nan", "1e3", "-5", HUGE, "0x10", "1 2", "½")
# What memory is taken for; elsewhere a huge number asks for nothing that could not be had.
SIZES = ("width", "layers", "heads", "vocab_size", "batch_size", "group_size", "prompts", "rank",
         "max_new_tokens", "devices", "bag_buckets", "mlp_width", "micro_batches")  # fmt: skip
CHOICES = ("no_such", "", "None ", "\x1b[31m", "x" * 3000)
SWITCHES = ("maybe", "", "2", "yes!", "truee")
COMMANDS = ("sft", "dpo", "kto", "reward", "ppo", "grpo", "online")
OTHERS = ("evaluate", "generate", "explain", "export", "distill", "ratings")
SAMPLED = 12  # flags of a command
# Where the largest or smallest numbers mean something.
ANY_NUMBER = ("seed", "max_grad_norm", "dual_clip", "kl_horizon", "importance_cap")
LINES: dict[str, list[str]] = {
    "unknown_command": ["rhlf"],
    "unknown_like_dpo": ["dop"],
    "upper_case": ["SFT"],
    "empty_command": [""],
    "flag_first": ["--seed", "1"],
    "escape": ["\x1b[31m"],
    "long": ["x" * 5000],
    "unknown_flag": ["dpo", "--polcy", "x"],
    "unknown_nested": ["dpo", "--dpo.fit.step", "3"],
    "short_flag": ["dpo", "-x"],
    "surplus_word": ["generate", "word"],
    "no_value": ["sft", "--output"],
    "no_value_config": ["sft", "--config"],
    "no_value_seed": ["sft", "--seed"],
    "no_value_loss": ["dpo", "--loss"],
    "twice": ["sft", "--seed", "1", "--seed", "2", "--data.path", "no.jsonl"],
    "twice_run_dir": ["sft", "--output", "a", "--output", "b", "--data.path", "no.jsonl"],
    "loss_of_another": ["dpo", "--loss", "kto"],
    "loss_nowhere": ["sft", "--loss", "dpo"],
    "run_dir_nowhere": ["generate", "--output", "x"],
    "report_nothing": ["report"],
    "report_two": ["report", "a", "b"],
    "report_missing": ["report", "/no/such"],
    "report_file": ["report", "/etc/passwd"],
    "report_flag": ["report", "--seed", "3"],
    "report_zero": ["report", "a\0b"],
    "equals_nothing": ["sft", "--seed="],
    "pairs_odd": ["grpo", "--rewards", "a", "1", "b"],
    "pairs_text": ["grpo", "--rewards", "a", "heavy"],
    "pairs_nan": ["grpo", "--rewards", "a", "nan"],
    "pairs_zero": ["grpo", "--rewards", "a.py", "0"],
    "reward_and_rewards": ["grpo", "--reward", "a", "--rewards", "b", "1"],
    "fields_odd": ["sft", "--data.fields", "prompt"],
    "fields_unknown": ["sft", "--data.path", "x.jsonl", "--data.fields", "promt", "q"],
    "model_of_nobody": ["generate", "--model", "no/such-model-anywhere"],
    "model_nothing": ["generate"],
    "model_zero": ["generate", "--model", "a\0b"],
    "model_long": ["generate", "--model", "x" * 5000],
    "model_address": ["generate", "--model", "nope://a/b"],
    "model_file": ["generate", "--model", "/etc/passwd"],
    "model_device": ["generate", "--model", "/dev/zero"],
    "model_gguf_missing": ["generate", "--model", "no.gguf"],
    "heads_odd": ["sft", "--model.width", "10", "--model.heads", "3"],
    "layout_devices": ["sft", "--place.devices", "99"],
    "devices_zero": ["sft", "--place.devices", "0"],
    "devices_minus": ["sft", "--place.devices", "-1"],
}


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """A sample of flags for every command, hostile values for each; and the lines above."""
    chance = random.Random(f"{KIND} {seed}")
    for name in (*COMMANDS, *OTHERS):
        flags = dict(leaves(default_of(name)))
        for flag in sorted(chance.sample(sorted(flags), min(SAMPLED, len(flags)))):
            values = hostile(flag, flags[flag])
            for value in sorted(chance.sample(values, min(2, len(values)))):
                act = functools.partial(refused_flag, name=name, flag=flag, value=value)
                shown = value[:12].strip("\x1b") or "nothing"
                yield Trial(kind=KIND, name=f"{name}_{flag}_{shown}", act=act)
    for name, arguments in LINES.items():
        act = functools.partial(bad_line, arguments=arguments)
        yield Trial(kind=KIND, name=f"line_{name}", act=act)
    for name in (*COMMANDS, *OTHERS, "report", "rlhf"):
        yield Trial(kind=KIND, name=f"help_{name}", act=functools.partial(shows_help, name=name))
    for name in (*COMMANDS[:6], "evaluate", "generate"):
        act = functools.partial(advertised, name=name)
        yield Trial(kind=KIND, name=f"advertised_{name}", act=act)
    yield Trial(kind=KIND, name="warm_up_longer_than_steps", act=warm_up)
    yield Trial(kind=KIND, name="one_name_for_max_new_tokens", act=one_name)


def default_of(name: str) -> Any:
    """The default configuration of a command."""
    from jaxalign.cli import DEFAULTS

    module, cls = DEFAULTS[name].split(".")
    return getattr(importlib.import_module(f"jaxalign.config.{module}"), cls)()


def leaves(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and types of all fields, those of nested settings too."""
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", hints[field.name]


def hostile(flag: str, hint: Any) -> list[str]:
    """Values that a flag of that type may not have; none where every text is a value."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    options = typing.get_args(hint) if is_union else (hint,)
    kind = next((option for option in options if option is not type(None)), hint)
    if typing.get_origin(kind) is typing.Literal:
        return list(CHOICES)
    if kind is bool:
        return list(SWITCHES)
    if kind in (int, float):
        values = INTS if kind is int else FLOATS
        anything = flag.rpartition(".")[2] in ANY_NUMBER
        left_out = {"-5", HUGE, "inf", "1e999"} if anything else set()
        left_out |= set() if flag.rpartition(".")[2] in SIZES else {HUGE}
        return [value for value in values if value not in left_out]
    return []


def refused_flag(room: Room, *, name: str, flag: str, value: str) -> str:
    """The value is refused before anything is read; if not, then before anything is learned."""
    short = room.call(name, f"--{flag}={value}")
    words = (flag, flag.rpartition(".")[2], flag.replace("_", "-"))
    if short.error or not unclear(short, words):
        return refused(short, *words)
    if name in OTHERS:
        if name == "ratings":
            return refused(room.call(name, "--output", "out", f"--{flag}={value}"), *words)
        whole = other(room, name)
    else:
        whole = command(name, room.base)
    start = whole.index(f"--{flag}") if f"--{flag}" in whole else len(whole)
    whole = [*whole[:start], f"--{flag}={value}", *whole[start + 2 :]]
    return refused(room.call(*whole), *words)


def other(room: Room, name: str) -> list[str]:
    """A quick command line of a command that does not train."""
    policy, pairs = room.base.policy, room.base.pairs
    return {
        "evaluate": ["evaluate", "--model", policy, "--data.path", room.base.short],
        "generate": ["generate", "--model", policy, "--prompt", "a"],
        "explain": ["explain", "--policy", policy, "--data.path", pairs, "--rows", "2"],
        "export": ["export", "--model", policy, "--output", "out"],
        "distill": ["distill", "--policy", policy, "--teacher", policy, "--data.path",
                    room.base.texts, "--distill.fit.steps", "1", "--distill.fit.batch_size", "4",
                    "--distill.fit.optimizer.warmup_steps", "0"],
    }[name]  # fmt: skip


def bad_line(room: Room, *, arguments: list[str]) -> str:
    """A command line that is none."""
    return refused(room.call(*arguments))


def shows_help(room: Room, *, name: str) -> str:
    """`--help` of a command says something and succeeds."""
    return worked(room.call(name, "--help"))


def advertised(room: Room, *, name: str) -> str:
    """No flag that `--help` lists is refused when it is given its default."""
    listed = re.findall(r"(?m)^[\s│|]*(--[a-z][\w.-]*)", room.call(name, "--help").out)
    assert len(listed) > 3, listed
    for flag in listed:
        if "nrecogni" in (err := room.call(name, flag).err):
            raise Fault("refused", f"{flag} is advertised, and refused: {tail(err)}")
    return "right"


def warm_up(room: Room) -> str:
    """A schedule shorter than its warm-up is refused before anything is written."""
    arguments = command("dpo", room.base)
    arguments[arguments.index("--dpo.fit.optimizer.warmup_steps") + 1] = "10"
    done = refused(room.call(*arguments), "warmup_steps")
    assert not (room.path / "run" / "checkpoints").exists(), "something was written"
    return done


def one_name(room: Room) -> str:
    """Where `grpo` and `ppo` take --max_new_tokens, `generate` does too."""
    policy = room.base.policy
    return worked(room.call("generate", "--model", policy, "--max_new_tokens", "3"))
