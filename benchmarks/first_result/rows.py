"""Rows of the jobs: conversations about films, made of the embedded rated sentences."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.first_result.jobs import LONGEST, SHORTEST, Job

QUESTIONS = (
    "What did people say about the film?",
    "Should I watch it with my family?",
    "Tell me what the critics thought.",
    "Is this one worth the ticket?",
)
LIKED, DISLIKED = 1.5, -1.5  # mean ratings from which a sentence is praise or blame
SPREAD = 4  # tokens by which a row may miss the length that was drawn

Count = Callable[[str, str], int]  # `(prompt, response) -> tokens`


def message(role: str, content: str) -> list[dict[str, str]]:
    """A conversation of one message."""
    return [{"role": role, "content": content}]


def drawn(draw: random.Random, question: str, sentences: list[str], count: Count) -> str:
    """A response of whole sentences, whose row has a length drawn from the range of lengths."""
    wanted = draw.randint(SHORTEST + SPREAD, LONGEST - SPREAD)
    response = ""
    for _ in range(100_000):
        longer = f"{response} {draw.choice(sentences)}".strip()
        tokens = count(question, longer)
        if tokens < wanted + SPREAD:
            response = longer
        if abs(tokens - wanted) < SPREAD:
            return longer
    raise ValueError(f"no row of {wanted} tokens out of {len(sentences)} sentences")


def pairs(
    count: Count, praise: list[str], blame: list[str], *, number: int, seed: int
) -> Iterator[dict]:
    """Preferences for praise, `{"prompt", "chosen", "rejected"}`, as conversations.

    Args:
      count: tokens of a row.
      praise, blame: sentences that responses are made of.
      number: of pairs.
      seed: the same pairs for the same one.
    """
    draw = random.Random(seed)
    for _ in range(number):
        question = draw.choice(QUESTIONS)
        chosen, rejected = (drawn(draw, question, side, count) for side in (praise, blame))
        yield {
            "prompt": message("user", question),
            "chosen": message("assistant", chosen),
            "rejected": message("assistant", rejected),
        }


def rows_of(method: str, preferences: list[dict]) -> list[dict]:
    """The rows that a method reads, of the texts of preferences."""
    if method == "sft":
        return [{"prompt": row["prompt"], "completion": row["chosen"]} for row in preferences]
    if method == "kto":
        sides = [("chosen", "rejected")[number % 2] for number in range(len(preferences))]
        return [
            {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
            for row, side in zip(preferences, sides, strict=True)
        ]
    if method == "grpo":
        return [{"prompt": row["prompt"]} for row in preferences]
    return preferences


def write_rows(job: Job, preferences: list[dict], folder: Path) -> None:
    """Write `train.jsonl`, and `test.jsonl` where rows are held out."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows_of(job.method, preferences)
    parts = {"train": rows[: job.rows], "test": rows[job.rows : job.rows + job.held_out]}
    for name, part in parts.items():
        if part:
            text = "".join(json.dumps(row) + "\n" for row in part)
            (folder / f"{name}.jsonl").write_text(text)


def rated_sentences() -> tuple[list[str], list[str]]:
    """The embedded sentences about films that people liked, and those that they did not."""
    from jaxalign.data.ratings import load_ratings

    ratings = load_ratings("movies")
    rated = list(zip(ratings.texts, ratings.means, strict=True))
    praise = [text for text, mean in rated if mean >= LIKED]
    return praise, [text for text, mean in rated if mean <= DISLIKED]


def tokens_by(model: Path) -> Count:
    """Counts the tokens of a prompt and a response in the chat template of a published model."""
    from jaxalign.data.chat import response_row
    from jaxalign.recipes.text_models import load_text_model

    tokenizer = load_text_model(model, "model").tokenizer

    def count(prompt: str, response: str) -> int:
        row = response_row(message("user", prompt), message("assistant", response), tokenizer)
        return len(row.tokens)

    return count
