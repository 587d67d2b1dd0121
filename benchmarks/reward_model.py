"""The reward model beside its baselines on random splits of the ratings.

    python -m benchmarks.reward_model [--splits 5]

Blocks of 30 sentences, each rated by its own people, are divided at random: 60% to train the main
job's reward model and a bag-of-words ridge regression on the same texts, the rest to test both.
Pairwise accuracy is over all pairs of test texts, against the mean of their raters; the human
ceiling is one rater against the mean of the others.

Takes five minutes on two cores.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np

from jaxalign.commands.rlhf.ratings import comparison_groups
from jaxalign.config.rlhf import RLHFConfig
from jaxalign.data.batching import truncated_row
from jaxalign.data.chat import text_row
from jaxalign.data.ratings import Ratings, load_ratings
from jaxalign.data.tokenizer_training import train_tokenizer
from jaxalign.evaluation.agreement import human_ceiling, scorer_agreement
from jaxalign.evaluation.judges import RidgeJudge, rule_based_scorer
from jaxalign.recipes.reward import train_reward
from jaxalign.recipes.run import Run, open_run
from jaxalign.recipes.scoring import score_rows
from jaxalign.recipes.text_models import new_text_model

TRAIN_SHARE = 0.6
METRICS = {"pair_accuracy": "pairs", "pair_accuracy_gap1": "clear pairs", "spearman": "Spearman"}


def random_split(movies: Ratings, seed: int) -> tuple[Ratings, Ratings]:
    """Training and test texts; no block is on both sides."""
    blocks = np.unique(movies.block)
    order = np.random.default_rng(seed).permutation(blocks)
    trained = np.isin(movies.block, order[: round(len(blocks) * TRAIN_SHARE)])
    return movies.rows(np.flatnonzero(trained)), movies.rows(np.flatnonzero(~trained))


def reward_scores(run: Run, train: Ratings, test: Ratings, config: RLHFConfig) -> np.ndarray:
    """Scores of the test texts by a reward model that learned from the training texts."""
    train_texts, test_texts = ([t.lower() for t in part.texts] for part in (train, test))
    vocabulary = config.tokenizer
    tokenizer = train_tokenizer(train_texts, vocab_size=vocabulary.vocab_size, kind=vocabulary.kind)

    def rows(texts):
        return [truncated_row(text_row(text, tokenizer), config.max_length) for text in texts]

    groups = comparison_groups(
        train,
        groups=config.comparisons.groups,
        group_size=config.comparisons.group_size,
        same_rater_share=config.comparisons.same_rater_share,
        seed=config.seed,
    )
    base = new_text_model(config.model, tokenizer, run.key("init"), max_length=config.max_length)
    model, _ = train_reward(
        run, "reward", base, rows(train_texts), groups=groups, settings=config.reward
    )
    return score_rows(run, model, rows(test_texts))


def measured(seed: int) -> dict[str, dict[str, float]]:
    """The metrics of every scorer on one split."""
    train, test = random_split(load_ratings("movies"), seed)
    config = RLHFConfig(seed=seed)
    with (
        tempfile.TemporaryDirectory() as directory,
        open_run(Path(directory), config, config.place, seed) as run,
    ):
        rewards = reward_scores(run, train, test, config)
    scores = {
        "reward model": rewards,
        "bag-of-words ridge": RidgeJudge().fit(train.texts, train.means).scores(test.texts),
        "rule-based scorer": rule_based_scorer()(test.texts),
    }
    found = {
        name: scorer_agreement(values, test.means, blocks=test.block, repeats=2)
        for name, values in scores.items()
    }
    found["one person against the rest"] = human_ceiling(
        test.ratings, test.rated, blocks=test.block, repeats=2
    )
    return {
        name: {metric: numbers[metric].value for metric in METRICS}
        for name, numbers in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=5)
    results = [measured(seed) for seed in range(parser.parse_args().splits)]
    print("\n| scorer | " + " | ".join(METRICS.values()) + " |")
    print("|:--|" + "--:|" * len(METRICS))
    for name in results[0]:
        cells = []
        for metric in METRICS:
            values = [result[name][metric] for result in results]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}")
        print(f"| {name} | " + " | ".join(cells) + " |")
    ours, bag = ([r[name]["pair_accuracy"] for r in results] for name in list(results[0])[:2])
    gains = [a - b for a, b in zip(ours, bag, strict=True)]
    print(f"\nreward model minus ridge, pairs, each split: {[round(gain, 4) for gain in gains]}")


if __name__ == "__main__":
    main()
