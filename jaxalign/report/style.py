"""Style of the plots: colours and markers of methods, grid, fonts."""

import contextlib
import dataclasses
import functools
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Light and dark form of every colour that a plot may use. The hues differ in lightness as well, so
# that they stay apart for colour-blind readers, and hold 4.5:1 against their background as text.
COLOURS = {
    "ink": ("#1b2026", "#e9ebee"),
    "muted": ("#5d6772", "#a3adb8"),
    "grid": ("#e2e5e9", "#31383f"),
    "blue": ("#0069a8", "#62b6f0"),
    "red": ("#bb4a00", "#ff9457"),
    "green": ("#00785a", "#45c99d"),
    "purple": ("#8f3f97", "#d993e0"),
    "ochre": ("#8a6400", "#dfb33f"),
    "teal": ("#2f6f79", "#79c3cf"),
    "rose": ("#b0305c", "#f58bab"),
}
INK, MUTED, GRID = (COLOURS[name][0] for name in ("ink", "muted", "grid"))
BLUE, RED = COLOURS["blue"][0], COLOURS["red"][0]
_SPARE = [COLOURS[name][0] for name in ("ochre", "teal", "rose", "purple", "green", "blue", "red")]
_USUAL = {
    "sft": (MUTED, "o"),
    "dpo": (BLUE, "o"),
    "ppo": (RED, "s"),
    "best": (COLOURS["green"][0], "D"),
    "preferred": (COLOURS["purple"][0], "^"),
}
_MARKERS = "vP*Xd<>h"

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxalign",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mark:
    """Colour and marker of a family of methods."""

    colour: str
    marker: str


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """This module's matplotlib settings, for as long as the context lasts.

    Letters that its fonts lack are boxes in the PNG, and letters in the page: no warning.
    """
    with matplotlib.rc_context(RC), warnings.catch_warnings():  # pyright: ignore[reportArgumentType]
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def styled(plot: Callable[..., Figure]) -> Callable[..., Figure]:
    """Runs a plot function under this module's settings, leaving the user's own untouched."""

    @functools.wraps(plot)
    def inner(*args: Any, **kwargs: Any):
        with settings():
            return plot(*args, **kwargs)

    return inner


def new_figure(
    width: float, height: float, rows: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of so many points (1/72 inch) with axes below one another."""
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.subplots(rows, 1, squeeze=False, **options)
    return figure, list(axes[:, 0])


def margins(
    figure: Figure,
    *,
    left: float = 46.0,
    right: float = 12.0,
    top: float = 24.0,
    bottom: float = 36.0,
    gap: float = 0.2,
) -> None:
    """Sets fixed margins in points, so that the axes of all figures line up; the gap between axes
    is a share of their height.
    """
    width, height = figure.get_size_inches() * 72
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        bottom=bottom / height,
        hspace=gap,
    )


def family(method: str) -> str:
    """Name of a method without its setting.

    >>> [family(name) for name in ("DPO β=0.1", "best-of-16", "PPO (k3)", "DPO, human pairs")]
    ['DPO', 'best-of', 'PPO', 'DPO']
    """
    stem = re.match(r"(?i)best[- ]of|[^\s,;:(\[@=]+", method)
    return stem.group() if stem else method


def setting(method: str) -> str:
    """Setting of a method: what `family` leaves out of its name.

    >>> setting("DPO β=0.1"), setting("SFT"), setting("best-of-16")
    ('β=0.1', '', 'n=16')
    """
    rest = method[len(family(method)) :].strip(" -,;:")
    return f"n={rest}" if rest.isdigit() else rest


def marks(methods: Iterable[str]) -> dict[str, Mark]:
    """Method -> mark, the same for methods of one family: the well-known ones have their own."""
    methods = list(methods)
    kinds = list(dict.fromkeys(_kind(method) for method in methods))
    others = [kind for kind in kinds if kind not in _USUAL]
    spare = zip(itertools.cycle(_SPARE), itertools.cycle(_MARKERS), strict=False)
    of_kind = _USUAL | dict(zip(others, itertools.islice(spare, len(others)), strict=True))
    named = {kind: Mark(colour=of_kind[kind][0], marker=of_kind[kind][1]) for kind in kinds}
    return {method: named[_kind(method)] for method in methods}


def _kind(method: str) -> str:
    """The family however it is spelled: one of those with their own mark, or the name itself."""
    name = family(method).lower()
    return next((usual for usual in _USUAL if name.startswith(usual)), name)


def empty(axes: Axes) -> None:
    """Says in the plot that there is nothing to draw."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color=MUTED)
