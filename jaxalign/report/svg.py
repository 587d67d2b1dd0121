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
    buffer = io.BytesIO()
    with settings():
        figure.savefig(buffer, format="png", dpi=160, facecolor="white")
    write_atomically(path, buffer.getvalue())


def inline_svg(figure: Figure, *, name: str, description: str) -> Markup:
    """The figure as an SVG element for an HTML page.

    Every colour of the light theme becomes a CSS variable, fonts are those of the page, and ids
    start with `name`, so that several figures can stand on one page.
    """
    buffer = io.StringIO()
    with settings():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", svg.split(">", 1)[0]) + (
        ">" + svg.split(">", 1)[1]
    )
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([^;\"]*?)(\d+(?:\.\d+)?px)[^;\"]*", r"font-size: \2", svg)
    for colour, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{colour})")
    label = text(description)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))
