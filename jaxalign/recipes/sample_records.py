"""Records of sampled responses: `samples.jsonl` in the run directory, and tables along the way."""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from jaxalign.batches.tokens import TokenBatch
from jaxalign.config.records import RecordFields
from jaxalign.errors import printable
from jaxalign.recipes.reward_sources import Judged, Judges
from jaxalign.recipes.run import Run
from jaxalign.system.console import show

MOST = 50_000  # responses of a stage that are kept, unless the user says how often
SHOWN = 3  # responses of a table
WIDTH = 110  # characters of a table
PROMPT_END, RESPONSE_START = 36, 160  # characters of those that a table shows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """Sampled responses with what judges and method say of them, in NumPy.

    step: the iteration that they are of, from 1; for held-out prompts the updates done before.
    rows: `[B, T]` prompts and responses.
    index: `[B]` which of the prompts each answers.
    judged: their scores.
    advantages: `[B]`, of methods that have some.
    more: further fields of every line.
    """

    step: int
    rows: TokenBatch
    index: np.ndarray
    judged: Judged
    advantages: np.ndarray | None = None
    more: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleRecords:
    """Writer of a stage's responses, every so many iterations.

    judges: of the responses, with the prompts.
    every, show_every: iterations between those that are written, and between tables; 0: none.
    """

    run: Run
    stage: str
    judges: Judges
    every: int
    show_every: int

    def wanted(self, step: int) -> bool:
        """Whether anything of an iteration is kept or shown."""
        return self._is_kept(step) or self._is_shown(step)

    def __call__(self, *drawn: Drawn) -> None:
        """Write and show responses of an iteration, where they are due."""
        step = drawn[0].step
        if not self.wanted(step):
            return
        lines = [line for each in drawn for line in sample_lines(self.stage, self.judges, each)]
        if self._is_kept(step):
            self.run.samples.write(lines)
        if self._is_shown(step):
            show(sample_table(self.stage, lines), width=WIDTH)

    def _is_kept(self, step: int) -> bool:
        return bool(self.every) and (step - 1) % self.every == 0

    def _is_shown(self, step: int) -> bool:
        return bool(self.show_every) and (step == 1 or step % self.show_every == 0)


def sample_records(
    run: Run, stage: str, judges: Judges, settings: RecordFields, *, steps: int, responses: int
) -> SampleRecords:
    """Records of a stage of so many iterations with so many responses each."""
    every, show_every = settings.samples_every, settings.show_every
    iterations = max(MOST // max(responses, 1), 1)
    return SampleRecords(
        run=run,
        stage=stage,
        judges=judges,
        every=max(math.ceil(steps / iterations), 1) if every is None else every,
        show_every=max(math.ceil(steps / 5), 1) if show_every is None else show_every,
    )


def sample_lines(stage: str, judges: Judges, drawn: Drawn) -> Iterator[dict[str, Any]]:
    """Lines of `samples.jsonl`, one a response; None stands where there is no number."""
    rows, judged = drawn.rows, drawn.judged
    texts = judged.texts or judges.texts(rows, drawn.index)
    mask = np.asarray(rows.response_mask)
    ended = has_ended(rows, judges.tokenizer.stop_ids)
    names = [source.name for source in judges.sources]
    for i, number in enumerate(drawn.index.tolist()):
        advantage = {} if drawn.advantages is None else {"advantage": _number(drawn.advantages[i])}
        yield {
            "stage": stage,
            "step": drawn.step,
            **drawn.more,
            "prompt_index": number,
            "prompt": judges.asked[number],
            "response": texts[i],
            "scores": dict(zip(names, map(_number, judged.columns[i]), strict=True)),
            "score": _number(judged.totals[i]),
            **advantage,
            "ended": bool(ended[i]),
            "length": int(mask[i].sum()),
        }


def has_ended(rows: TokenBatch, stop_ids: tuple[int, ...]) -> np.ndarray:
    """`[B]` whether each response ended by itself, of rows in NumPy."""
    tokens, mask = np.asarray(rows.tokens), np.asarray(rows.response_mask)
    return np.any(np.isin(tokens, stop_ids) & mask, axis=1)


def sample_table(stage: str, lines: Sequence[dict[str, Any]]) -> Table:
    """Table of the best, the middle and the worst of the lines by their scores."""
    judged = sorted(
        (line for line in lines if line["score"] is not None), key=lambda line: -line["score"]
    )
    last = len(judged) - 1
    places = sorted({round(last * share) for share in np.linspace(0, 1, SHOWN)}) if judged else []
    few = f"{len(places)} of {len(lines)} responses" if judged else "no response has a score"
    table = Table(
        title=f"{stage}, iteration {lines[0]['step']}: {few}",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    table.add_column("score", justify="right", no_wrap=True)
    names = list(lines[0]["scores"])
    for name in names if len(names) > 1 else ():
        table.add_column(Text(printable(name)), justify="right", no_wrap=True)
    if "advantage" in lines[0]:
        table.add_column("advantage", justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("prompt and response")
    for line in (judged[place] for place in places):
        numbers = [line["score"]]
        numbers += [line["scores"][name] for name in names] if len(names) > 1 else []
        numbers += [line["advantage"]] if "advantage" in line else []
        length = f"{line['length']}{'' if line['ended'] else '+'}"
        table.add_row(*(_short(number) for number in numbers), length, _text(line))
    return table


def _text(line: dict[str, Any]) -> Text:
    """The end of a prompt, pale, and the beginning of its response, on one line."""
    prompt, response = (" ".join(part.split()) for part in (_plain(line), line["response"]))
    prompt = prompt if len(prompt) <= PROMPT_END else "..." + prompt[-PROMPT_END:]
    more = "..." if len(response) > RESPONSE_START else ""
    answer = printable(response[:RESPONSE_START] + more)
    return Text.assemble((printable(prompt), "dim"), " | ", answer)


def _plain(line: dict[str, Any]) -> str:
    """A prompt as text: of messages, the last one."""
    prompt = line["prompt"]
    if isinstance(prompt, str):
        return prompt
    last = prompt[-1].get("content") if prompt else ""
    return last if isinstance(last, str) else json.dumps(last)


def _short(number: float | None) -> str:
    return "-" if number is None else f"{number:.3g}"


def _number(value: Any) -> float | None:
    """A number for JSON, rounded as float32 holds it; None for NaN."""
    return None if np.isnan(value) else float(f"{value:.6g}")
