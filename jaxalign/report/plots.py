"""Plots of shares with their intervals: win rates, accuracy of scorers, calibration."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxalign.evaluation.tables import number
from jaxalign.report.style import (
    BLUE,
    INK,
    MUTED,
    empty,
    margins,
    marks,
    new_figure,
    styled,
)

Rows = Sequence[dict[str, Any]]
WIDTH = 350.0  # points; the page shows a plot at 340 (phone) to 560 pixels


@styled
def win_rates(rows: Rows) -> Figure:
    """Every method's win rate against the supervised model, by both judges, with intervals."""
    with_rates = [row for row in rows if number(row.get("win_rate")) is not None]
    names = [str(row["method"]) for row in with_rates]
    figure, (axes,) = new_figure(WIDTH, 66 + 30 * max(len(with_rates), 1))
    if not with_rates:
        empty(axes)
        return figure
    margins(figure, left=min(16 + 5.2 * max(map(len, names)), 150), right=34, top=28)
    axes.axvline(50, color=MUTED, linewidth=1)
    for at, row in enumerate(with_rates):
        colour = marks(names)[names[at]].colour
        _interval(axes, row, "win_rate", at - 0.14, colour=colour, marker="o", size=6)
        _interval(axes, row, "rule_win_rate", at + 0.2, colour=colour, marker="o", size=4)
    _judge_names(axes, with_rates[0])
    axes.set_yticks(range(len(with_rates)), names, color=INK)
    axes.set_ylim(len(with_rates) - 0.45, -0.75)
    axes.set_xlim(*_share_limits(with_rates, ("win_rate", "rule_win_rate")))
    axes.set_xlabel("win rate against the supervised model, %")
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    return figure


@styled
def scorers(rows: Rows) -> Figure:
    """Pair accuracy of every scorer with its interval; chance at 50%."""
    with_accuracy = [row for row in rows if number(row.get("pair_accuracy")) is not None]
    names = [str(row.get("scorer", "")) for row in with_accuracy]
    figure, (axes,) = new_figure(WIDTH, 66 + 26 * max(len(with_accuracy), 1))
    if not with_accuracy:
        empty(axes)
        return figure
    margins(figure, left=min(16 + 5.2 * max(map(len, names)), 170), right=34, top=28)
    people = [row for row, name in zip(with_accuracy, names, strict=True) if _is_human(name)]
    for row in people[:1]:
        axes.axvline(100 * row["pair_accuracy"], color=MUTED, linewidth=1, dashes=(2, 3))
    for at, row in enumerate(with_accuracy):
        human = _is_human(names[at])
        _interval(axes, row, "pair_accuracy", at, colour=MUTED if human else BLUE, size=6)
        clear = number(row.get("pair_accuracy_gap1"))
        if clear is not None:
            axes.plot(100 * clear, at, "o", markersize=5.5, color=BLUE, fillstyle="none")
    axes.axvline(50, color=MUTED, linewidth=1)
    axes.set_yticks(range(len(with_accuracy)), names, color=INK)
    axes.set_ylim(len(with_accuracy) - 0.45, -0.55)
    axes.set_xlim(*_share_limits(with_accuracy, ("pair_accuracy", "pair_accuracy_gap1")))
    _heading(axes, "filled: all pairs · open: clear pairs (ratings more than 1 apart)")
    axes.set_xlabel("pairs in the order that people put them in, %")
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    return figure


@styled
def calibration(bins: Rows) -> Figure:
    """Share of people who agree with the reward model, over its probability."""
    complete = [row for row in bins if number(row.get("predicted")) is not None]
    complete = [row for row in complete if number(row.get("observed")) is not None]
    figure, (axes,) = new_figure(WIDTH, 280)
    margins(figure, left=44, right=16)
    if not complete:
        empty(axes)
        return figure
    sure = np.array([100 * row["predicted"] for row in complete])
    low = 50.0 if sure.min() >= 49.5 else 0.0
    axes.plot([low, 100], [low, 100], color=MUTED, linewidth=1, dashes=(4, 3))
    axes.annotate(
        "as sure as it is right",
        (0.97 * 100, 97),
        (-4, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=MUTED,
        fontsize=8.5,
    )
    for at, row in zip(sure, complete, strict=True):
        _interval(axes, row, "observed", at, colour=BLUE, size=6, upright=True)
    axes.plot(sure, [100 * row["observed"] for row in complete], color=BLUE, linewidth=1)
    axes.set_xlim(low - 1, 101)
    axes.set_xlabel("reward model's probability that the better text is preferred, %")
    axes.set_title("share of human judgements that agree, %", color=MUTED)
    return figure


def _is_human(scorer: str) -> bool:
    """Whether a scorer's name says that it is a person."""
    return "human" in scorer.lower() or "person" in scorer.lower()


def _interval(
    axes: Axes,
    row: dict[str, Any],
    key: str,
    at: float,
    *,
    colour: str,
    marker: str = "o",
    size: float = 6,
    upright: bool = False,
) -> None:
    """A share in per cent and its interval, at a height of the axes (or upright, at an x)."""
    value, low, high = (number(row.get(name)) for name in (key, f"{key}_low", f"{key}_high"))
    if value is None:
        return
    if low is not None and high is not None:
        ends, place_ = [100 * low, 100 * high], [at, at]
        across, along = (place_, ends) if upright else (ends, place_)
        axes.plot(across, along, color=colour, linewidth=1.6 if size > 5 else 1)
    point = (at, 100 * value) if upright else (100 * value, at)
    axes.plot(*point, marker, color=colour, markersize=size)


def _share_limits(rows: Rows, keys: Sequence[str]) -> tuple[float, float]:
    """Limits in per cent around all numbers and 50%, with some air, within 0 to 100."""
    ends = [f"{key}{end}" for key in keys for end in ("", "_low", "_high")]
    numbers = [number(row.get(end)) for row in rows for end in ends]
    shares = [100 * share for share in numbers if share is not None]
    return max(min([50, *shares]) - 3, -1), min(max([50, *shares]) + 3, 101)


def _heading(axes: Axes, text: str) -> None:
    """Write a line above the plot that starts at the edge of the figure."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    width, height = figure.get_size_inches() * 72
    figure.text(6 / width, 1 - 14 / height, text, color=MUTED, fontsize=9)


def _judge_names(axes: Axes, row: dict[str, Any]) -> None:
    """Write which mark belongs to which judge."""
    rules = number(row.get("rule_win_rate")) is not None
    both = "large mark: judge · small mark: rule-based scorer"
    _heading(axes, both if rules else "by the judge")
