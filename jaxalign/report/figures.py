"""Figures on their way into the page: each is also kept as a PNG file."""

from pathlib import Path

from matplotlib.figure import Figure

from jaxalign.report.html import Markup, tag
from jaxalign.report.svg import inline_svg, save_png


class Figures:
    """Writes every figure to `directory` and returns it as an HTML element.

    Args:
      directory: where the PNG files go.
    """

    def __init__(self, directory: Path):
        self._directory = directory

    def add(self, name: str, figure: Figure, caption: str | None, title: str = "") -> Markup:
        """One figure: `name.png`, and an SVG with its caption for the page."""
        save_png(figure, self._directory / f"{name}.png")
        picture = inline_svg(figure, name=name, description=title or caption or name)
        return tag("figure", picture, tag("figcaption", caption) if caption else None)
