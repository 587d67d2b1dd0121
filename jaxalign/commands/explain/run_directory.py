"""Settings of `jaxalign explain --run`: models, data and method from a run directory.

The run may be somebody else's. Its own files are data and are read; what else its `config.json`
names is taken only where that runs no code and fetches nothing: a file or folder on this machine.
Functions, and what lies elsewhere, must be given again on the command line.
"""

import dataclasses
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxalign.config.data import DataConfig
from jaxalign.config.dpo import DPOConfig
from jaxalign.config.explain import ExplainConfig
from jaxalign.config.grpo import GRPOConfig
from jaxalign.config.kto import KTOConfig
from jaxalign.config.overrides import changed_fields, restored
from jaxalign.config.ppo import PPOSettings, TextPPOConfig
from jaxalign.config.sft import SFTConfig
from jaxalign.errors import UserError
from jaxalign.pretrained.sources import MODELS_IN_WHEELS
from jaxalign.recipes.reward_functions import FUNCTION
from jaxalign.system.files import exists, quote, read_json, short_path
from jaxalign.train.metrics import logged

KINDS = {  # by a field of theirs, beside that of the data
    "dpo": DPOConfig,
    "kto": KTOConfig,
    "ppo": TextPPOConfig,
    "grpo": GRPOConfig,
    "labelled": SFTConfig,
}
# what may be given beside a run: what is explained of it, and what replaces a source that it names
BESIDE = (
    *("run", "behaviour", "batch", "rows", "updates", "check", "output"),
    *("data", "reference", "reward", "rewards"),
)


def of_run(config: ExplainConfig) -> ExplainConfig:
    """The configuration with models, data and settings of `config.run`, its policy trained.

    Data, reference and rewards that the configuration gives go before those of the run.

    Raises:
      UserError: it is no run that can be explained, or names what is not taken from a run.
    """
    refuse_others(config)
    kind, run = run_config(Path(config.run))
    if run.lora.rank or run.adapter:
        raise UserError(
            f"--run {config.run} trained an adapter or went on from one; explain differentiates "
            f"whole models: give --method, --policy {config.run}, --reference and --data.path"
        )
    data = config.data
    if not data.path:
        data = dataclasses.replace(run.data, evaluation_path="")
        for source in run.data.sources:
            of_this_machine(config.run, source, "data.path", is_local=os.path.exists)
    shared = {"policy": config.run, "data": data, "seed": run.seed}
    if kind is SFTConfig:
        refuse_labels(config.run, labelled=run.labelled)
        updates = dataclasses.replace(config.dpo, fit=run.fit)  # whose optimizer sft reads too
        return refuse_unread(dataclasses.replace(config, method="sft", dpo=updates, **shared))
    reference = config.reference
    if not reference:
        reference = run.policy
        of_this_machine(config.run, reference, "reference")
    shared |= {"reference": reference, "temperature": run.temperature}
    (method,) = (name for name, cls in KINDS.items() if cls is kind)
    if kind in (TextPPOConfig, GRPOConfig):
        shared |= {"max_new_tokens": run.max_new_tokens, **judges(config, run)}
    own = {method: getattr(run, method)}
    if kind is TextPPOConfig:
        own = {"ppo": with_last_coefficient(Path(config.run), run.ppo)}
    return refuse_unread(dataclasses.replace(config, method=method, **own, **shared))


def refuse_others(config: ExplainConfig) -> None:
    """Raise a one-line `UserError` where a setting is given that the run decides."""
    names = changed_fields(config, ExplainConfig, "")
    others = [name for name in names if name.partition(".")[0] not in BESIDE]
    if others:
        raise UserError(
            f"--{others[0]} is that of the run with --run; leave it out, or leave --run out and "
            "give --method, --policy and --data.path"
        )
    if config.data != DataConfig() and not config.data.path:
        raise UserError("--run takes the data of the run; to change them, give --data.path too")


def refuse_unread(config: ExplainConfig) -> ExplainConfig:
    """The configuration of a run, checked to hold nothing that its method does not read.

    Raises:
      UserError: it does.
    """
    if unread := config.unread:
        raise UserError(
            f"--{unread[0]} is given beside --run {short_path(config.run)}, a run of "
            f"{config.method}, which does not read it; leave it out"
        )
    return config


def refuse_labels(run: str, *, labelled: bool) -> None:
    """Raise a one-line `UserError` for a run that imitated only what is labelled good."""
    if labelled:
        raise UserError(
            f"--run {short_path(run)} imitated the responses labelled good, which explain does not "
            f"tell from the others: give --method sft, --policy {run} and --data.path with those"
        )


def with_last_coefficient(run: Path, settings: PPOSettings) -> PPOSettings:
    """Settings with the KL coefficient of the last logged iteration, where there is a target."""
    logged_values = logged(run, "ppo", "kl/coef").values() if settings.kl_target else ()
    return dataclasses.replace(settings, kl_coef=[settings.kl_coef, *logged_values][-1])


def run_config(folder: Path) -> tuple[type, Any]:
    """Configuration of a run and its class, from `config.json`.

    Raises:
      UserError: the directory holds none, one of another command, or one with a wrong value.
    """
    file = folder / "config.json"
    if not exists(file):
        raise UserError(f"--run {short_path(folder)}: no config.json there; give a run directory")
    fields = read_json(file)
    known = [cls for name, cls in KINDS.items() if {name, "data"} <= fields.keys()]
    if not known:
        raise UserError(
            f"--run {short_path(folder)} is no run that explain takes; "
            "those are of sft, dpo, kto, ppo and grpo on text"
        )
    try:
        return known[0], restored(known[0], fields)
    except UserError as error:
        raise UserError(f"{short_path(file)}: {error}") from None


def judges(config: ExplainConfig, run: TextPPOConfig | GRPOConfig) -> dict[str, Any]:
    """Reward fields of the configuration: those given beside the run, else its reward models.

    Raises:
      UserError: the run names a function, whose code is only run where the user gives it, or a
        model that is not on this machine.
    """
    if config.reward or config.rewards:
        return {"reward": config.reward, "rewards": config.rewards}
    quoted = shlex.quote(run.reward)  # of a shell nothing in it means anything
    if run.rewards:
        quoted = " ".join(f"{shlex.quote(name)} {weight:g}" for name, weight in run.rewards.items())
    option, again = ("rewards" if run.rewards else "reward"), quoted
    for source in run.rewards or (run.reward,):
        if FUNCTION.fullmatch(source):
            raise UserError(
                f"--run {short_path(config.run)} names the function {quote(source)}; code that a "
                f"run names is not run: if you trust that file, add --{option} {again}"
            )
        of_this_machine(config.run, source, option, again=again)
    return {"reward": run.reward, "rewards": run.rewards}


def is_local_model(source: str) -> bool:
    """Whether a model lies on this machine, so that nothing is downloaded."""
    return source in MODELS_IN_WHEELS or os.path.exists(source)


def of_this_machine(
    run: str,
    source: str,
    option: str,
    *,
    again: str | None = None,
    is_local: Callable[[str], bool] = is_local_model,
) -> None:
    """Raise a one-line `UserError` unless what a run names is a file or folder here."""
    if not source or is_local(source):
        return
    again = again or shlex.quote(source)
    raise UserError(
        f"--run {short_path(run)} names {quote(source)}, which is no file or folder here; nothing "
        f"is fetched on the word of a run: if you want it, add --{option} {again}"
    )
