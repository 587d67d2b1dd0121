"""The HTML page of a run: self-contained, without scripts or addresses."""

from collections.abc import Sequence
from pathlib import Path

from jaxalign.report import sections
from jaxalign.report.about import facts
from jaxalign.report.figures import Figures
from jaxalign.report.html import Markup, join, tag
from jaxalign.report.run import RunFiles, read_run
from jaxalign.report.stylesheet import stylesheet
from jaxalign.system.files import write_atomically


def page(run: RunFiles, figures: Figures, state: str = "") -> str:
    """HTML page of a run, with its state before its end; a section without data is left out."""
    parts = [
        ("results", "Results", sections.results(run, figures)),
        ("notes", "Notes", sections.notes(run)),
        ("frontier", "Reward against KL", sections.frontier(run, figures)),
        ("over-optimisation", "Over-optimisation", sections.over_optimisation(run, figures)),
        ("reward-model", "Reward model", sections.reward_model(run, figures)),
        ("samples", "Samples", sections.samples(run)),
        ("sampled", "Samples along training", sections.sampled(run)),
        ("learning", "Learning curves", sections.learning(run, figures)),
        ("run", "What was run", sections.about(run)),
    ]
    content = [part for _, _, part in parts if part is not None]
    nothing = sections.paragraph("This run has not written any results yet.")
    body = join(
        tag(
            "header",
            tag("p", "jaxalign run", class_="kind"),
            tag("h1", run.title),
            tag("p", state, class_="state") if state else None,
            facts(run),
        ),
        _contents(parts),
        tag("main", *(content or [nothing])),
        tag("footer", "Made by jaxalign from the files of the run directory."),
    )
    return f"<!doctype html>\n{tag('html', head(run.title), tag('body', body), lang='en')}\n"


def write_page(directory: Path, state: str = "") -> Path:
    """Reads a run directory and writes `report.html` and `plots/*.png` into it."""
    run = read_run(directory)
    written = page(run, Figures(directory / "plots"), state)
    target = directory / "report.html"
    write_atomically(target, written.encode())
    return target


def head(title: str) -> Markup:
    """Metadata and style."""
    void = Markup(
        '<meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
    )
    return tag("head", void, tag("title", title), tag("style", Markup(stylesheet())))


def _contents(parts: Sequence[tuple[str, str, Markup | None]]) -> Markup | None:
    """Links to the sections that are there."""
    links = [tag("a", title, href=f"#{name}") for name, title, part in parts if part is not None]
    return tag("nav", *links, aria_label="Sections") if len(links) > 1 else None
