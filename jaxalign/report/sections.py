"""The sections of the page; a section whose data a run does not have is None."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.evaluation import fit_best_of_n, fit_reinforced
from jaxalign.evaluation.tables import (
    METHOD_COLUMNS,
    MORE_METHOD_COLUMNS,
    SCORER_COLUMNS,
    number,
)
from jaxalign.report import plots, reward_kl
from jaxalign.report.about import settings
from jaxalign.report.figures import Figures
from jaxalign.report.html import Markup, tag
from jaxalign.report.kept_samples import kept_samples
from jaxalign.report.learning_curves import learning_curve, panels
from jaxalign.report.run import RunFiles
from jaxalign.report.sample_cards import sample_cards
from jaxalign.report.style import family, marks
from jaxalign.report.table import meanings, table, unknown_columns

AT_START = {"kl": 0.0, "step": 0}
MOST_STAGES = 20  # that have learning curves on a page
MIN_FIT = 4  # distances: two coefficients from fewer points say nothing


def results(run: RunFiles, figures: Figures) -> Markup | None:
    """The table of methods, its columns explained, and the win rates drawn."""
    rows = [row for row in run.rows("rows") if row.get("method") is not None]
    if not rows:
        return None
    dots = {method: mark.colour for method, mark in marks(run.methods).items()}
    more = [*MORE_METHOD_COLUMNS, *unknown_columns(rows, METHOD_COLUMNS + MORE_METHOD_COLUMNS)]
    other = table(rows, more, dots=dots)
    first = table(rows, METHOD_COLUMNS, dots=dots)
    beside = _win_rates(run, rows, figures) or _notes(run)
    if not (first or other or beside):
        return None
    return section(
        "results",
        "Results",
        beside,
        first,
        meanings(rows, METHOD_COLUMNS),
        tag("details", tag("summary", "More columns"), other, meanings(rows, more))
        if other
        else None,
    )


def frontier(run: RunFiles, figures: Figures) -> Markup | None:
    """Reward over KL for every method."""
    curves = [
        row | {"method": method} for method, points in by_method(run).items() for row in points
    ]
    parts = run.rows("rows"), curves, run.rows("best_of_n")
    plotted = [
        figures.add(f"frontier_{key}", reward_kl.frontier(*parts, key=key, name=name), caption)
        for key, name, caption in (
            (
                "judge_score",
                "mean score by the judge, rating points",
                "The judge's score over the distance paid for it: up and to the left is better. "
                "Large marks are final models, small ones are on the way there. Best of n is drawn "
                "at its analytic KL, ln n − (n − 1)/n, an upper bound.",
            ),
            (
                "reward_score",
                "mean score by the reward model",
                "The same for the reward model, which PPO and best-of-n maximise. A method that is "
                "ahead here and not on the judge's plot has fooled the reward model.",
            ),
        )
        if sum(len(reward_kl.points_of(part, key)) for part in parts) > 1
    ]
    if not plotted:
        return None
    lead = (
        "How much each method gains for how far it moves from the supervised model, as in Figure 2 "
        "of the DPO paper (Rafailov et al. 2023)."
    )
    return section("frontier", "Reward against KL", paragraph(lead), plot_grid(plotted))


def over_optimisation(run: RunFiles, figures: Figures) -> Markup | None:
    """Reward model against judge along training, one figure a method."""
    curves = by_method(run)
    curves[reward_kl.BEST_OF_N] = run.rows("best_of_n")
    plotted = []
    for method, points in list(curves.items())[:MOST_STAGES]:
        if (
            max(len(reward_kl.points_of(points, key)) for key in ("judge_score", "reward_score"))
            < 2
        ):
            continue
        start = _own_start(points) or _start(run)
        fits, sentence = _fits(points, start, best_of_n=method == reward_kl.BEST_OF_N)
        name = f"over_optimisation_{len(plotted) + 1}"
        figure = reward_kl.over_optimisation(points, method=method, start=start, fits=fits)
        plotted.append(figures.add(name, figure, sentence or None, method))
    if not plotted:
        return None
    lead = (
        "The reward model stands in for people; past some distance its score goes on rising while "
        "the judge's does not (Goodhart's law; Gao et al. 2022). Both scores are shown as gains "
        "over the supervised model, each in its own units. Below them: the perplexity of the "
        "samples under the supervised model and their variety, which neither score sees."
    )
    return section("over-optimisation", "Over-optimisation", paragraph(lead), plot_grid(plotted))


def reward_model(run: RunFiles, figures: Figures) -> Markup | None:
    """Accuracy and calibration of the reward model, beside its baselines."""
    rows, bins = run.rows("reward_model"), run.rows("calibration")
    if not rows and not bins:
        return None
    plotted = []
    if any(number(row.get("pair_accuracy")) is not None for row in rows):
        caption = (
            "Pairs of held-out texts put in the order that people put them in, by mean ratings "
            "where there are ratings, with 95% intervals. A human row is one person against the "
            "mean of the others."
        )
        plotted.append(figures.add("scorers", plots.scorers(rows), caption))
    if bins:
        caption = (
            "Calibration: below the dashed line the reward model is surer than it is right. "
            "Bars: two standard errors."
        )
        plotted.append(figures.add("calibration", plots.calibration(bins), caption))
    return section(
        "reward-model",
        "Reward model",
        plot_grid(plotted),
        table(rows, [*SCORER_COLUMNS, *unknown_columns(rows, SCORER_COLUMNS)]),
        meanings(rows, SCORER_COLUMNS),
    )


def samples(run: RunFiles) -> Markup | None:
    """The same prompts continued by every method."""
    cards = sample_cards(run)
    return section("samples", "Samples", cards) if cards else None


def sampled(run: RunFiles) -> Markup | None:
    """The last responses that training sampled, and those to held-out prompts along it."""
    content = kept_samples(run)
    return section("sampled", "Samples along training", content) if content else None


def learning(run: RunFiles, figures: Figures) -> Markup | None:
    """Learning curves of every stage."""
    measured = {key for row in run.rows("curves") for key in row}  # shown over KL instead
    parts: list[Markup] = []
    for stage in run.stages[:MOST_STAGES]:
        lines = [line for line in run.metrics if str(line.get("stage", "run")) == stage]
        plotted = [
            figures.add(f"{_slug(stage)}_{at}", learning_curve(lines, panel), None, panel.title)
            for at, panel in enumerate(panels(lines, without=measured), 1)
        ]
        if plotted:
            parts += [tag("h3", stage), tag("div", *plotted, class_="plots small")]
    if not parts:
        return None
    lead = "Pale: every logged step. Strong: running mean, where there are many steps."
    if len(run.stages) > MOST_STAGES:
        lead += f" The first {MOST_STAGES} of {len(run.stages)} stages are shown."
    return section("learning", "Learning curves", paragraph(lead), *parts)


def about(run: RunFiles) -> Markup | None:
    """Time per stage, the resolved configuration and the versions."""
    content = settings(run)
    return section("run", "What was run", content) if content else None


def notes(run: RunFiles) -> Markup | None:
    """Notes of the run, where no table of methods stands to put them beside."""
    content = None if run.methods else _notes(run)
    return section("notes", "Notes", content) if content else None


def section(name: str, title: str, *content: object) -> Markup:
    """A section with its heading and anchor."""
    return tag("section", tag("h2", title), *content, id=name)


def paragraph(content: str) -> Markup:
    """The sentence that introduces a section."""
    return tag("p", content, class_="lead")


def plot_grid(figures: Sequence[Markup]) -> Markup | None:
    """Plots beside one another where there is room."""
    return tag("div", *figures, class_="plots") if figures else None


def _win_rates(run: RunFiles, rows: Sequence[Mapping[str, Any]], figures: Figures) -> Markup | None:
    """Plot of the win rates, with an explanation and the notes of the run."""
    if all(number(row.get("win_rate")) is None for row in rows):
        return None
    figure = figures.add("win_rates", plots.win_rates(rows), None, "Win rates with intervals")
    reading = (
        "How often a method's continuation beats the supervised model's on the same held-out "
        "prompt, with 95% intervals from a bootstrap over prompts. An interval that crosses the "
        "line at 50% shows no difference."
    )
    judges = (
        "The judge was fit on human ratings of texts kept apart from all training. The rule-based "
        "scorer learned nothing at all. Where the two disagree, believe neither alone."
    )
    beside = tag("div", tag("p", reading), tag("p", judges), _notes(run), class_="aside")
    return tag("div", figure, beside, class_="plots")


def _notes(run: RunFiles) -> Markup | None:
    """The notes of the run as a list."""
    items = [tag("li", note) for note in run.rows("notes")]
    return tag("ul", *items, class_="notes") if items else None


def _start(run: RunFiles) -> dict[str, Any]:
    """The row of the supervised model, from which gains are counted."""
    starts = [row for row in run.rows("rows") if family(str(row.get("method"))).lower() == "sft"]
    return starts[0] if starts else {}


def by_method(run: RunFiles) -> dict[str, list[dict[str, Any]]]:
    """The points along training of each method, from the supervised model on."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in run.rows("curves"):
        curves.setdefault(str(row.get("method")), []).append(row)
    start = _start(run)
    return {
        method: points if _own_start(points) or not start else [start | AT_START, *points]
        for method, points in curves.items()
    }


def _own_start(points: list[dict[str, Any]]) -> dict[str, Any]:
    """The supervised model's point of a curve, where the curve has it; else {}."""
    return next((row for row in points if abs(reward_kl.kl_of(row) or 0.0) < 1e-3), {})


def _fits(
    points: list[dict[str, Any]], start: dict[str, Any], *, best_of_n: bool
) -> tuple[dict[str, Any], str]:
    """Curves of Gao et al. fitted to the gains of each score, and a sentence with their
    coefficients.
    """
    if not start:
        return {}, ""
    fits, terms = {}, []
    for key, name in (("reward_score", "reward model"), ("judge_score", "judge")):
        own, base = reward_kl.points_of(points, key), number(start.get(key))
        if len({point[0] for point in own if point[0] > 1e-3}) < MIN_FIT or base is None:
            continue
        kl, values = [point[0] for point in own], [point[1] - base for point in own]
        fit = (fit_best_of_n if best_of_n else fit_reinforced)(np.array(kl), np.array(values))
        fits[key] = fit.best_of_n if best_of_n else fit.reinforced
        alpha, beta = (f"{value:z.2f}".replace("-", "−") for value in (fit.alpha, fit.beta))
        terms.append(
            f"{name} α\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{alpha}, "
            f"β\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{beta}"
        )
    form = "d (α − β d)" if best_of_n else "d (α − β log d)"
    about = f"Dotted: least-squares fit of {form}, d = √KL: {'; '.join(terms)}."
    return fits, about if terms else ""


def _slug(name: str) -> str:
    """A name that can be a file name and an id."""
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower()) or "run"
