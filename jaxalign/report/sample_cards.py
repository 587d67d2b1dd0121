"""Samples side by side: one prompt, every method."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.evaluation.tables import number
from jaxalign.report.html import Markup, join, tag
from jaxalign.report.run import RunFiles

SHOWN, MOST = 8, 1000  # prompts at once, and in all


def sample_cards(run: RunFiles) -> Markup | None:
    """The same prompts continued by every method."""
    answered = [sample for sample in run.samples if sample.get("responses")]
    methods = run.methods
    top = max((abs(score) for score in _judge_scores(run)), default=1.0) or 1.0
    cards = [card(sample, methods, top=top) for sample in answered[:MOST]]
    if not cards:
        return None
    rest = cards[SHOWN:]
    more = tag("details", tag("summary", f"More prompts: {len(rest)}"), *rest) if rest else None
    lead = tag(
        "p",
        "The same prompts continued by every method, in the order the run wrote them. The coloured "
        "number is the judge's score, blue for liked and orange for disliked; the grey one is the "
        "reward model's.",
        f" The first {MOST} of {len(answered)} are shown." if len(answered) > MOST else None,
        class_="lead",
    )
    return join(lead, *cards[:SHOWN], more)


def card(sample: Mapping[str, Any], methods: Sequence[str] = (), *, top: float = 1.0) -> Markup:
    """One prompt with responses by name, those of the methods first.

    Args:
      sample: entry of `samples.json`.
      methods: names in their order.
      top: judge's score of the strongest colour.
    """
    responses = sample["responses"]
    order = dict.fromkeys(name for name in methods if name in responses) | dict.fromkeys(responses)
    answers = (_answer(name, responses[name] or {}, top) for name in order)
    prompt = str(sample.get("prompt") or "") or "(empty prompt)"
    return tag(
        "article",
        tag("p", prompt, class_="prompt"),
        tag("div", *answers, class_="answers"),
        class_="sample",
    )


def _judge_scores(run: RunFiles) -> list[float]:
    """All judge scores of the samples, for one colour scale."""
    scores = (
        number((response or {}).get("judge_score"))
        for sample in run.samples
        for response in (sample.get("responses") or {}).values()
    )
    return [score for score in scores if score is not None]


def _answer(method: str, response: Mapping[str, Any], top: float) -> Markup:
    """One continuation with its scores."""
    judge, model = number(response.get("judge_score")), number(response.get("reward_score"))
    chips = []
    if judge is not None:
        hue = "98,182,240" if judge >= 0 else "255,148,87"
        strength = 0.1 + 0.55 * min(abs(judge) / top, 1)
        style = f"background:rgba({hue},{strength:.2f})"
        chips.append(tag("span", _signed(judge), class_="score", style=style, title="judge"))
    if model is not None:
        chips.append(tag("span", _signed(model), class_="model", title="reward model"))
    text = str(response.get("text") or "").strip() or "(nothing)"
    return tag("div", tag("h4", method, " ", *chips), tag("p", text), class_="answer")


def _signed(value: float) -> str:
    """A score with its sign."""
    return f"{value:+.2f}".replace("-", "−")
