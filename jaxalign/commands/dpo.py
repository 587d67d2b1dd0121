"""`jaxalign dpo`: a policy trained on a user's preferences, by DPO or another pair loss."""

import dataclasses
from pathlib import Path

from jaxalign.config.defaults import following
from jaxalign.config.dpo import DPOConfig
from jaxalign.data.records import GoldPreference, Preference
from jaxalign.evaluation.bootstrap import prompt_blocks
from jaxalign.recipes.accuracy import implicit_accuracy
from jaxalign.recipes.adapters import with_adapters
from jaxalign.recipes.finish import finish, keep_model
from jaxalign.recipes.held_out import check_held_out
from jaxalign.recipes.inputs import inputs_of
from jaxalign.recipes.preferences import train_dpo
from jaxalign.recipes.reference_cache import cached_logps_of, once_for_rows
from jaxalign.recipes.run import open_run
from jaxalign.recipes.text_models import load_text_model, start_of
from jaxalign.recipes.user_data import read_split, with_max_length
from jaxalign.system.console import phase


def run(config: DPOConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    policy = load_text_model(config.policy, "policy", head="logits", place=config.place)
    fit = following(config.dpo.fit, "dpo", start_of(policy, config.lora))
    data = with_max_length(config.data, policy)
    loss = config.dpo.declared_loss
    kind = GoldPreference if loss.needs("gold_logps") else Preference
    reading = {"tokenizer": policy.tokenizer, "log": directory, "seed": config.seed}
    rows, held_out = read_split(data, kind, **reading)
    check_held_out(config.dpo.fit, held_out)
    settled = fit.settled(len(rows) / fit.settings.rows)
    config = dataclasses.replace(config, dpo=dataclasses.replace(config.dpo, fit=settled))
    inputs = inputs_of(
        models={"policy": policy},
        data=rows.records,
        held_out=held_out.records,
        adapter=config.adapter,
    )
    with open_run(directory, config, config.place, config.seed, inputs=inputs) as run:
        score_reference = once_for_rows(cached_logps_of(config))
        policy = with_adapters(policy, config.adapter, config.lora, run.key("lora"))
        trained = train_dpo(
            run,
            "dpo",
            policy,
            rows.tokens,
            settings=config.dpo,
            temperature=config.temperature,
            score_reference=score_reference,
            held_out=held_out.tokens,
        )
        keep_model(run, trained)
        scorers = []
        if len(held_out):
            with phase("evaluating"):
                accuracy = implicit_accuracy(
                    run,
                    trained,
                    policy if config.dpo.uses_reference else None,
                    [pair[:2] for pair in held_out.tokens],
                    blocks=prompt_blocks([record.prompt for record in held_out.records]),
                    temperature=config.temperature,
                    per_token=loss.per_token,
                    ld_alpha=config.dpo.ld_alpha,
                    score_reference=score_reference,
                )
            scorers = [{"scorer": "implicit reward of the policy", **accuracy}]
        return finish(
            run,
            {"method": "DPO" if loss.name == "dpo" else f"DPO ({loss.name})"},
            reward_model=scorers,
        )
