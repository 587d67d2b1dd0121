"""The table of every function of the mathematics, generated from the docstrings.

python -m benchmarks.catalogue            # print it
python -m benchmarks.catalogue --write    # write jaxalign/losses/README.md and the guide's table

Takes seconds on two cores.
"""

import argparse
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jaxalign
from jaxalign.contents import declarations, themes
from jaxalign.losses.declarations import (
    COMPARISONS,
    DISTILLATION,
    ONLINE,
    PAIRED,
    RANKINGS,
    SAMPLED,
    STEPS,
    UNPAIRED,
    Loss,
)
from jaxalign.losses.group_methods import GroupMethod

PAGE = Path(jaxalign.__file__).parent / "losses" / "README.md"
GUIDE = PAGE.parents[2] / "docs" / "guides" / "losses.md"
BOUNDS = ("<!-- declared: python -m benchmarks.catalogue --write -->\n", "<!-- end -->")
HEADER = """# Every loss and estimator

Generated from the docstrings by `python -m benchmarks.catalogue --write`; a test writes it again
and compares. All losses are unreduced: sum them over a mask, divide once by the global weight.
`from jaxalign import NAME` finds every one of them.
"""
NAMES = """## Names on the command line

`jaxalign COMMAND --loss NAME`; a hyper-parameter that is not given has the value that stands here.
"""
REWARDED = {  # data of a reward model's loss, by its kind
    COMPARISONS: "preferences, for a reward model, with or without `margin`",
    RANKINGS: "rankings (`prompt`, `responses`, the best first), for a reward model",
    STEPS: "labelled steps (`prompt`, `completions`, `labels`), for a reward of every step",
}
DATA = {  # of losses that are not on pairs, by the heading of their kind
    UNPAIRED.heading: "labelled answers",
    ONLINE.heading: "prompts and a reward model or functions that compare two fresh samples",
    SAMPLED.heading: "prompts and a reward model or functions, no value function",
    DISTILLATION.heading: "texts and a larger model",
}
COLUMNS = ("function", "what it is", "equation", "when to use it", "TRL's name", "paper")


@dataclass(frozen=True)
class Entry:
    """What a docstring says of one function."""

    name: str
    module: str
    signature: str
    summary: str
    equation: tuple[str, ...]
    source: str
    when: str
    trl: str


def paragraph(lines: list[str], label: str) -> str:
    """The text after `label:` up to the next blank line or label, on one line."""
    for number, line in enumerate(lines):
        if line.startswith(f"{label}:"):
            rest = [line.removeprefix(f"{label}:").strip()]
            for after in lines[number + 1 :]:
                if not after.startswith("  "):
                    break
                rest.append(after.strip())
            return " ".join(rest)
    return ""


def equation_of(lines: list[str]) -> tuple[str, ...]:
    """The first indented block before the arguments."""
    block: list[str] = []
    for line in lines[1:]:
        if line.startswith(("Args:", ">>>")):
            break
        if line.startswith("  "):
            block.append(line.strip())
        elif block:
            break
    return tuple(block)


def entry_of(function: Callable) -> Entry:
    """Reads the docstring of a public function."""
    lines = (inspect.getdoc(function) or "").splitlines()
    summary = " ".join(lines[: lines.index("")] if "" in lines else lines)
    return Entry(
        name=function.__name__,
        module=function.__module__.removeprefix("jaxalign."),
        signature=signature_of(function),
        summary=summary,
        equation=equation_of(lines),
        source=paragraph(lines, "Source"),
        when=paragraph(lines, "When"),
        trl=paragraph(lines, "TRL"),
    )


def signature_of(function: Callable) -> str:
    """Names of the arguments and the defaults of those that have one.

    >>> signature_of(jaxalign.k1)
    'k1(policy_logps, reference_logps)'
    """
    parts, starred = [], False
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        parts.append(name + default)
    return f"{function.__name__}({', '.join(parts)})"


def entries() -> list[Entry]:
    """Every function that `jaxalign` exports."""
    exported = [getattr(jaxalign, name) for name in jaxalign.__all__]
    functions = [x for x in exported if inspect.isfunction(inspect.unwrap(x))]
    return [entry_of(inspect.unwrap(function)) for function in functions]


def grouped(found: list[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """Headings with their entries, losses in the order of their declarations."""
    entry_of_name = {entry.name: entry for entry in found}
    for heading, names in themes([getattr(jaxalign, entry.name) for entry in found]).items():
        yield heading, [entry_of_name[name] for name in names]


def cell(text: str) -> str:
    """Text that may stand in a Markdown table."""
    text = re.sub(r"https?://[^\s,;)]+[^\s,;).]", lambda m: f"[link]({m[0]})", text)
    return text.replace("|", "\\|")


def code(lines: tuple[str, ...] | str) -> str:
    """Code in a table cell, a line each."""
    lines = (lines,) if isinstance(lines, str) else lines
    return "<br>".join(f"`{line}`".replace("|", "\\|") for line in lines)


def names() -> str:
    """The table of what the command line calls the losses."""
    lines = [NAMES, "| command | `--loss` | function | hyper-parameters |", "|---|---|---|---|"]
    for loss in declarations():
        numbers = ", ".join(f"`{name}` {value}" for name, value in loss.hyperparameters.items())
        formula = loss.formula.__name__
        lines.append(f"| `{loss.kind.command}` | `{loss.name}` | `{formula}` | {numbers} |")
    return "\n".join((*lines, ""))


def data_of(loss: Loss | GroupMethod) -> str:
    """The data that a loss is for, from the inputs that it declares."""
    if loss.kind in REWARDED:
        return REWARDED[loss.kind]
    if not isinstance(loss, Loss) or loss.kind is not PAIRED:
        return DATA[loss.kind.heading]
    if loss.needs("gold_logps"):
        return "pairs with a best answer `gold`"
    if not loss.needs("reference"):
        return "pairs, without a reference model"
    return "pairs whose sides differ in length" if loss.needs("lengths") else "pairs"


def choices() -> str:
    """The table of the guide: the losses for each kind of data."""
    rows: dict[tuple[str, str], list[str]] = {}
    for loss in declarations():
        rows.setdefault((data_of(loss), loss.kind.command), []).append(f"`{loss.name}`")
    lines = ["| your data | command | `--loss` |", "|:--|:--|:--|"]
    lines += [f"| {data} | `{command}` | {', '.join(n)} |" for (data, command), n in rows.items()]
    return "\n".join((*lines, ""))


def guide() -> str:
    """The guide with that table in its place."""
    before, _, rest = GUIDE.read_text().partition(BOUNDS[0])
    return before + BOUNDS[0] + choices() + BOUNDS[1] + rest.partition(BOUNDS[1])[2]


def page() -> str:
    """The whole document."""
    parts = [HEADER]
    for heading, rows in grouped(entries()):
        parts.append(f"## {heading}\n")
        parts.append(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for e in rows:
            cells = (code(e.signature), e.summary, code(e.equation), e.when, e.trl, e.source)
            parts.append(f"| {' | '.join(x if '`' in x else cell(x) for x in cells)} |")
        parts.append("")
    return "\n".join((*parts, names()))


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} and {GUIDE.name}")
    if parser.parse_args().write:
        for path, text in ((PAGE, page()), (GUIDE, guide())):
            path.write_text(text)
            print(path)
    else:
        print(page())


if __name__ == "__main__":
    main()
