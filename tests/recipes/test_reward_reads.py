"""What a reward model reads: a transformer sees whether a response answers, a bag of words not."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.model import ModelConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.config.reward import RewardConfig, RewardSettings
from jaxalign.data.chat import TokenRow, token_row
from jaxalign.data.preferences import pairs_as_groups
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.recipes.accuracy import pair_accuracy
from jaxalign.recipes.reward import train_reward
from jaxalign.recipes.run import open_run
from jaxalign.recipes.scoring import score_rows
from jaxalign.recipes.text_models import new_text_model

# Token ids. The answer to 3 is 5 and that to 4 is 6; asked 15, people like 7 better than 16.
ASKED, RIGHT, WRONG, FILLERS = (3, 4, 15), (5, 6, 7), (6, 5, 16), (8, 14)
LONGEST = 24
FIT = FitConfig(
    steps=100,
    batch_size=64,
    optimizer=OptimizerConfig(learning_rate=1e-2, schedule="linear", warmup_steps=10),
)
TRUNK = RewardSettings(dropout=0.0, fit=FIT)
BAG = dataclasses.replace(TRUNK, pooling="none", bag=True, bag_characters=0, bag_buckets=256)


def pair(asked: int, fillers) -> tuple[TokenRow, TokenRow]:
    """A prompt with the question first, and the right and the wrong answer behind the fillers."""
    prompt = [1, ASKED[asked], *fillers]
    right, wrong = (token_row((prompt, False), ([side[asked], 2], True)) for side in (RIGHT, WRONG))
    return right, wrong


def pairs(count: int, seed: int) -> list[tuple[TokenRow, TokenRow]]:
    """Of all three questions equally many, behind 2 and more fillers."""
    rng = np.random.default_rng(seed)
    return [
        pair(i % 3, rng.integers(*FILLERS, rng.integers(2, LONGEST + 1)).tolist())
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """By what it reads: the run and the reward model, trained on 200 pairs."""
    tokenizer = train_bpe(["the film is good"], 270)
    config = ModelConfig(width=16, layers=1, heads=2, dropout=0.0)
    base = new_text_model(config, tokenizer, jax.random.key(0), max_length=80)
    rows, groups = pairs_as_groups(pairs(300, 0), np.zeros(300, np.float32))
    with open_run(tmp_path_factory.mktemp("run"), FIT, PlaceConfig(layout="device"), 0) as run:
        yield {
            name: (run, train_reward(run, name, base, rows, groups=groups, settings=settings)[0])
            for name, settings in (("trunk", TRUNK), ("bag", BAG))
        }


@pytest.mark.slow
def test_whether_it_answers_is_learned_by_the_transformer_and_not_by_a_bag(trained):
    """A bag adds up the weights of question and answer: of two questions it gets one right."""
    held_out = [both for i, both in enumerate(pairs(150, 1)) if i % 3 < 2]
    alone = np.arange(len(held_out))
    found = {name: pair_accuracy(*of, held_out, blocks=alone) for name, of in trained.items()}
    assert found["trunk"]["pair_accuracy"] > 0.9
    assert found["bag"]["pair_accuracy"] < 0.65


@pytest.mark.slow
def test_a_difference_of_answers_does_not_shrink_with_the_prompt(trained):
    """The same liked and disliked answer behind short and long prompts."""
    rng = np.random.default_rng(2)
    shrinks = {}
    for name, (run, model) in trained.items():
        differences = []
        for length in (2, LONGEST):
            asked = [pair(2, some) for some in rng.integers(*FILLERS, (16, length)).tolist()]
            scores = score_rows(run, model, [row for both in asked for row in both])
            differences.append(-np.diff(scores.reshape(-1, 2)).mean())
        assert min(differences) > 0  # both know what people like
        shrinks[name] = differences[1] / differences[0]
    assert shrinks["trunk"] > 0.8
    assert shrinks["bag"] < 0.6  # (6 / 28) ** 0.4 = 0.54: terms grow with the prompt


def test_users_preferences_are_read_by_the_transformer_unless_they_say_otherwise():
    settings = RewardConfig().reward
    assert (settings.pooling, settings.bag, settings.trunk) == ("last", False, "trained")
