"""`jaxalign ratings`: the embedded human ratings as files in the formats that commands read."""

import json
from pathlib import Path

from jaxalign.config.ratings import RatingsConfig
from jaxalign.data.preferences import Pairs, mixed_pairs
from jaxalign.data.ratings import Ratings, load_ratings
from jaxalign.system.console import tell
from jaxalign.system.files import make_directory, write_atomically

PARTS = {"train": "policy", "validation": "policy_validation", "test": "evaluation"}


def run(config: RatingsConfig, directory: Path) -> dict[str, int]:
    """Write texts, prompts and preferences of every part; returns rows by file name."""
    movies = load_ratings("movies")
    make_directory(directory)
    counts = {}
    for part, split in PARTS.items():
        ratings = movies.part(split)
        pairs = mixed_pairs(ratings, config.pairs, config.seed)
        for kind, rows in (
            ("texts", [{"text": text} for text in ratings.texts]),
            ("prompts", prompt_rows(ratings, config.prompt_words)),
            ("preferences", preference_rows(ratings, pairs)),
            ("labelled", labelled_rows(ratings, config.prompt_words)),
        ):
            name = f"{kind}_{part}.jsonl"
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_atomically(directory / name, lines.encode())
            counts[name] = len(rows)
            tell(f"{directory / name}: {len(rows)} rows")
    return counts


def prompt_rows(ratings: Ratings, words: int) -> list[dict]:
    """Prompts: the first words of each text that has more."""
    split = [text.split() for text in ratings.texts]
    return [{"prompt": " ".join(text[:words])} for text in split if len(text) > words]


def labelled_rows(ratings: Ratings, words: int) -> list[dict]:
    """Texts cut into prompt and completion, labelled good if their mean rating is above 0."""
    split = [text.split() for text in ratings.texts]
    return [
        {
            "prompt": " ".join(text[:words]),
            "completion": " " + " ".join(text[words:]),
            "label": bool(mean > 0),
        }
        for text, mean in zip(split, ratings.means, strict=True)
        if len(text) > words
    ]


def preference_rows(ratings: Ratings, pairs: Pairs) -> list[dict]:
    """Chosen and rejected texts after an empty prompt."""
    return [
        {"prompt": "", "chosen": ratings.texts[chosen], "rejected": ratings.texts[rejected]}
        for chosen, rejected in zip(pairs.chosen, pairs.rejected, strict=True)
    ]
