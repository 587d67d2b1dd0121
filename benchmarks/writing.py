"""What makes the main job's small language model write better.

    python -m benchmarks.writing

Trains the SFT model once for each variant of the default recipe (one seed) and prints

- bits per character on held-out sentences of at most 130 characters, which compares vocabularies,
- of 1,024 samples at the main job's temperature: words that stand in no sentence of the whole data
  set (made up), and pairs of neighbouring words that stand in one (known pairs; copying raises them
  too), and whole samples that stand in a training text (copied).

Takes half an hour on two cores.
"""

import argparse
import dataclasses
import itertools
import re
import tempfile
from pathlib import Path

import jax
import numpy as np

from jaxalign.commands.rlhf.ratings import Corpus, read_corpus
from jaxalign.config.rlhf import RLHFConfig
from jaxalign.data.batching import prompt_batch
from jaxalign.data.ratings import load_ratings
from jaxalign.evaluation.text_statistics import copied_whole
from jaxalign.recipes.run import Run, open_run
from jaxalign.recipes.scoring import response_logps
from jaxalign.recipes.sft import train_sft
from jaxalign.recipes.text_batches import bucketed_batches
from jaxalign.recipes.text_models import TextModel, new_text_model
from jaxalign.sampling import sample
from jaxalign.system.memory import keep_freed_memory

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
LONGEST = 130  # characters of the held-out sentences, which then fit under every vocabulary
SAMPLES, PASSES = 256, 4
COLUMNS = ("bits per character", "made-up words", "known pairs", "copied whole")

# changed fields of RLHFConfig, dotted
VARIANTS: dict[str, dict] = {
    "default: 8,000 words, tied, dropout 0.1": {},
    "byte-pair vocabulary of 4,096": {
        "tokenizer.kind": "bpe", "tokenizer.vocab_size": 4096, "max_length": 48,
    },
    "byte-pair vocabulary of 8,192": {"tokenizer.kind": "bpe", "max_length": 48},
    "word vocabulary of 4,096": {"tokenizer.vocab_size": 4096, "max_length": 48},
    "untied output head": {"model.tie_embeddings": False},
    "no dropout": {"model.dropout": 0.0},
    "dropout 0.2": {"model.dropout": 0.2},
    "product reviews too": {"products": True},
    "twice the steps": {"sft.steps": 2200},
    "AdamW at 3e-3 instead of Muon": {
        "sft.optimizer.name": "adamw", "sft.optimizer.learning_rate": 3e-3,
    },
}  # fmt: skip


def changed(config, name: str, value):
    """The configuration with one dotted field replaced."""
    head, _, rest = name.partition(".")
    inner = changed(getattr(config, head), rest, value) if rest else value
    return dataclasses.replace(config, **{head: inner})


def trained(config: RLHFConfig, run: Run, corpus: Corpus) -> TextModel:
    """The SFT model of the main job."""
    new = new_text_model(
        config.model, corpus.tokenizer, run.key("init"), max_length=config.max_length
    )
    batches = bucketed_batches(
        corpus.sft_rows,
        config.sft.rows,
        buckets=config.length_buckets,
        pad_id=corpus.tokenizer.pad_id,
        seed=run.seed,
    )
    return train_sft(run, "sft", new, batches, settings=config.sft)


def bits_per_character(run: Run, policy: TextModel, corpus: Corpus) -> float:
    """Of the held-out sentences, their ends included."""
    texts = [text for text in corpus.validation.texts if len(text) <= LONGEST]
    nats = -response_logps(run, policy, corpus.token_rows(texts)).sum()
    return float(nats / np.log(2) / sum(len(text) + 1 for text in texts))


def samples(policy: TextModel, config: RLHFConfig) -> list[str]:
    """Whole texts."""
    tokenizer, texts = policy.tokenizer, []
    for part in range(PASSES):
        drawn = sample(
            policy.model,
            policy.params,
            prompt_batch(
                [[tokenizer.bos_id]] * SAMPLES,
                pad_id=tokenizer.pad_id,
                index=part * SAMPLES + np.arange(SAMPLES),
            ),
            jax.random.key(0),
            eos_id=tokenizer.stop_ids,
            max_new_tokens=config.max_length - 1,
            temperature=config.temperature,
        ).batch
        rows = zip(np.asarray(drawn.tokens), np.asarray(drawn.mask), strict=True)
        texts += [tokenizer.decode(row[real]) for row, real in rows]
    return texts


def measured(changes: dict) -> tuple[dict[str, float], list[str]]:
    """The columns of one variant, and its samples."""
    config = RLHFConfig()
    for name, value in changes.items():
        config = changed(config, name, value)
    corpus = read_corpus(config)
    with (
        tempfile.TemporaryDirectory() as directory,
        open_run(Path(directory), config, config.place, config.seed) as run,
    ):
        policy = trained(config, run, corpus)
        bits = bits_per_character(run, policy, corpus)
    texts = samples(policy, config)
    words = [WORD.findall(text.lower()) for text in texts]
    known = [WORD.findall(text.lower()) for text in load_ratings("movies").texts]
    vocabulary = {word for text in known for word in text}
    pairs = {pair for text in known for pair in itertools.pairwise(text)}
    training = [WORD.findall(text.lower()) for text in corpus.policy.texts]
    return {
        "bits per character": bits,
        "made-up words": float(np.mean([w not in vocabulary for text in words for w in text])),
        "known pairs": float(
            np.mean([p in pairs for text in words for p in itertools.pairwise(text)])
        ),
        "copied whole": copied_whole(words, training),
    }, texts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="part of the names of the variants to run")
    parser.add_argument("--shown", type=int, default=3, help="samples to print of each")
    options = parser.parse_args()
    keep_freed_memory()
    chosen = {name: v for name, v in VARIANTS.items() if not options.only or options.only in name}
    lines = []
    for name, changes in chosen.items():
        row, texts = measured(changes)
        print(name, *texts[: options.shown], sep="\n  ", flush=True)
        cells = [f"{row[column]:.3f}" for column in COLUMNS]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    print("\n| variant | " + " | ".join(COLUMNS) + " |")
    print("|:--|" + "--:|" * len(COLUMNS))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
