"""`jaxalign kto`: a policy from responses labelled good or bad, by KTO or another such loss."""

import dataclasses
from pathlib import Path

import numpy as np

from jaxalign.config.defaults import following
from jaxalign.config.kto import KTOConfig
from jaxalign.data.records import Unpaired
from jaxalign.evaluation.bootstrap import prompt_blocks
from jaxalign.recipes.accuracy import label_accuracy
from jaxalign.recipes.adapters import with_adapters
from jaxalign.recipes.finish import finish
from jaxalign.recipes.inputs import inputs_of
from jaxalign.recipes.preferences import train_unpaired
from jaxalign.recipes.reference_cache import kept_of
from jaxalign.recipes.run import open_run
from jaxalign.recipes.text_models import load_text_model, start_of
from jaxalign.recipes.user_data import fitting, read_records, token_rows


def run(config: KTOConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    policy = load_text_model(config.policy, "policy", head="logits", place=config.place)
    fit = following(config.kto.fit, "kto", start_of(policy, config.lora))
    data = fitting(config.data, policy)
    records = read_records(data, Unpaired, tokenizer=policy.tokenizer, log=directory)
    rows = [row for (row,) in token_rows(records, policy.tokenizer)]
    labels = [record.label for record in records]
    held_out = []
    if data.evaluation_path:
        held_out = read_records(
            data, Unpaired, tokenizer=policy.tokenizer, log=directory, held_out=True
        )
    settled = fit.settled(len(rows) / fit.settings.rows)
    config = dataclasses.replace(config, kto=dataclasses.replace(config.kto, fit=settled))
    inputs = inputs_of(
        models={"policy": policy}, data=records, held_out=held_out, adapter=config.adapter
    )
    with open_run(directory, config, config.place, config.seed, inputs=inputs) as run:
        policy = with_adapters(policy, config.adapter, config.lora, run.key("lora"))
        shared = {"temperature": config.temperature, "score_reference": kept_of(config)}
        trained = train_unpaired(run, "kto", policy, rows, labels, config.kto, **shared)
        scorers = []
        if held_out:
            accuracy = label_accuracy(
                run,
                trained,
                policy,
                [row for (row,) in token_rows(held_out, policy.tokenizer)],
                np.array([record.label for record in held_out]),
                blocks=prompt_blocks([record.prompt for record in held_out]),
                **shared,
            )
            scorers = [{"scorer": "sign of the policy's implicit reward", **accuracy}]
        return finish(run, trained, {"method": f"KTO ({config.kto.loss})"}, reward_model=scorers)
