"""`jaxalign kto`: a policy trained on responses labelled good or bad, by KTO or a relative."""

import dataclasses
from pathlib import Path

import numpy as np

from jaxalign.config.defaults import following
from jaxalign.config.kto import KTOConfig
from jaxalign.data.records import Unpaired
from jaxalign.evaluation.bootstrap import prompt_blocks
from jaxalign.recipes.accuracy import label_accuracy
from jaxalign.recipes.adapters import with_adapters
from jaxalign.recipes.finish import finish, keep_model
from jaxalign.recipes.held_out import check_held_out
from jaxalign.recipes.inputs import inputs_of
from jaxalign.recipes.preferences import train_unpaired
from jaxalign.recipes.reference_cache import cached_logps_of, once_for_rows
from jaxalign.recipes.run import open_run
from jaxalign.recipes.text_models import load_text_model, start_of
from jaxalign.recipes.user_data import read_split, with_max_length
from jaxalign.system.console import phase


def run(config: KTOConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    policy = load_text_model(config.policy, "policy", head="logits", place=config.place)
    fit = following(config.kto.fit, "kto", start_of(policy, config.lora))
    data = with_max_length(config.data, policy)
    reading = {"tokenizer": policy.tokenizer, "log": directory, "seed": config.seed}
    rows, held_out = read_split(data, Unpaired, **reading)
    check_held_out(config.kto.fit, held_out)
    labels, others = ([record.label for record in part.records] for part in (rows, held_out))
    settled = fit.settled(len(rows) / fit.settings.rows)
    config = dataclasses.replace(config, kto=dataclasses.replace(config.kto, fit=settled))
    inputs = inputs_of(
        models={"policy": policy},
        data=rows.records,
        held_out=held_out.records,
        adapter=config.adapter,
    )
    with open_run(directory, config, config.place, config.seed, inputs=inputs) as run:
        policy = with_adapters(policy, config.adapter, config.lora, run.key("lora"))
        score_reference = once_for_rows(cached_logps_of(config))
        shared = {"temperature": config.temperature, "score_reference": score_reference}
        trained = train_unpaired(
            run,
            "kto",
            policy,
            rows.texts,
            labels=labels,
            settings=config.kto,
            held_out=(held_out.texts, others),
            **shared,
        )
        keep_model(run, trained)
        scorers = []
        if len(held_out):
            with phase("evaluating"):
                accuracy = label_accuracy(
                    run,
                    trained,
                    policy,
                    held_out.texts,
                    labels=np.array(others),
                    blocks=prompt_blocks([record.prompt for record in held_out.records]),
                    **shared,
                )
            scorers = [{"scorer": "sign of the policy's implicit reward", **accuracy}]
        return finish(run, {"method": f"KTO ({config.kto.loss})"}, reward_model=scorers)
