"""Inputs and results that all online methods on text share: policy, prompts, reward sources."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from jaxalign.config.data import DataConfig
from jaxalign.config.defaults import following
from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.explain import ExplainConfig
from jaxalign.config.grpo import GRPOConfig, GRPOSettings
from jaxalign.config.loop import FitConfig
from jaxalign.config.online import OnlineConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.config.ppo import PPOSettings, TextPPOConfig
from jaxalign.data.records import Prompt, PromptRow
from jaxalign.data.same_tokenizer import difference
from jaxalign.errors import UserError
from jaxalign.recipes.adapters import with_adapters
from jaxalign.recipes.finish import finish, keep_model
from jaxalign.recipes.inputs import Digest, inputs_of
from jaxalign.recipes.prompts import Prompts
from jaxalign.recipes.reward_functions import is_function
from jaxalign.recipes.reward_sources import (
    RewardSource,
    check_fields,
    has_functions,
    load_sources,
    mean_score,
    sources_of,
)
from jaxalign.recipes.run import Run
from jaxalign.recipes.sampler import TextTask
from jaxalign.recipes.text_models import TextModel, load_text_model, start_of
from jaxalign.recipes.user_data import read_split, with_max_length
from jaxalign.train.metrics import logged

OnlineMethodConfig = TypeVar("OnlineMethodConfig", TextPPOConfig, GRPOConfig, OnlineConfig)
MEANS = {  # columns of the result: metrics of an iteration
    "reward_score": "scores/mean",
    "kl": "kl/reference",
    "length": "response/length",
    "ended": "response/ended",
}
SHARED = {  # how two models come to have one vocabulary
    "reward": "train the reward model with --init set to the policy's run directory",
    "rewards": "train the reward models with --init set to the policy's run directory",
    "reference": "the reference is the policy that training began with",
    "teacher": "train the student by `jaxalign sft` on the teacher's texts with its --tokenizer "
    "settings, or with --init set to the teacher's run directory",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineInputs(Generic[OnlineMethodConfig]):
    """Policy, reward sources and prompts of a command that samples, checked to go together.

    config: with its training loop settled.
    policy: without adapters yet.
    task: prompts, rewards and sampling of the training.
    """

    config: OnlineMethodConfig
    policy: TextModel
    task: TextTask

    def digests(self) -> dict[str, Digest]:
        """Digests of the inputs of the run."""
        config = self.config
        named = list(config.rewards or {config.reward: 1.0})
        sources = sources_of(self.task.reward)
        rewards = [(name, s.weight, s.judge) for name, s in zip(named, sources, strict=True)]
        return inputs_of(
            models={"policy": self.policy},
            data=self.task.prompts.records or self.task.prompts.ids,
            held_out=self.task.held_out.records or self.task.held_out.ids,
            adapter=config.adapter,
            rewards=rewards,
        )

    def start(self, run: Run) -> TextModel:
        """The policy with new or loaded adapters, where the configuration has some."""
        config = self.config
        return with_adapters(self.policy, config.adapter, config.lora, run.key("lora"))


def online_inputs(config: OnlineMethodConfig, directory: Path) -> OnlineInputs[OnlineMethodConfig]:
    """Policy, reward sources and prompts of a command; skipped rows are listed in the directory."""
    policy = load_text_model(config.policy, "policy", head="logits", place=config.place)
    loop = following(settings_of(config), loop_of(config), start_of(policy, config.lora))
    task = text_task(config, policy, place=config.place, log=directory)
    epoch = len(task.prompts) / prompts_of_an_iteration(loop.settings)
    config = with_settings(config, loop.settled(epoch))
    return OnlineInputs(config=config, policy=policy, task=task)


def text_task(
    config: TextPPOConfig | GRPOConfig | OnlineConfig | ExplainConfig | EvaluateConfig,
    policy: TextModel,
    *,
    place: PlaceConfig | None = None,
    log: Path | None = None,
) -> TextTask:
    """Prompts, rewards and sampling that a configuration names, for a policy.

    Args:
      config: names data and rewards, temperature and the longest response.
      policy: reads the prompts.
      place: where reward models are used; None: on the host.
      log: as in `read_rows`.

    Raises:
      UserError: a reward model has another vocabulary, or a text does not fit a model.
    """
    sources = load_sources(config.reward, config.rewards, place=place)
    models = [source.judge for source in sources if not is_function(source.judge)]
    of = "model" if isinstance(config, EvaluateConfig) else "policy"
    for model in models:
        check_same_vocabulary(policy, model, "rewards" if config.rewards else "reward", of=of)
    data = with_max_length(config.data, policy)
    reading = {"tokenizer": policy.tokenizer, "log": log}
    prompts, held_out = read_prompts(data, sources, seed=config.seed, **reading)
    longest = max(prompts.longest, held_out.longest)
    for model in (policy, *models):
        check_room(model, longest, config.max_new_tokens)
    return TextTask(
        prompts=prompts,
        held_out=held_out,
        reward=sources,
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
    )


def prompts_of_an_iteration(settings: PPOSettings | GRPOSettings | FitConfig) -> int:
    """Number of prompts in one iteration, or in one step."""
    if isinstance(settings, FitConfig):
        return settings.rows
    return settings.prompts if isinstance(settings, GRPOSettings) else settings.batch_size


def loop_of(config: TextPPOConfig | GRPOConfig | OnlineConfig) -> str:
    """Name of the command of a configuration, which is that of its section too."""
    return {TextPPOConfig: "ppo", GRPOConfig: "grpo", OnlineConfig: "online"}[type(config)]


def settings_of(config: TextPPOConfig | GRPOConfig | OnlineConfig) -> Any:
    """Settings of a configuration's training loop."""
    section = getattr(config, loop_of(config))
    return section.fit if isinstance(config, OnlineConfig) else section


def with_settings(config: OnlineMethodConfig, settings: Any) -> OnlineMethodConfig:
    """The configuration with other settings of its training loop."""
    if isinstance(config, OnlineConfig):
        settings = dataclasses.replace(config.online, fit=settings)
    return dataclasses.replace(config, **{loop_of(config): settings})


def read_prompts(
    data: DataConfig, sources: Sequence[RewardSource], *, seed: int, **reading: Any
) -> tuple[Prompts, Prompts]:
    """Prompts of a source to train on, and those held out, with their rows where reward functions
    need them; `reading` and `seed` as in `read_split`.
    """
    if not has_functions(sources):
        both = read_split(data, Prompt, seed=seed, **reading)
        first, held_out = (Prompts(ids=[row.tokens for row in rows.texts]) for rows in both)
        return first, held_out
    rows, apart = read_split(data, PromptRow, seed=seed, **reading)
    check_fields(sources, rows.records, data.source)
    if len(apart):
        check_fields(sources, apart.records, data.evaluation_path or data.source)
    first, held_out = (
        Prompts(ids=[row.tokens for row in each.texts], records=each.records)
        for each in (rows, apart)
    )
    return first, held_out


def finish_iterations(
    run: Run, trained: TextModel, name: str, *, method: str, notes: Sequence[str] = ()
) -> dict:
    """Save the model and report the means of the last iterations, with more notes."""
    means = {
        key: mean_score(np.array(list(logged(run.directory, name, metric).values())[-10:]))
        for key, metric in MEANS.items()
    }
    notes = ["Means of the last 10 logged iterations of training.", *notes]
    keep_model(run, trained)
    return finish(run, {"method": method, **means}, notes=notes)


def check_same_vocabulary(
    policy: TextModel, other: TextModel, option: str = "reward", *, of: str = "policy"
) -> None:
    """Texts go to the other model as tokens, so both must make the same ones of a text; `option`
    and `of` gave the two. Special tokens that only the other model has room for do not matter.
    """
    theirs = other.tokenizer.with_ids_below(policy.model.config.vocab_size)
    if differs := difference(policy.tokenizer, theirs):
        raise UserError(
            f"--{of} and --{option} have different vocabularies ({differs}); {SHARED[option]}"
        )


def check_room(policy: TextModel, prompt: int, max_new_tokens: int) -> None:
    """Check that the longest prompt and response together fit the model."""
    if prompt + max_new_tokens > policy.max_length:
        raise UserError(
            f"a prompt of {prompt} tokens and max_new_tokens {max_new_tokens} exceed the model's "
            f"length {policy.max_length}; lower --max_new_tokens or --data.max_length"
        )
