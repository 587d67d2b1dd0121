"""`jaxalign ppo`: PPO of a text policy, on a control task, or on images."""

from pathlib import Path

from jaxalign.config.control import ControlConfig
from jaxalign.config.images import ImagesConfig
from jaxalign.config.ppo import TextPPOConfig
from jaxalign.recipes import control, images
from jaxalign.recipes.iterations import finish_iterations, online_inputs
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
    """PPO of a text policy: train, save `model`, write the report."""
    inputs = online_inputs(config, directory)
    config = inputs.config
    with open_run(directory, config, config.place, config.seed, inputs=inputs.digests()) as run:
        trained = train_ppo(run, "ppo", inputs.start(run), inputs.task, settings=config.ppo)
        return finish_iterations(run, trained, "ppo", method="PPO")
