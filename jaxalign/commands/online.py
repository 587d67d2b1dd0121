"""`jaxalign online`: a policy from preferences of its judges between its own fresh samples."""

from pathlib import Path

from jaxalign.config.online import OnlineConfig
from jaxalign.recipes.adapters import with_adapters
from jaxalign.recipes.iterations import finish_rounds, inputs_of_rounds, models_and_prompts
from jaxalign.recipes.online import train_online
from jaxalign.recipes.run import open_run

TITLES = {"online_dpo": "online DPO", "xpo": "XPO", "nash_md": "Nash-MD"}


def run(config: OnlineConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    config, policy, sources, prompts, records = models_and_prompts(config, directory)
    title, pair_loss = TITLES[config.online.loss], config.online.pair_loss
    inputs = inputs_of_rounds(config, policy, sources, records or prompts)
    with open_run(directory, config, config.place, config.seed, inputs=inputs) as run:
        policy = with_adapters(policy, config.adapter, config.lora, run.key("lora"))
        trained = train_online(
            run,
            "online",
            policy,
            sources,
            prompts,
            config.online,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            records=records,
        )
        method = title if pair_loss == "dpo" else f"{title} ({pair_loss})"
        return finish_rounds(run, trained, "online", method=method)
