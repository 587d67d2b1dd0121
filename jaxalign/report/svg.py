"""Figures as files and as SVG inside the page, with colours that follow light and dark."""

import io
import re
from pathlib import Path

from matplotlib.figure import Figure

from jaxalign.report.html import Markup, text
from jaxalign.report.style import COLOURS, settings
from jaxalign.system.files import make_directory, write_atomically


def save_png(figure: Figure, path: Path) -> None:
    """A picture for slides and READMEs: light, on white."""
    make_directory(path.parent)
    drawn = io.BytesIO()
    with settings():
        figure.savefig(drawn, format="png", dpi=160, facecolor="white")
    write_atomically(path, drawn.getvalue())


def inline_svg(figure: Figure, *, name: str, description: str) -> Markup:
    """The figure as an SVG element for an HTML page.

    Every colour of the light theme becomes a CSS variable, fonts are those of the page, and ids
    start with `name`, so that several figures can stand on one page.
    """
    buffer = io.StringIO()
    with settings():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", drawn.split(">", 1)[0]) + (
        ">" + drawn.split(">", 1)[1]
    )
    drawn = drawn.replace("xlink:href", "href")
    drawn = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', drawn)
    drawn = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", drawn)
    drawn = re.sub(r"font: ([^;\"]*?)(\d+(?:\.\d+)?px)[^;\"]*", r"font-size: \2", drawn)
    for colour, (light, _) in COLOURS.items():
        drawn = drawn.replace(light, f"var(--{colour})")
    label = text(description)
    return Markup(drawn.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))
