"""Plots of reward over KL: the frontier of all methods, and over-optimisation of each."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxalign.evaluation import best_of_n_kl
from jaxalign.evaluation.tables import number
from jaxalign.report.labels import Label, end_labels, place
from jaxalign.report.plots import WIDTH
from jaxalign.report.style import (
    BLUE,
    GRID,
    INK,
    MUTED,
    RED,
    Mark,
    empty,
    family,
    margins,
    marks,
    new_figure,
    setting,
    styled,
)

Rows = Sequence[dict[str, Any]]
Curve = Callable[[np.ndarray], np.ndarray]
BEST_OF_N = "best of n"


def kl_of(row: dict[str, Any]) -> float | None:
    """KL of a row in nats: exact, else the analytic one of best-of-n, else sampled."""
    if number(row.get("kl")) is not None:
        return number(row["kl"])
    if (number(row.get("n")) or 0) >= 1:
        return float(best_of_n_kl(row["n"]))
    return number(row.get("kl_estimate"))


def points_of(rows: Rows, key: str) -> list[tuple[float, float, dict[str, Any]]]:
    """(KL, value, row) of the rows that have both, by step, else by KL; KL below 0 is noise: 0."""
    points = [(kl_of(row), number(row.get(key)), row) for row in rows]
    pairs = [(max(kl, 0.0), y, row) for kl, y, row in points if kl is not None and y is not None]
    return sorted(pairs, key=lambda point: (number(point[2].get("step")) or 0.0, *point[:2]))


@styled
def frontier(rows: Rows, curves: Rows, best_of_n: Rows, *, key: str, name: str) -> Figure:
    """`key` over KL for every method, with best-of-n's analytic curve."""
    series = _series(rows, curves, best_of_n, key)
    figure, (axes,) = new_figure(WIDTH, 290)
    margins(figure, left=44, right=16)
    if not series:
        empty(axes)
        return figure
    styles = marks([method for method, _, _ in series])
    finals = [method for method, _, final in series if final]
    labels, avoid = [], []
    for method, points, final in series:
        avoid += _along(points)
        _frontier_series(axes, points, styles[method], final=final)
        if _has_label(method, final=final, finals=finals):
            kl, value = points[-1]
            labels.append(Label(x=kl, y=value, text=method, colour=styles[method].colour))
    _kl_axis(axes, [kl for _, points, _ in series for kl, _ in points])
    axes.margins(y=0.12)
    axes.set_title(name, color=MUTED)
    axes.autoscale_view()
    place(axes, _with_family(labels), avoid)
    return figure


@styled
def over_optimisation(
    points: Rows, *, method: str, start: dict[str, Any], fits: dict[str, Curve]
) -> Figure:
    """Scores of reward model and judge over sqrt(KL), with perplexity and variety below.

    Args:
      points: rows along training (or of best-of-n) with `kl` and the scores.
      method: title of the figure.
      start: the supervised model's row: scores are shown as gains over it; empty: as they are.
      fits: score name -> curve, a function of sqrt(KL), drawn dotted.
    """
    below = [
        (key, title)
        for key, title in (
            ("sample_perplexity", "perplexity of samples"),
            ("distinct_2", "distinct-2"),
            ("length", "length, tokens"),
        )
        if len(points_of(points, key)) > 1
    ]
    heights = [2.6, *([1.0] * len(below))]
    figure, axes = new_figure(
        WIDTH,
        200 + 78 * len(below),
        1 + len(below),
        sharex=True,
        gridspec_kw={"height_ratios": heights},
    )
    margins(figure, left=44, right=84, top=36, gap=0.42)
    _gains(axes[0], points, start, fits)
    for panel, (key, title) in zip(axes[1:], below, strict=True):
        kl, values = np.array([point[:2] for point in points_of(points, key)]).T
        panel.plot(np.sqrt(kl), values, color=INK, marker="o", markersize=2.5, linewidth=1.2)
        panel.set_title(title, color=MUTED, pad=3, fontsize=8.5)
        panel.yaxis.set_major_locator(MaxNLocator(3))
        panel.margins(y=0.15)
    axes[-1].set_xlabel("√KL from the supervised model, √nats")
    figure.text(6 / WIDTH, 1 - 13 / (200 + 78 * len(below)), method, color=INK, weight="bold")
    return figure


def _series(
    rows: Rows, curves: Rows, best_of_n: Rows, key: str
) -> list[tuple[str, list[tuple[float, float]], bool]]:
    """(method, points, whether they are final models) of everything with KL and `key`."""
    series = []
    for method in dict.fromkeys(str(row.get("method")) for row in curves):
        own = points_of([row for row in curves if str(row.get("method")) == method], key)
        series.append((method, [point[:2] for point in own], False))
    if not any(number(row.get("n")) is None for row in best_of_n):
        series.append((BEST_OF_N, [point[:2] for point in points_of(best_of_n, key)], False))
    for kl, y, row in points_of(rows, key):
        series.append((str(row.get("method")), [(kl, y)], True))
    return [(method, points, final) for method, points, final in series if points]


def _frontier_series(
    axes: Axes, points: list[tuple[float, float]], mark: Mark, *, final: bool
) -> None:
    """A final model as one large mark, a curve as a line with small ones."""
    kl, values = zip(*points, strict=True)
    if final:
        axes.plot(kl, values, mark.marker, color=mark.colour, markersize=7, zorder=3)
    else:
        axes.plot(
            kl,
            values,
            color=mark.colour,
            marker=mark.marker,
            markersize=3,
            linewidth=1.2,
            alpha=0.75,
        )


def _has_label(method: str, *, final: bool, finals: Sequence[str]) -> bool:
    """Whether a series has a label: final models, and curves without one, but no controls."""
    if final:
        return not (family(method).lower() == "sft" and setting(method))
    if method == BEST_OF_N:
        return not any(name.lower().startswith("best") for name in finals)
    return method not in finals


def _along(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points along a line that labels should not cover."""
    kl, values = np.array(points).T
    at = np.linspace(0, len(points) - 1, 5 * len(points) - 4)
    index = np.arange(len(points))
    return list(zip(np.interp(at, index, kl), np.interp(at, index, values), strict=True))


def _with_family(labels: list[Label]) -> list[Label]:
    """Shortened labels: the family at its highest point, the setting alone elsewhere."""
    named: dict[str, Label] = {}
    for label in sorted(labels, key=lambda label: (not setting(label.text), label.y)):
        named[label.colour] = label
    return [
        label if named[label.colour] is label else _renamed(label, setting(label.text))
        for label in labels
    ]


def _renamed(label: Label, text: str) -> Label:
    """The label with its setting as text, if it has one."""
    return dataclasses.replace(label, text=text or label.text)


def _kl_axis(axes: Axes, kl: list[float]) -> None:
    """KL from 0; on a square-root scale where one method is far from all others."""
    top = max(kl)
    wide = top > 12 and top > 5 * float(np.median(kl))
    if wide:
        axes.set_xscale("function", functions=(_signed_sqrt, _signed_square))
        ticks = [0, 1, 2, 5, 10, 20, 40, 80, 160, 320, 640]
        axes.set_xticks([tick for tick in ticks if tick <= top * 1.1])
    axes.set_xlim(-0.02 * top if not wide else -0.002 * top, max(top * 1.12, 0.1))
    scale = ", square-root scale" if wide else ""
    axes.set_xlabel(f"KL from the supervised model, nats per sample{scale}")


def _signed_sqrt(x: np.ndarray) -> np.ndarray:
    """Square root with the sign of its argument, so that a margin left of 0 has a place."""
    return np.sign(x) * np.sqrt(np.abs(x))


def _signed_square(x: np.ndarray) -> np.ndarray:
    """Inverse of `_signed_sqrt`."""
    return np.sign(x) * np.square(x)


def _gains(axes: Axes, points: Rows, start: dict[str, Any], fits: dict[str, Curve]) -> None:
    """Axes with the two scores over sqrt(KL), named at their ends, and their fitted curves."""
    labels = []
    for key, name, colour, dashes in (
        ("reward_score", "reward model", RED, (5, 2)),
        ("judge_score", "judge", BLUE, ()),
    ):
        own = points_of(points, key)
        if not own:
            continue
        distance = np.sqrt([point[0] for point in own])
        gains = np.array([point[1] for point in own]) - (number(start.get(key)) or 0.0)
        axes.plot(distance, gains, color=colour, marker="o", markersize=3.5, dashes=dashes)
        labels.append(Label(x=distance[-1], y=gains[-1], text=name, colour=colour))
        if key in fits:
            grid = np.linspace(distance[distance > 0].min(), distance.max(), 100)
            axes.plot(grid, fits[key](grid), color=colour, linewidth=1, linestyle=":")
    if not labels:
        empty(axes)
        return
    axes.axhline(0, color=GRID, linewidth=1.2, zorder=1)
    title = "gain over the supervised model, score units" if start else "score"
    axes.set_title(title, color=MUTED, pad=4, fontsize=8.5)
    axes.margins(x=0.03, y=0.08)
    axes.autoscale_view()
    end_labels(axes, labels)
