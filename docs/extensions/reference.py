"""Pages written from the code when the documentation is built: functions, flags, losses, results.

They stand in `docs/generated`, which git does not keep.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

from command_flags import commands_page
from equations import is_mathematics, tex_of

import jaxalign
from benchmarks.catalogue import Entry, entries, grouped

DOCS = Path(__file__).parents[1]
GENERATED = DOCS / "generated"
LINKS = {  # page of the repository: page here
    r"benchmarks/results/(\w+)\.md": r"/generated/results/\1.md",
    r"jaxalign/losses/README\.md": "/generated/losses.md",
}
PACKAGES = {  # of the reference beyond the mathematics: module or package, and what is in it
    "batches": "Batches",
    "objectives": "Objectives: a model meets a loss",
    "train": "Training: the step, the loop, checkpoints",
    "layouts": "Layouts: where a step runs",
    "models": "Models",
    "data": "Data: rows, tokenizers, batches",
    "pretrained": "Published models in and out",
    "sampling": "Decoding",
    "rollouts": "Rollouts",
    "envs": "Environments",
    "explanation": "Explanations: one batch token by token",
    "evaluation": "Evaluation: judges and intervals",
    "recipes": "Recipes: rows in, trained model out",
    "config": "Configurations",
    "commands": "Commands",
}


def write_pages() -> None:
    """Writes all of them; a page that has not changed keeps its date, so it is not built again."""
    headings = list(grouped(entries()))
    pages = {"losses": losses_page(headings), "types": types_page(), "commands": commands_page()}
    pages |= {f"mathematics/{slug(name)}": functions_page(name, rows) for name, rows in headings}
    pages |= {f"package/{name}": package_page(name, title) for name, title in PACKAGES.items()}
    results = sorted((DOCS.parent / "benchmarks" / "results").glob("*.md"))
    pages |= {f"results/{path.stem}": result_page(path) for path in results}
    for name, text in pages.items():
        path = GENERATED / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in set(GENERATED.rglob("*.md")) - {GENERATED / f"{name}.md" for name in pages}:
        path.unlink()


def slug(heading: str) -> str:
    """A heading as a file name.

    >>> slug("Advantages and rewards per step")
    'advantages_and_rewards_per_step'
    """
    return re.sub(r"\W+", "_", heading.lower()).strip("_")


def directive(lines: list[str]) -> str:
    """reStructuredText inside a page of Markdown."""
    return "\n".join(["```{eval-rst}", *lines, "```", ""])


def functions_page(heading: str, rows: list[Entry]) -> str:
    """The full docstrings below one heading."""
    parts = [f"# {heading}\n", "All of it is offered by `from jaxalign import NAME`.\n"]
    for entry in rows:
        parts += [f"## {entry.name}\n", directive([f".. autofunction:: jaxalign.{entry.name}"])]
    return "\n".join(parts)


def types_page() -> str:
    """The batches and pairs that the functions take and return."""
    exported = [(name, getattr(jaxalign, name)) for name in jaxalign.__all__]
    names = [name for name, value in exported if isinstance(value, type)]
    parts = ["# Batches and pairs\n", "What the functions take and return, as frozen pytrees.\n"]
    for name in names:
        lines = [f".. autoclass:: jaxalign.{name}", "   :exclude-members: __init__, __new__"]
        parts += [f"## {name}\n", directive(lines)]
    return "\n".join(parts)


def losses_page(headings: list[tuple[str, list[Entry]]]) -> str:
    """Every function with what it is and when to use it beside its equation."""
    parts = [
        "# All losses and estimators\n",
        "Generated from the docstrings. Losses are unreduced: sum them over a mask and divide "
        "once, by the global weight. A name leads to arguments, shapes, units and the paper.\n",
    ]
    for heading, rows in headings:
        parts += [f"## {heading}\n", "::::{list-table}", ":header-rows: 1", ":widths: 40 60"]
        parts += [":class: losses\n", "* - function", "  - equation"]
        for entry in rows:
            when = f"<br>*When:* {entry.when}" if entry.when else ""
            parts += [f"* - [`{entry.name}`](#jaxalign.{entry.name})<br>{entry.summary}{when}"]
            parts += [f"  - {equation_of(entry)}"]
        parts += ["::::\n"]
    return "\n".join(parts)


def equation_of(entry: Entry) -> str:
    """The equation as mathematics, a part a line, where it is one; else as it stands."""
    if is_mathematics(list(entry.equation)):
        pieces = [piece for line in entry.equation for piece in tex_of(line).split(r"\qquad ")]
        return "<br>".join(f"{{math}}`{piece}`" for piece in pieces)
    return "<br>".join(f"`{line}`" for line in entry.equation) or " "


def package_page(name: str, title: str) -> str:
    """All public functions and classes of a module, or of a package and what it holds."""
    parts = [f"# {title}\n"]
    for module in modules_of(f"jaxalign.{name}"):
        lines = [f".. automodule:: {module}"]
        if not hasattr(importlib.import_module(module), "__path__"):
            lines += ["   :members:", "   :member-order: bysource"]
            lines += ["   :exclude-members: __init__, __new__"]
        parts += [f"## {module}\n", directive(lines)]
    return "\n".join(parts)


def modules_of(name: str) -> Iterator[str]:
    """A module and, of a package, all below it."""
    module = importlib.import_module(name)
    yield name
    for below in pkgutil.iter_modules(getattr(module, "__path__", [])):
        yield from modules_of(f"{name}.{below.name}")


def result_page(path: Path) -> str:
    """A page of results as it stands in the repository."""
    return f"```{{include}} ../../../benchmarks/results/{path.name}\n:relative-images:\n```\n"


def inside(app, name: str, source: list[str]) -> None:
    """Links to pages of the repository lead to the same pages here."""
    for given, here in LINKS.items():
        source[0] = re.sub(rf"\]\((?:\.\./)+{given}", f"]({here}", source[0])


def setup(app) -> dict[str, bool]:
    """The pages are written before any is read."""
    app.connect("config-inited", lambda *_: write_pages())
    app.connect("source-read", inside)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
