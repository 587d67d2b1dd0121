"""`jaxalign ppo`: PPO of a text policy against reward models and functions; on a control task; on
images.
"""

from pathlib import Path

from jaxalign.config.control import ControlConfig
from jaxalign.config.images import ImagesConfig
from jaxalign.config.ppo import TextPPOConfig
from jaxalign.recipes import control, images
from jaxalign.recipes.adapters import with_adapters
from jaxalign.recipes.iterations import finish_rounds, inputs_of_rounds, models_and_prompts
from jaxalign.recipes.ppo import train_ppo
from jaxalign.recipes.run import open_run


def run(config: TextPPOConfig | ControlConfig | ImagesConfig, directory: Path) -> dict:
    """Train, save what was trained, write the report; returns what `results.json` holds."""
    match config:
        case ControlConfig():
            return control.run(config, directory)
        case ImagesConfig():
            return images.run(config, directory)
        case TextPPOConfig():
            return run_text(config, directory)


def run_text(config: TextPPOConfig, directory: Path) -> dict:
    """The same on text; `model` is the trained policy."""
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
