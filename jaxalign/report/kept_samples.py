"""Responses that training sampled: the best and the worst of the last ones, and those to the same
held-out prompts along the way.
"""

import json
from typing import Any

from jaxalign.evaluation.tables import number
from jaxalign.report.html import Markup, join, tag
from jaxalign.report.run import RunFiles
from jaxalign.report.sample_cards import card

MOST_STEPS = 6  # of a held-out prompt's responses
MOST_STAGES = 20


def kept_samples(run: RunFiles) -> Markup | None:
    """Cards of every stage that kept samples."""
    stages = list(dict.fromkeys(str(line["stage"]) for line in run.kept))[:MOST_STAGES]
    parts: list[Markup] = []
    for stage in stages:
        lines = [line for line in run.kept if line["stage"] == stage]
        last = [line for line in lines if not line.get("evaluation")]
        held_out = [line for line in lines if line.get("evaluation")]
        if last:
            title = f"{stage}: best and worst responses of iteration {last[0]['step']}"
            parts += [tag("h3", title), *map(_scored, last)]
        if held_out:
            title = f"{stage}: the same held-out prompts along training"
            parts += [tag("h3", title), *_along(held_out)]
    if not parts:
        return None
    lead = tag("p", "The number beside a response is its score.", class_="lead")
    return join(lead, *parts)


def _scored(line: dict[str, Any]) -> Markup:
    """A prompt with one response."""
    return card({"prompt": _text(line["prompt"]), "responses": {"response": _answer(line)}})


def _along(lines: list[dict[str, Any]]) -> list[Markup]:
    """Every prompt with its responses at some of the evaluations, first and last among them."""
    steps = sorted({line["step"] for line in lines})
    last = len(steps) - 1
    chosen = {steps[round(last * i / (MOST_STEPS - 1))] for i in range(MOST_STEPS)}
    prompts: dict[int, list[dict[str, Any]]] = {}
    for line in lines:
        if line["step"] in chosen:
            prompts.setdefault(line["prompt_index"], []).append(line)
    return [
        card(
            {
                "prompt": _text(answers[0]["prompt"]),
                "responses": {f"step {line['step']}": _answer(line) for line in answers},
            }
        )
        for answers in prompts.values()
    ]


def _answer(line: dict[str, Any]) -> dict[str, Any]:
    """A line as a response of `samples.json`."""
    return {"text": line["response"], "reward_score": number(line.get("score"))}


def _text(prompt: str | list[dict[str, Any]]) -> str:
    """A prompt as text; of messages, their contents."""
    if isinstance(prompt, str):
        return prompt
    contents = (message.get("content") for message in prompt)
    return "\n".join(part if isinstance(part, str) else json.dumps(part) for part in contents)
