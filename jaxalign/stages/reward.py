"""`jaxalign reward`: a Bradley-Terry reward model from a user's preferences."""

from pathlib import Path

import numpy as np

from jaxalign.config import RewardConfig
from jaxalign.data.chat import TokenRow
from jaxalign.data.preferences import Groups
from jaxalign.data.records import Preference
from jaxalign.evaluation.bootstrap import mean_estimate
from jaxalign.stages.run import Run, open_run
from jaxalign.stages.sft import finish
from jaxalign.stages.text_models import TextModel, load_text_model, new_text_model
from jaxalign.stages.training import score_rows, train_reward
from jaxalign.stages.user_data import fitting, learn_tokenizer, read_records, token_rows


def run(config: RewardConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    base = load_text_model(config.init, "init", head="logits") if config.init else None
    data = fitting(config.data, base)
    if base is None:
        records = read_records(data, Preference, tokenizer=None, log=directory)
        tokenizer = learn_tokenizer(config.tokenizer, records)
    else:
        tokenizer = base.tokenizer
    records = read_records(data, Preference, tokenizer=tokenizer, log=directory)
    rows, groups = pairs_as_groups(token_rows(records, tokenizer))
    held_out = []
    if data.evaluation_path:
        records = read_records(data, Preference, tokenizer=tokenizer, log=directory, held_out=True)
        held_out = token_rows(records, tokenizer)
    with open_run(directory, config, config.place, config.seed) as run:
        if base is None:
            base = new_text_model(
                config.model, tokenizer, config.data.max_length, ("logits",), run.key("init")
            )
        trained, _ = train_reward(run, "reward", base, rows, groups, config.reward)
        row = {"method": "reward model"}
        scorers = []
        if held_out:
            scorers = [{"scorer": "reward model", **pair_accuracy(run, trained, held_out)}]
        return finish(run, trained, row, reward_model=scorers)


def pairs_as_groups(pairs: list[tuple[TokenRow, ...]]) -> tuple[list[TokenRow], Groups]:
    """Every pair as a group of two texts, of which everybody preferred the first."""
    rows = [row for pair in pairs for row in pair]
    first_wins = np.array([[0.0, 1.0], [0.0, 0.0]], np.float32)
    return rows, Groups(
        np.arange(len(rows)).reshape(-1, 2), np.tile(first_wins, (len(pairs), 1, 1))
    )


def pair_accuracy(run: Run, reward: TextModel, pairs: list[tuple[TokenRow, ...]]) -> dict:
    """Share of pairs whose chosen side scores higher, ties half, with a 95% bootstrap interval."""
    scores = score_rows(run, reward, [row for pair in pairs for row in pair]).reshape(-1, 2)
    right = 0.5 + 0.5 * np.sign(scores[:, 0] - scores[:, 1])
    return mean_estimate(right).columns("pair_accuracy")
