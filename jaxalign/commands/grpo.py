"""`jaxalign grpo`: GRPO or a relative of it on a user's prompts, with models and functions as
rewards.
"""

from pathlib import Path

from jaxalign.config.grpo import GRPOConfig
from jaxalign.config.names import part_name
from jaxalign.losses.group_methods import PARTS, GroupMethod
from jaxalign.recipes.grpo import train_grpo
from jaxalign.recipes.iterations import finish_iterations, online_inputs
from jaxalign.recipes.run import open_run


def run(config: GRPOConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    inputs = online_inputs(config, directory)
    config = inputs.config
    with open_run(directory, config, config.place, config.seed, inputs=inputs.digests()) as run:
        trained = train_grpo(run, "grpo", inputs.start(run), inputs.task, settings=config.grpo)
        loss = config.grpo.loss
        method = "GRPO" if loss == "grpo" else f"GRPO ({loss})"
        notes = [description(config.grpo.method)]
        return finish_iterations(run, trained, "grpo", method=method, notes=notes)


def description(method: GroupMethod) -> str:
    """All parts of a method in a line, by their names on the command line, also those of the loss.

    >>> from jaxalign.losses import SAPO
    >>> description(SAPO)[18:96]
    'positive_temperature 1.0, negative_temperature 1.05, advantages group, aggrega'
    """
    parts = dict(method.hyperparameters)
    parts |= {name: part_name(name, getattr(method, name)) for name in PARTS}
    return (
        f"The method, {method.name}: {', '.join(f'{name} {part}' for name, part in parts.items())}."
    )
