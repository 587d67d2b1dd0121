"""The first page of a command's help: an example, the short flags, what is used most.

Effective defaults stand behind the text of a flag: for a published model, and where they differ for
one with LoRA and for a small one.
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxalign.config.common import SHORT_TEXTS, read_fields, short_flags
from jaxalign.config.data import DataConfig
from jaxalign.config.effective import in_words, method_of, values_of
from jaxalign.config.field_texts import example_of, field_texts, first_sentence, sentence_of
from jaxalign.config.field_types import hints_of, options_of
from jaxalign.config.flags import flags_of
from jaxalign.config.grpo import GRPOSettings
from jaxalign.config.loop import FitConfig
from jaxalign.config.lora import LoraConfig
from jaxalign.config.names import argument_text
from jaxalign.config.online import OnlineSettings
from jaxalign.config.options import Options
from jaxalign.config.ppo import PPOSettings
from jaxalign.losses.declarations import Loss

# block of settings: what is used most of it, beside its loss and the short flags
USED_MOST: Mapping[type, tuple[str, ...]] = {
    DataConfig: ("path", "evaluation_path", "evaluation_share", "on_long_row"),
    LoraConfig: ("rank",),
    PPOSettings: ("kl_coef",),
    GRPOSettings: ("group_size", "kl_coef"),
    OnlineSettings: ("pair_loss",),
}
# fields and sections of a command that come first, in this order
FIRST = ("policy", "init", "model", "run", "teacher", "reward", "rewards", "data", "lora")
Line = tuple[str, str]  # a flag with its value, and what is said of it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """What a page of help is about.

    command: its name.
    settings: its configuration, with the flags that are given beside --help.
    fields: whole names of the flags that it does not refuse.
    options: the kind that it takes.
    directory: where it writes by default, if it writes a run directory.
    """

    command: str
    settings: Any
    fields: tuple[str, ...]
    options: type[Options]
    directory: str | None

    def short(self) -> dict[str, str]:
        """The field of every short flag."""
        named = short_flags(type(self.settings))
        read = {
            name: [field for field in read_fields(fields, self.settings) if field in self.fields]
            for name, fields in named.items()
        }
        return {name: fields[0] for name, fields in read.items() if len(fields) == 1}


def print_first_page(page: Page) -> None:
    """Print the page, as wide as the terminal; 80 columns where there is none."""
    console = Console(highlight=False, markup=False)
    with console.capture() as captured:
        _write_page(console, page)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), flush=True)


def _write_page(console: Console, page: Page) -> None:
    cls, short = type(page.settings), page.short()
    console.print(f"usage: jaxalign {page.command} [--flag value ...]")
    console.print(f"example: {example_of(cls)}")
    console.print(f"\n{sentence_of(cls)}")
    if "data" in hints_of(cls):
        console.print(field_texts(cls)["data"])
    _print_table(console, "Short flags, the same in all commands", short_lines(page, short))
    lines = [*used_most(page, short)]
    _print_table(console, "Used most", lines)
    if len(page.fields) > len(short) + len(lines):
        console.print(
            f"\nAll {len(page.fields)} fields: jaxalign {page.command} --help all; those of a "
            "section: --help SECTION. A field may be given by its last word where no other ends so."
        )


def _print_table(console: Console, title: str, lines: list[Line]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for flag, text in lines:
        table.add_row(Text(f"  {flag}"), Text(text))
    if lines:
        console.print(f"\n{title}:")
        console.print(table)


def short_lines(page: Page, short: Mapping[str, str]) -> list[Line]:
    """The short flags, and the options of the command line."""
    lines = [
        (
            f"--{name} {'X' if name == 'warmup' else metavar(page, field)}",
            line_of(page, field, SHORT_TEXTS.get(name, "")),
        )
        for name, field in short.items()
    ]
    for name, hint in hints_of(page.options).items():
        text = first_sentence(field_texts(page.options)[name])
        value = "" if hint is bool else " FILE" if name == "config" else " DIR"
        default = f" (runs/{page.directory})" if name == "output" else ""
        lines.append((f"--{name}{value}", text + default))
    return lines


def used_most(page: Page, short: Mapping[str, str]) -> Iterator[Line]:
    """Fields of the command itself; of its sections the loss and those that are used most."""
    hints, sections = hints_of(type(page.settings)), shown_sections(page.settings)
    for name in (*(name for name in FIRST if name in hints), *(n for n in hints if n not in FIRST)):
        names = [name]
        if dataclasses.is_dataclass(hints[name]):
            fields = fields_of_block(sections[name]) if name in sections else []
            names = [f"{name}.{field}" for field in fields]
        for field in names:
            if field in page.fields and field not in short.values():
                yield f"--{shortest(page, field)} {metavar(page, field)}", line_of(page, field)


def shortest(page: Page, field: str) -> str:
    """The last word of a field of the loss, if it says which is meant; the whole name of others."""
    section, _, last = field.rpartition(".")
    ends = [name for name in page.fields if name == last or name.endswith(f".{last}")]
    of_loss = "." in field and method_of(getattr(page.settings, section)) is not None
    return last if of_loss and read_fields(ends, page.settings) == [field] else field


def shown_sections(settings: Any) -> dict[str, Any]:
    """Sections that the first page shows something of: of their kind there is one, and it is read
    by the chosen method, or is where the loss is chosen.

    >>> from jaxalign.config.rlhf import RLHFConfig
    >>> "ppo" in shown_sections(RLHFConfig()), "lora" in shown_sections(RLHFConfig())
    (False, True)
    """
    hints = hints_of(type(settings))
    blocks = {
        name: getattr(settings, name) for name in hints if dataclasses.is_dataclass(hints[name])
    }
    kinds = [type(block) for block in blocks.values()]
    losses = [name for name, block in blocks.items() if method_of(block) is not None]
    shown = {*read_fields([*blocks], settings), *(losses if len(losses) == 1 else ())}
    return {
        name: block
        for name, block in blocks.items()
        if name in shown and kinds.count(type(block)) == 1
    }


def fields_of_block(block: Any) -> list[str]:
    """Fields of a section that the first page shows: its loss, what that takes, and a few more."""
    method = method_of(block)
    own = [] if method is None else ["loss", *method.hyperparameters]
    return [*dict.fromkeys((*own, *USED_MOST.get(type(block), ())))]


def line_of(page: Page, field: str, text: str = "") -> str:
    """What is said of a field, with its choices and its effective default."""
    section, _, last = field.rpartition(".")
    block = page.settings
    for name in section.split(".") if section else ():
        block = getattr(block, name)
    method = method_of(block)
    if not text and isinstance(method, Loss) and last in method.hyperparameters:
        text = argument_text(method.function, last) or argument_text(method.formula, last)
        text = text if text[1:2] == " " else f"{text[:1].upper()}{text[1:]}"
    text = first_sentence(text or field_texts(type(block))[last])
    if isinstance(block, FitConfig) and last == "batch_size":
        text += f"; {counted(page.settings, section)}"
    choices = choices_of(flags_of(type(page.settings))[field])
    text += f": {', '.join(choices)}" if choices else ""
    default = in_words(values_of(page.settings, field))
    return f"{text} ({default})" if default else text


def counted(settings: Any, section: str) -> str:
    """What a batch of a training loop counts, as its command says it.

    >>> from jaxalign.config.dpo import DPOConfig
    >>> counted(DPOConfig(), "dpo.fit")
    'a batch counts pairs'
    """
    above, _, name = section.rpartition(".")
    block = getattr(settings, above) if above else settings
    return first_sentence(field_texts(type(block))[name]).partition("; ")[2]


def metavar(page: Page, field: str) -> str:
    """What stands for the value of a flag in the help."""
    hint = flags_of(type(page.settings))[field]
    if choices_of(hint):
        return "NAME"
    first = options_of(hint)[0]
    many = typing.get_origin(first) is tuple
    kind = typing.get_args(first)[0] if many else first
    name = {int: "N", float: "X", bool: "True|False", str: "TEXT"}.get(kind, "TEXT X")
    return f"{name} ..." if many or name == "TEXT X" else name


def choices_of(hint: Any) -> tuple[str, ...]:
    """Names that a field may be given; empty where it is no choice of names."""
    named = [option for option in options_of(hint) if typing.get_origin(option) is Literal]
    return typing.get_args(named[0]) if named else ()
