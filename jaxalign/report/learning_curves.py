"""Learning curves: the metrics of a stage, grouped into panels that can be read together."""

import dataclasses
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxalign.evaluation.tables import number
from jaxalign.report.labels import Label, end_labels
from jaxalign.report.style import BLUE, COLOURS, MUTED, RED, empty, margins, new_figure, styled
from jaxalign.train.evaluations import HELD_OUT

Rows = Sequence[dict[str, Any]]
MAX_PANELS = 18
_NOT_METRICS = {"stage", "step", "time", "seconds", "epoch", "tokens", "tokens_seen"}
_COLOURS = (BLUE, RED, COLOURS["green"][0], COLOURS["purple"][0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """Plot of a few metrics: its title with unit, metric name -> line label, lines drawn pale."""

    title: str
    lines: dict[str, str]
    pale: tuple[str, ...] = ()


def _panel(title: str, *names: str, **labelled: str) -> Panel:
    """A panel of unlabelled lines, or of lines by label."""
    return Panel(title=title, lines=dict.fromkeys(names, "") | {n: k for k, n in labelled.items()})


# Metrics that belong in one panel, in the order they are shown. Others follow, one panel each.
_KNOWN = (
    _panel("mean return of episodes", "returns"),
    _panel("right answers, share", "rewards/right"),
    _panel("accuracy on test examples", "test/accuracy"),
    _panel("macro recall on test examples", "test/macro_recall"),
    _panel("worst recall on test examples", "test/worst_recall"),
    _panel("KL from the reference on test examples, nats", "test/kl"),
    _panel(
        "score of samples, reward-model units",
        "scores",
        policy="scores/mean",
        opponent="scores/opponent",
    ),
    _panel("preferred to the opponent, share", "nash/preference"),
    _panel("loss", "loss"),
    _panel("tokens that are the first choice, share", "tokens/accuracy"),
    _panel("pairs in the right order, share", "rewards/accuracy"),
    _panel("steps on the right side of 1/2, share", "steps/accuracy"),
    _panel("predicted chance that a step is right", "steps/chance"),
    _panel("implicit reward", chosen="rewards/chosen", rejected="rewards/rejected"),
    _panel("margin between chosen and rejected", "rewards/margin"),
    _panel("log-probability, nats", chosen="logps/chosen", rejected="logps/rejected"),
    _panel("KL from the reference, nats", "kl/reference"),
    _panel("KL coefficient", "kl/coef"),
    _panel("entropy of a decision, nats", "ppo/entropy", "policy/entropy"),
    _panel(
        "clipped, share",
        policy="ppo/clip_fraction",
        low="ppo/clip_fraction_low",
        high="ppo/clip_fraction_high",
        value="ppo/value_clip_fraction",
    ),
    _panel(
        "clipped, share",
        all="policy/clip_fraction",
        low="policy/clip_fraction_low",
        high="policy/clip_fraction_high",
    ),
    _panel("KL of an update, nats", "ppo/approx_kl", "policy/approx_kl"),
    _panel("groups of equal scores, share", "scores/equal_groups"),
    _panel("ratio of trainer to sampler", mean="ratio/mean", largest="ratio/max"),
    _panel("value loss", "ppo/value_loss"),
    _panel("explained variance of the returns", "ppo/explained_variance"),
    _panel("policy loss", "ppo/policy_loss", "policy/loss"),
    _panel(
        "length of responses, tokens",
        mean="response/length",
        longest="response/length_max",
        ended="response/length_ended",
    ),
    _panel("responses that ended, share", "response/ended"),
    _panel("gradient norm", "grad_norm"),
    _panel("learning rate", "learning_rate"),
    _panel("tokens a second", "tokens_per_second"),
    _panel("share of the device's peak speed", "utilisation"),
    _panel(
        "seconds of an iteration",
        sampling="seconds/sampling",
        rewards="seconds/rewards",
        learning="seconds/learning",
    ),
)

ENDS = ("", "/std")  # of the metrics of a reward, of which its panel or that of the score tells
_OF_SCORES = {"scores/std", "scores/std_within_groups", "scores/tied", "scores/unjudged"}


def panels(metrics: Rows, *, without: Collection[str] = ()) -> list[Panel]:
    """Panels of learning curves for one stage's lines, at most `MAX_PANELS`, best known first.

    `name/seed_3` and its like are drawn pale in the panel of `name`.
    """
    numeric = [name for name in _numeric(metrics) if name not in without]
    single = {name: re.sub(r"/seed_\w+$", "", name) for name in numeric}
    seeds = {name: base for name, base in single.items() if name != base}
    names = list(dict.fromkeys(single.values()))
    rewards = _reward_names(names)
    known = [_among(_with_held_out(panel), names) for panel in _with_rewards(rewards)]
    taken = {name for panel in known for name in panel.lines}
    taken |= {f"{of}{name}{end}" for of in ("", HELD_OUT) for name in rewards for end in ENDS}
    others = [name for name in names if name not in taken]
    bases = list(dict.fromkeys(name.removeprefix(HELD_OUT) for name in others))
    known += [_among(_with_held_out(_panel(name, name)), others) for name in bases]
    chosen = [panel for panel in known if panel.lines][:MAX_PANELS]
    return [
        dataclasses.replace(
            panel, pale=tuple(n for n, base in seeds.items() if base in panel.lines)
        )
        for panel in chosen
    ]


def _with_held_out(panel: Panel) -> Panel:
    """The panel with a line for the same metric of held-out rows beside each of its own."""
    lines: dict[str, str] = {}
    for name, label in panel.lines.items():
        lines[name] = label or "training"
        lines[f"{HELD_OUT}{name}"] = f"{label}, held out" if label else "held out"
    return dataclasses.replace(panel, lines=lines)


def _reward_names(names: Collection[str]) -> list[str]:
    """Metrics that are mean scores of single rewards, whose names a run chooses."""
    taken = {name for panel in _KNOWN for name in panel.lines} | _OF_SCORES
    own = dict.fromkeys(name.removeprefix(HELD_OUT) for name in names)
    is_mean = re.compile(r"scores/(?!.*/std$)").match
    return [name for name in own if is_mean(name) and name not in taken]


def _with_rewards(rewards: Sequence[str]) -> list[Panel]:
    """The known panels, and behind that of the score one of each reward where there are several."""
    ordered: list[Panel] = []
    for panel in _KNOWN:
        ordered.append(panel)
        if "scores/mean" in panel.lines and len(rewards) > 1:
            ordered += [_panel(name, name) for name in rewards]
    return ordered


def _among(panel: Panel, names: Collection[str]) -> Panel:
    """The panel with those of its lines that are among the names; one that is alone needs no
    label.
    """
    lines = {name: label for name, label in panel.lines.items() if name in names}
    return dataclasses.replace(panel, lines=lines)


@styled
def learning_curve(metrics: Rows, panel: Panel) -> Figure:
    """Figure of one panel over the optimizer step; long noisy lines have a running mean on top."""
    figure, (axes,) = new_figure(270, 170)
    labelled = [label for label in panel.lines.values() if label]
    several = len(panel.lines) > 1 and bool(labelled)
    margins(figure, left=40, right=14 + (6 * max(map(len, labelled)) if several else 0))
    for name in panel.pale:
        steps, values = np.array(_points(metrics, name)).T
        axes.plot(steps, values, color=BLUE, linewidth=0.8, alpha=0.35)
    labels = []
    for (name, label), colour in zip(panel.lines.items(), _COLOURS, strict=False):
        points = _points(metrics, name)
        if points:
            end = _line(axes, np.array(points), colour)
            labels.append(Label(x=end[0], y=end[1], text=label, colour=colour))
    if not labels and not panel.pale:
        empty(axes)
        return figure
    axes.set_title(panel.title, color=MUTED)
    axes.set_xlabel("step")
    axes.margins(x=0.02, y=0.1)
    axes.locator_params(axis="y", nbins=5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.autoscale_view()
    _widen(axes)
    if several:
        end_labels(axes, labels)
    return figure


def _numeric(metrics: Rows) -> list[str]:
    """Names with a finite number in some line, in the order they appear."""
    numbers = (
        name
        for at, line in enumerate(metrics)
        if number(line.get("step", at)) is not None
        for name, value in line.items()
        if name not in _NOT_METRICS and number(value) is not None
    )
    return list(dict.fromkeys(numbers))


def _points(metrics: Rows, name: str) -> list[tuple[float, float]]:
    """(step, value) of the lines that have a finite value; without steps, the line number."""
    points = [
        (number(line.get("step", at)), number(line.get(name))) for at, line in enumerate(metrics)
    ]
    return [(step, value) for step, value in points if step is not None and value is not None]


def _line(axes: Axes, points: np.ndarray, colour: str) -> tuple[float, float]:
    """Draws a line, or a mark for a single point; returns its last point."""
    steps, values = points.T
    window = len(points) // 25
    if len(points) < 12:
        axes.plot(steps, values, color=colour, marker="o", markersize=3.5, linewidth=1.4)
    elif window < 2:
        axes.plot(steps, values, color=colour, linewidth=1.4)
    else:
        axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.3)
        values = _running_mean(values, window)
        axes.plot(steps, values, color=colour, linewidth=1.6)
    return float(steps[-1]), float(values[-1])


def _widen(axes: Axes) -> None:
    """Widen the axis around a constant, whose rounding errors would otherwise fill the plot."""
    low, high = axes.get_ylim()
    middle = (low + high) / 2
    if high - low < 1e-6 * abs(middle):
        axes.set_ylim(middle - 0.1 * abs(middle), middle + 0.1 * abs(middle))


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of the `window` values on either side and the value itself; fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - window, 0), np.minimum(at + window + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)
