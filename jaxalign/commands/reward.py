"""`jaxalign reward`: a reward model trained on preferences, rankings or labelled steps."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.config.defaults import Following, following, reward_loop
from jaxalign.config.loop import FitConfig
from jaxalign.config.reward import RewardConfig
from jaxalign.data.chat import TokenRow
from jaxalign.data.preferences import Groups, pairs_as_groups
from jaxalign.data.records import MarginPreference, Ranking, Stepwise
from jaxalign.evaluation.bootstrap import prompt_blocks
from jaxalign.losses.bradley_terry import BRADLEY_TERRY
from jaxalign.losses.declarations import COMPARISONS, RANKINGS, STEPS, Kind
from jaxalign.recipes.accuracy import pair_accuracy
from jaxalign.recipes.adapters import with_adapters
from jaxalign.recipes.finish import finish, keep_model
from jaxalign.recipes.held_out import check_held_out
from jaxalign.recipes.inputs import inputs_of
from jaxalign.recipes.process_reward import (
    Solutions,
    step_accuracy,
    step_chances,
    train_process,
)
from jaxalign.recipes.rankings import ranking_accuracy, train_ranking
from jaxalign.recipes.reward import train_reward
from jaxalign.recipes.run import Run, open_run
from jaxalign.recipes.text_models import TextModel, load_text_model, new_text_model, start_of
from jaxalign.recipes.user_data import (
    Rows,
    learn_tokenizer,
    read_split,
    read_texts,
    with_max_length,
)
from jaxalign.system.console import phase

# What a loss learns from: the records of its rows.
RECORDS = {COMPARISONS: MarginPreference, RANKINGS: Ranking, STEPS: Stepwise}


def run(config: RewardConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    base = (
        load_text_model(config.init, "init", head="logits", place=config.place)
        if config.init
        else None
    )
    loop = following_model(config, base)
    loss = config.reward.declared_loss
    data, kind = with_max_length(config.data, base), RECORDS[loss.kind]
    if base is None:
        tokenizer = learn_tokenizer(config.tokenizer, read_texts(data, kind, seed=config.seed))
    else:
        tokenizer = base.tokenizer
    reading = {"tokenizer": tokenizer, "log": directory, "seed": config.seed}
    rows, held_out = read_split(data, kind, **reading)
    check_held_out(config.fit, held_out)
    texts = len(rows) * (2 if loss.kind is COMPARISONS else 1)
    config = with_loop(config, loop.settled(texts / loop.settings.rows))
    inputs = inputs_of(
        models={"init": base},
        tokenizer=tokenizer,
        data=rows.records,
        held_out=held_out.records,
        adapter=config.adapter,
    )
    with open_run(directory, config, config.place, config.seed, inputs=inputs) as run:
        if base is None:
            base = new_text_model(config.model, tokenizer, run.key("init"), max_length=data.longest)
        base = with_adapters(base, config.adapter, config.lora, run.key("lora"))
        trained, facts = train(run, base, (rows, held_out), config)
        method = "reward model"
        if loss.name != BRADLEY_TERRY.name:
            method += f" ({loss.name})"
        keep_model(run, trained)
        scorers = []
        if len(held_out):
            with phase("evaluating"):
                measured = accuracy(run, trained, held_out, loss.kind)
            scorers = [{"scorer": method, **measured}]
        return finish(run, {"method": method, **facts}, reward_model=scorers)


def following_model(config: RewardConfig, base: TextModel | None) -> Following:
    """Training loop of the chosen loss, with defaults for the model."""
    start = start_of(base, config.lora)
    if config.scores_steps:
        return following(config.process.fit, "process", start)
    return following(config.reward.fit, reward_loop(config.reward, start), start)


def with_loop(config: RewardConfig, fit: FitConfig) -> RewardConfig:
    """The configuration with another training loop of the chosen loss."""
    if config.scores_steps:
        return dataclasses.replace(config, process=dataclasses.replace(config.process, fit=fit))
    return dataclasses.replace(config, reward=dataclasses.replace(config.reward, fit=fit))


def train(
    run: Run, base: TextModel, rows_and_held_out: tuple[Rows, Rows], config: RewardConfig
) -> tuple[TextModel, dict[str, float]]:
    """The reward model trained by the chosen loss, and numbers for its row of results."""
    loss, (rows, held_out) = config.reward.declared_loss, rows_and_held_out
    if loss.kind is STEPS:
        solutions, others = (
            Solutions(rows=part.texts, labels=[record.labels for record in part.records])
            for part in rows_and_held_out
        )
        shared = {"loss": loss, "settings": config.process, "held_out": others}
        return train_process(run, "reward", base, solutions, **shared), {}
    if loss.kind is RANKINGS:
        shared = {"settings": config.reward, "held_out": held_out.tokens}
        return train_ranking(run, "reward", base, rows.tokens, **shared), {}
    texts, groups = comparisons(rows)
    others = comparisons(held_out) if len(held_out) else None
    trained, deviation = train_reward(
        run, "reward", base, texts, groups=groups, settings=config.reward, held_out=others
    )
    return trained, {"log_odds_per_score": deviation}


def comparisons(rows: Rows) -> tuple[list[TokenRow], Groups]:
    """The texts of preferences, and each pair as a group of two."""
    margins = np.array([record.margin for record in rows.records], np.float32)
    return pairs_as_groups(rows.tokens, margins)


def accuracy(run: Run, trained: TextModel, rows: Rows, kind: Kind) -> dict[str, Any]:
    """Accuracy of the reward model on held-out rows of the kind that it was trained on."""
    blocks = prompt_blocks([record.prompt for record in rows.records])
    if kind is STEPS:
        chances = step_chances(run, trained, rows.texts)
        return step_accuracy(chances, [record.labels for record in rows.records], blocks=blocks)
    if kind is RANKINGS:
        return ranking_accuracy(run, trained, rows.tokens, blocks=blocks)
    return pair_accuracy(run, trained, rows.tokens, blocks=blocks)
