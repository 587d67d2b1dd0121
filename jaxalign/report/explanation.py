"""The page of `jaxalign explain`: one batch, a row for every token."""

from collections.abc import Iterable
from collections.abc import Sequence as Many
from typing import Any

import numpy as np

from jaxalign.data.tokenizer import Tokenizer
from jaxalign.explanation import Explanation, Sequence, Sum
from jaxalign.report.html import Markup, join, tag
from jaxalign.report.page import head
from jaxalign.report.sections import paragraph, section

OPEN = 4  # sequences that are unfolded when the page opens
MEANINGS = {
    "log-probability": "log pi(token) of the policy, nats",
    "reference": "the same under the frozen reference",
    "behaviour": "the same under the policy that sampled it",
    "log-ratio": "policy less reference, nats",
    "KL": "k1: behaviour less reference, nats; what the reward is charged for",
    "trained": "whether loss and divisor count the token",
    "weight": "factor of the policy loss: importance weight, 0 for tokens of too little entropy",
    "reward": "per step: score at the last token less the KL charge; without sampling beta x "
    "log-ratio",
    "value": "V when the token was chosen",
    "new value": "V of the policy that is explained",
    "return": "what V is to become",
    "advantage": "as the step uses it",
    "ratio": "policy over behaviour",
    "clipped": "the side of the clip range beyond which the loss is flat (cispo: the weight is)",
    "value clipped": "flat where the clipped error is the larger one",
    "entropy": "of the distribution that the token was drawn from, nats",
    "gradient": "d loss / d log-probability: below 0, the step makes the token likelier",
    "value gradient": "d loss / d V",
}


def explanation_page(
    method: str,
    explanation: Explanation,
    tokenizer: Tokenizer,
    findings: Many[tuple[str, str | None]] = (),
) -> str:
    """HTML page of an explanation: sums, checks, metrics and a row for every token.

    Args:
      method: whose loss it is.
      explanation: of the batch.
      tokenizer: spells the tokens.
      findings: name of each check and its result (None: nothing is wrong).
    """
    title = f"{method.upper()}: loss {explanation.loss:.6g} of one batch"
    columns = explanation.sequences[0].columns
    body = join(
        tag("header", tag("p", "jaxalign explain", class_="kind"), tag("h1", title)),
        tag(
            "main",
            section("sums", "Sums", _sums(explanation.sums), *map(paragraph, explanation.notes)),
            section("checks", "Checks", _findings(findings)) if findings else None,
            section("metrics", "Metrics of the step", _metrics(explanation)),
            section("columns", "Columns", _meanings(list(columns))),
            section(
                "tokens",
                "Tokens",
                *(
                    _sequence(sequence, tokenizer, number < OPEN)
                    for number, sequence in enumerate(explanation.sequences)
                ),
            ),
        ),
        tag("footer", "Made by jaxalign explain."),
    )
    return f"<!doctype html>\n{tag('html', head(title), tag('body', body), lang='en')}\n"


def number(value: Any) -> str:
    """Four significant digits; an empty string for one.

    >>> number(-0.123456), number(1234567.0), number(0.0), number("above")
    ('-0.1235', '1.235e+06', '0', 'above')
    """
    return value if isinstance(value, str) else f"{float(value):.4g}"


def _sums(sums: Many[Sum]) -> Markup:
    rows = (
        tag(
            "tr",
            tag("th", total.name, scope="row"),
            tag("td", f"{total.loss:.7g}"),
            tag("td", f"{total.table:.7g}"),
            tag("td", "equal" if total.agrees else "different"),
        )
        for total in sums
    )
    names = ("", "in the loss", "from the table below", "")
    return _table(names, rows)


def _metrics(explanation: Explanation) -> Markup:
    numbers = {"loss": explanation.loss, "weight": explanation.weight, **explanation.metrics}
    facts = (
        tag("div", tag("dt", name), tag("dd", number(value))) for name, value in numbers.items()
    )
    return tag("dl", *facts, class_="facts")


def _findings(findings: Many[tuple[str, str | None]]) -> Markup:
    rows = (
        tag("tr", tag("th", name, scope="row"), tag("td", result or "nothing found"))
        for name, result in findings
    )
    return _table(("looked for", "found"), rows)


def _meanings(names: list[str]) -> Markup:
    cells = (tag("div", tag("dt", name), tag("dd", MEANINGS.get(name, ""))) for name in names)
    return tag("dl", *cells, class_="meaning")


def _sequence(sequence: Sequence, tokenizer: Tokenizer, is_open: bool) -> Markup:
    """Table of one row of the batch; its text and totals stand above."""
    real = np.flatnonzero(sequence.is_prompt | sequence.is_response).tolist()
    largest = max((abs(g) for g in sequence.columns["gradient"][sequence.is_response]), default=0)
    totals = ", ".join(f"{name} {number(value)}" for name, value in sequence.totals.items())
    rows = (_token(sequence, tokenizer, at, float(largest)) for at in real)
    padding = len(sequence.tokens) - len(real)
    note = f"{padding} positions of padding are not shown." if padding else None
    names = ("", "token", "mask", *sequence.columns)
    return tag(
        "details",
        tag("summary", sequence.title),
        paragraph(tokenizer.decode(sequence.tokens[real])),
        paragraph(f"Sums over the response: {totals}."),
        _table(names, rows),
        tag("p", note, class_="note") if note else None,
        open="open" if is_open else None,
    )


def _token(sequence: Sequence, tokenizer: Tokenizer, at: int, largest: float) -> Markup:
    """Table row of one token; numbers where it is trained on."""
    response = bool(sequence.is_response[at])
    cells = []
    for name, column in sequence.columns.items():
        value = number(column[at]) if response else ""
        style = _tint(float(column[at]), largest) if name == "gradient" and response else None
        cells.append(tag("td", value, style=style))
    spelled = tokenizer.token(int(sequence.tokens[at]))
    mask = "response" if response else "prompt"
    return tag("tr", tag("th", at, scope="row"), tag("td", spelled), tag("td", mask), *cells)


def _tint(gradient: float, largest: float) -> str | None:
    """Style of a token: blue where the step raises it, red where it lowers it, by its gradient."""
    if not largest or not np.isfinite(gradient):
        return None
    colour = "blue" if gradient < 0 else "red"
    share = round(45 * abs(gradient) / largest)
    return f"background:color-mix(in srgb,var(--{colour}) {share}%,transparent)"


def _table(names: Many[str], rows: Iterable[Markup]) -> Markup:
    head_row = tag("tr", *(tag("th", name, scope="col") for name in names))
    return tag("div", tag("table", tag("thead", head_row), tag("tbody", *rows)), class_="scroll")
