"""`jaxalign online`: a policy trained on pairs of its own samples, compared by their rewards."""

from pathlib import Path

from jaxalign.config.online import OnlineConfig
from jaxalign.recipes.iterations import finish_iterations, online_inputs
from jaxalign.recipes.online import train_online
from jaxalign.recipes.run import open_run

TITLES = {"online_dpo": "online DPO", "xpo": "XPO", "nash_md": "Nash-MD"}


def run(config: OnlineConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    inputs = online_inputs(config, directory)
    config = inputs.config
    title, pair_loss = TITLES[config.online.loss], config.online.pair_loss
    with open_run(directory, config, config.place, config.seed, inputs=inputs.digests()) as run:
        trained = train_online(
            run, "online", inputs.start(run), inputs.task, settings=config.online
        )
        method = title if pair_loss == "dpo" else f"{title} ({pair_loss})"
        return finish_iterations(run, trained, "online", method=method)
