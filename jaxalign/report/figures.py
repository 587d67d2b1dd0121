"""Figures of the page, each also written as a PNG file."""

import itertools
from pathlib import Path

from matplotlib.figure import Figure

from jaxalign.report.html import Markup, tag
from jaxalign.report.svg import inline_svg, save_png
from jaxalign.system.files import FileError, short_path

LONGEST = 80  # characters of a name


class Figures:
    """Figures of a page: each is written to `directory` and becomes an HTML element.

    Args:
      directory: where the PNG files go.
    """

    def __init__(self, directory: Path):
        if directory.is_symlink():  # a run may be somebody else's
            raise FileError(f"{short_path(directory)} is a link; remove it, or make it a folder")
        self._directory = directory
        self._names: set[str] = set()

    def add(self, name: str, figure: Figure, caption: str | None, title: str = "") -> Markup:
        """One figure: `name.png`, and an SVG with its caption for the page.

        The name is a file's and an id's; one that was there before gets a number.
        """
        number = itertools.count(2)
        name = first = name[:LONGEST]
        while name in self._names:
            name = f"{first}_{next(number)}"
        self._names.add(name)
        save_png(figure, self._directory / f"{name}.png")
        picture = inline_svg(figure, name=name, description=title or caption or name)
        return tag("figure", picture, tag("figcaption", caption) if caption else None)
