"""The table of every function of the mathematics, generated from the docstrings.

python -m benchmarks.catalogue            # print it
python -m benchmarks.catalogue --write    # write jaxalign/losses/README.md
"""

import argparse
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jaxalign

PAGE = Path(jaxalign.__file__).parent / "losses" / "README.md"
HEADER = """# Every loss and estimator

Generated from the docstrings by `python -m benchmarks.catalogue --write`; a test writes it again
and compares. All losses are unreduced: sum them over a mask, divide once by the global weight.
`from jaxalign import NAME` finds every one of them.
"""
GROUPS = {  # heading: the modules below `jaxalign` whose functions stand under it, in this order
    "Supervised": ("losses.cross_entropy",),
    "Rewards": ("losses.bradley_terry", "losses.plackett_luce", "losses.process_reward"),
    "Paired preferences": (
        *(f"losses.{name}" for name in ("dpo", "ipo", "hinge", "exo", "nca", "sppo", "apo")),
        *(f"losses.{name}" for name in ("aot", "discopop", "length_normalised_dpo", "ld_dpo")),
        *(f"losses.{name}" for name in ("wpo", "f_dpo", "simpo", "alphapo", "cpo", "orpo", "tpo")),
    ),
    "Unpaired preferences": ("losses.kto", "losses.bco"),
    "Online preferences": ("losses.online_dpo", "losses.xpo", "losses.nash_md"),
    "Policy gradients": ("losses.ppo", "losses.reinforce", "losses"),
    "Distillation": ("losses.distillation",),
    "Advantages and rewards per step": ("advantages",),
    "KL divergence": ("kl",),
    "Diagnostics": ("diagnostics",),
    "Log-probabilities": ("logprobs",),
    "Masks": ("numerics.masking",),
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
    """Headings with their entries; a function stands under the longest matching module name."""
    order = {module: heading for heading, modules in GROUPS.items() for module in modules}

    def place(entry: Entry) -> str:
        parts = entry.module.split(".")
        names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
        return next(order[name] for name in names if name in order)

    for heading, modules in GROUPS.items():
        rows = [entry for entry in found if place(entry) == heading]
        rank = {module: i for i, module in enumerate(modules)}
        rows.sort(key=lambda e: (rank.get(e.module, len(rank)), e.module, e.name))
        if rows:
            yield heading, rows


def cell(text: str) -> str:
    """Text that may stand in a Markdown table."""
    text = re.sub(r"https?://[^\s,;)]+[^\s,;).]", lambda m: f"[link]({m[0]})", text)
    return text.replace("|", "\\|")


def code(lines: tuple[str, ...] | str) -> str:
    """Code in a table cell, a line each."""
    lines = (lines,) if isinstance(lines, str) else lines
    return "<br>".join(f"`{line}`".replace("|", "\\|") for line in lines)


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
    return "\n".join(parts)


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    if parser.parse_args().write:
        PAGE.write_text(page())
        print(PAGE)
    else:
        print(page())


if __name__ == "__main__":
    main()
