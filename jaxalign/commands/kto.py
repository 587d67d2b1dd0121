"""`jaxalign kto`: a policy from responses labelled good or bad, by KTO or another such loss."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxalign.config.defaults import following
from jaxalign.config.kto import KTOConfig
from jaxalign.data.records import Unpaired
from jaxalign.evaluation.bootstrap import mean_estimate, prompt_blocks
from jaxalign.recipes.adapters import with_adapters
from jaxalign.recipes.finish import finish
from jaxalign.recipes.inputs import inputs_of
from jaxalign.recipes.preferences import train_unpaired
from jaxalign.recipes.reference_cache import kept_of
from jaxalign.recipes.run import Run, open_run
from jaxalign.recipes.scoring import response_logps
from jaxalign.recipes.text_models import TextModel, load_text_model, start_of
from jaxalign.recipes.user_data import Rows, fitting, read_held_out, read_rows


def run(config: KTOConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    policy = load_text_model(config.policy, "policy", head="logits", place=config.place)
    fit = following(config.kto.fit, "kto", start_of(policy, config.lora))
    data = fitting(config.data, policy)
    rows = read_rows(data, Unpaired, tokenizer=policy.tokenizer, log=directory)
    labels = [record.label for record in rows.records]
    held_out = read_held_out(data, Unpaired, tokenizer=policy.tokenizer, log=directory)
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
        shared = {"temperature": config.temperature, "score_reference": kept_of(config)}
        trained = train_unpaired(run, "kto", policy, rows.texts, labels, config.kto, **shared)
        scorers = []
        if len(held_out):
            accuracy = label_accuracy(run, trained, policy, held_out, **shared)
            scorers = [{"scorer": "sign of the policy's implicit reward", **accuracy}]
        return finish(run, trained, {"method": f"KTO ({config.kto.loss})"}, reward_model=scorers)


def label_accuracy(
    run: Run,
    policy: TextModel,
    reference: TextModel,
    rows: Rows[Unpaired],
    *,
    temperature: float,
    score_reference: Callable[..., np.ndarray] = response_logps,
) -> dict:
    """Share of responses that the policy made likelier if labelled good, less likely if bad, with
    its interval.

    Args:
      score_reference: `response_logps`, or one that keeps what it computes.
    """
    policy_logps = response_logps(run, policy, rows.texts, temperature=temperature)
    change = policy_logps - score_reference(run, reference, rows.texts, temperature=temperature)
    wanted = np.array([1 if record.label else -1 for record in rows.records])
    blocks = prompt_blocks([record.prompt for record in rows.records])
    right = 0.5 + 0.5 * wanted * np.sign(change)
    return mean_estimate(right, blocks=blocks).columns("pair_accuracy")
