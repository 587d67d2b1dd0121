"""The page of commands: every flag with its values, its default and what it does, from the code."""

import dataclasses
import typing
from typing import Any

from jaxalign import cli
from jaxalign import config as configurations
from jaxalign.config.common import short_flags
from jaxalign.config.field_texts import field_texts, sentence_of
from jaxalign.config.field_types import hints_of, options_of
from jaxalign.config.options import RunOptions

SHARED = ("Data", "Place", "Lora", "Model", "Tokenizer", "Fit", "Optimizer")  # blocks shown once
OF_PPO = {"ControlConfig": "ppo, control", "ImagesConfig": "ppo, images", "TextPPOConfig": "ppo"}


def commands_page() -> str:
    """All commands with their own flags, then the blocks that they share."""
    parts = [
        "# Commands and their flags\n",
        "`jaxalign COMMAND --help` shows what is used most, with the defaults that would apply; "
        "`--help all` shows what is below, and `--help SECTION` a part of it. A flag may be given "
        "by its last word where no other flag of the command ends so: `--loss` for `--dpo.loss`. "
        "Below are the flags of each command, first the short ones, which mean the same in all "
        "commands (`--warmup` counts steps, or below 1 is a share of them), and "
        "[the blocks](#shared-blocks) that several commands have.\n",
        *options_part(),
    ]
    for cls, (command, directory) in cli.CONFIGS.items():
        config = getattr(configurations, cls)()
        parts += [f"## {OF_PPO.get(cls, command)}\n", f"{sentence_of(type(config))}\n"]
        if directory:
            parts += [f"Results go to `--output`, by default `runs/{directory}`.\n"]
        refused = cli.REFUSED.get(command, ())
        parts += [short_line(type(config), refused), *table(rows(config, refused=refused))]
    parts += [
        "## report\n",
        "`jaxalign report DIR` writes `report.html` and `plots/` of a run again.\n",
    ]
    parts += ["## Shared blocks\n"]
    for name in SHARED:
        config = getattr(configurations, f"{name}Config")()
        parts += [f"### {name}Config\n", f"{sentence_of(type(config))}\n"]
        parts += table(rows(config, refused=()))
    return "\n".join(parts)


def options_part() -> list[str]:
    """The options of the command line, which are no fields."""
    lines = [(f"`--{name}`", "", text) for name, text in field_texts(RunOptions).items()]
    return ["## Options of all commands\n", *table(lines)]


def short_line(cls: type, refused: tuple[str, ...]) -> str:
    """The short flags of a command and the fields that they stand for; empty: it has none.

    >>> short_line(configurations.EvaluateConfig, ())
    'Short flags: `--max_length` (`--data.max_length`), `--seed`.\\n'
    """
    parts = list[str]()
    for name, fields in short_flags(cls).items():
        meant = [field for field in fields if field not in refused]
        if len(meant) == 1 or hasattr(cls, "unread_sections"):
            names = " or ".join(f"`--{field}`" for field in meant if field != name)
            parts.append(f"`--{name}`" + (f" ({names})" if names else ""))
    return f"Short flags: {', '.join(parts)}.\n" if parts else ""


def table(lines: list[tuple[str, str, str]]) -> list[str]:
    """A Markdown table of flags."""
    cells = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
    return ["| flag | default | meaning |", "|:--|:--|:--|", *(f"| {row} |" for row in cells), ""]


def rows(config: Any, *, refused: tuple[str, ...], prefix: str = "") -> list[tuple[str, str, str]]:
    """Flag, default and meaning of every field; one line for a block that is shown once."""
    lines, texts = [], field_texts(type(config))
    for name, hint in hints_of(type(config)).items():
        value, flag = getattr(config, name), f"{prefix}{name}"
        if flag in refused:
            continue
        if not dataclasses.is_dataclass(value):
            lines.append((f"`--{flag}`", default_of(value), meaning(texts[name], hint)))
        elif (block := type(value).__name__).removesuffix("Config") in SHARED:
            without = [n.removeprefix(f"{flag}.") for n in refused if n.startswith(f"{flag}.")]
            but = f" Without {', '.join(f'`{n}`' for n in without)}." if without else ""
            changed = changes(value)
            own = f" Here {changed}." if changed else ""
            lines.append((f"`--{flag}.…`", f"[{block}](#{block.lower()})", texts[name] + own + but))
        else:
            lines += rows(value, refused=refused, prefix=f"{flag}.")
    return lines


def changes(block: Any) -> str:
    """Defaults of a block that are not those of its class, in words."""
    own = {
        field.name: getattr(block, field.name)
        for field in dataclasses.fields(block)
        if getattr(block, field.name) != getattr(type(block)(), field.name)
    }
    return ", ".join(
        changes(value) if dataclasses.is_dataclass(value) else f"`{name}` {default_of(value)}"
        for name, value in own.items()
    )


def default_of(value: Any) -> str:
    """A default as it is typed on the command line.

    >>> default_of((0.5, 1)), default_of(""), default_of(None)
    ('`0.5 1`', '', '`None`')
    """
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    return "" if value in ("", {}) else f"`{value}`"


def meaning(text: str, hint: Any) -> str:
    """The help of a field, with the names that it may be given.

    >>> meaning("Its norm.", typing.Literal["rms", "layer"])
    'Its norm. One of `rms`, `layer`.'
    """
    named = [option for option in options_of(hint) if typing.get_origin(option) is typing.Literal]
    names = ", ".join(f"`{name}`" for option in named for name in typing.get_args(option))
    return f"{text} One of {names}." if names else text
