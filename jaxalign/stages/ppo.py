"""`jaxalign ppo` on text: PPO of a policy on a user's prompts, against models and functions."""

from pathlib import Path

from jaxalign.config import TextPPOConfig
from jaxalign.stages.adapters import with_adapters
from jaxalign.stages.run import open_run
from jaxalign.stages.text_ppo import train_ppo
from jaxalign.stages.text_rounds import finish_rounds, inputs_of_rounds, models_and_prompts


def run(config: TextPPOConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    config, policy, sources, prompts, records = models_and_prompts(config, directory)
    inputs = inputs_of_rounds(config, policy, sources, records or prompts)
    with open_run(directory, config, config.place, config.seed, inputs=inputs) as run:
        policy = with_adapters(policy, config.adapter, config.lora, run.key("lora"))
        trained = train_ppo(
            run,
            "ppo",
            policy,
            sources,
            prompts,
            config.ppo,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            records=records,
        )
        return finish_rounds(run, trained, "ppo", method="PPO")
