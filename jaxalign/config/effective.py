"""Effective defaults: what a field is where nothing is given, for each kind of model.

`defaults.py` fills in what follows the model, and a loss's declaration its hyper-parameters; here
both are asked before there is a model, for the help.
"""

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxalign.config.defaults import FLAGS, Start, following, reward_loop
from jaxalign.config.distill import DistillSettings
from jaxalign.config.dpo import DPOSettings
from jaxalign.config.explain import ExplainConfig
from jaxalign.config.grpo import GRPOSettings
from jaxalign.config.kto import KTOSettings
from jaxalign.config.loop import FitConfig
from jaxalign.config.names import part_name
from jaxalign.config.online import OnlineSettings
from jaxalign.config.ppo import PPOSettings
from jaxalign.config.reward import RewardConfig, RewardSettings
from jaxalign.losses.declarations import Loss
from jaxalign.losses.group_methods import PARTS, GroupMethod

WITH_LOSS = (DPOSettings, KTOSettings, OnlineSettings, DistillSettings, RewardSettings)
LOOPS = (FitConfig, PPOSettings, GRPOSettings)


def values_of(settings: Any, name: str) -> dict[str, Any]:
    """Values of a field by the kind of model that they hold for, the most usual kind first.

    >>> from jaxalign.config.dpo import DPOConfig
    >>> values_of(DPOConfig(), "dpo.fit.optimizer.learning_rate")
    {'': 1e-06, 'with LoRA': 1e-05, 'small models': 0.0003}
    >>> values_of(DPOConfig(dpo=DPOSettings(loss="simpo")), "dpo.beta")
    {'': 2.0}
    """
    section = name.rpartition(".")[0]
    block = operator.attrgetter(section)(settings) if section else settings
    last, method = name.rpartition(".")[2], method_of(block)
    if method is not None and last in method.hyperparameters:
        return {"": method.hyperparameters[last]}
    if isinstance(method, GroupMethod) and last in PARTS:
        return {"": part_name(last, getattr(method, last))}
    starts = starts_of(settings)
    if name == "data.max_length" and settings.data.max_length is None:
        return {kind: start.length for kind, start in starts.items()}
    section, field = _loop_and_field(settings, name)
    if not field:
        return {"": operator.attrgetter(name)(settings)}
    return {kind: _of_loop(settings, section, field, start) for kind, start in starts.items()}


def method_of(block: Any) -> Loss | GroupMethod | None:
    """The chosen loss of a block of settings with what is given; None: it chooses none."""
    if isinstance(block, GRPOSettings):
        return block.method
    return block.declared_loss if isinstance(block, WITH_LOSS) else None


def starts_of(settings: Any) -> Mapping[str, Start]:
    """Kinds of model that training may start from, as far as the settings say it."""
    source = vars(settings).get("policy") or vars(settings).get("init") or ""
    lora = vars(settings).get("lora")
    adapted = lora is not None and lora.rank > 0
    own = {"": Start(published=True, adapters=adapted)}
    if source and not is_run(source):
        return own
    small = {"small models": Start(adapters=adapted)}
    return own | ({} if adapted else {"with LoRA": Start(published=True, adapters=True)}) | small


def is_run(source: str) -> bool:
    """Whether a model is given by a run directory, or a checkpoint of one, `RUN@STEP`."""
    folders = Path(source), Path(source.rpartition("@")[0])
    return any((folder / "versions.json").is_file() for folder in folders)


def _loop_and_field(settings: Any, name: str) -> tuple[str, str]:
    """The section of the training loop that has a field, and the field in it; empty: none has."""
    words = name.split(".")
    for end in range(1, len(words)):
        section = ".".join(words[:end])
        if isinstance(operator.attrgetter(section)(settings), LOOPS):
            return section, ".".join(words[end:])
    return "", ""


def _of_loop(settings: Any, section: str, field: str, start: Start) -> Any:
    """Value of a field of a training loop for one kind of model; a warm-up may be a share."""
    block = operator.attrgetter(section)(settings)
    filled = following(block, _loop_of(settings, section, start), start, flag=section).settings
    if field == "optimizer.warmup_steps" and filled.optimizer.warmup_steps is None:
        return filled.optimizer.warmup_share
    return operator.attrgetter(field)(filled)


def _loop_of(settings: Any, section: str, start: Start) -> str:
    """The row of the tables of defaults for a training loop of a command."""
    if isinstance(settings, ExplainConfig):
        return settings.method
    if isinstance(settings, RewardConfig) and section == "reward.fit":
        return reward_loop(settings.reward, start)
    loops = [loop for loop, flag in FLAGS.items() if flag == section]
    return loops[0] if loops else section


def in_words(values: Mapping[str, Any]) -> str:
    """Values of a field by kind of model as the help shows them; empty: there is none.

    >>> in_words({"": 1e-6, "with LoRA": 1e-5, "small models": 3e-4})
    '1e-6; with LoRA 1e-5; small models 3e-4'
    >>> in_words({"": 64, "with LoRA": 64, "small models": 32}), in_words({"": None, "small": 14})
    ('64; small models 32', 'small 14')
    """
    usual = values[""]
    others = {kind: value for kind, value in values.items() if kind and value != usual}
    shown = {"": usual} | others
    return "; ".join(
        f"{kind} {typed(value)}".strip() for kind, value in shown.items() if typed(value)
    )


def typed(value: Any) -> str:
    """A value as it is typed on the command line; empty for None, no text and no pairs.

    >>> typed(0.00025), typed((0.2, 0.28)), typed(0.1), typed(100000), typed(False)
    ('2.5e-4', '0.2 0.28', '0.1', '100000', 'False')
    """
    if value is None or value in ("", {}, ()):
        return ""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(typed, value))
    if isinstance(value, float):
        if value and abs(value) < 1e-2:
            digits, _, power = f"{value:.6e}".partition("e")
            return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
        return f"{value:g}"
    return str(value)
