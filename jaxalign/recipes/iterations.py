"""What online methods on text share: rounds of sampling from prompts, scored by their judges."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxalign.batches.tokens import TokenBatch
from jaxalign.config.data import DataConfig
from jaxalign.config.defaults import following
from jaxalign.config.grpo import GRPOConfig, GRPOSettings
from jaxalign.config.loop import FitConfig
from jaxalign.config.online import OnlineConfig
from jaxalign.config.ppo import PPOSettings, TextPPOConfig
from jaxalign.data.batching import batch_indices, prompt_batch
from jaxalign.data.records import Prompt, PromptRow
from jaxalign.data.same_tokenizer import difference
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import UserError
from jaxalign.recipes.finish import finish
from jaxalign.recipes.inputs import Digest, inputs_of
from jaxalign.recipes.reward_functions import is_function
from jaxalign.recipes.reward_sources import (
    RewardSource,
    check_fields,
    has_functions,
    load_sources,
    mean_score,
)
from jaxalign.recipes.run import Run
from jaxalign.recipes.text_models import TextModel, load_text_model, start_of
from jaxalign.recipes.user_data import fitting, read_records, token_rows
from jaxalign.train.loop import fit
from jaxalign.train.metrics import logged

RoundsConfig = TypeVar("RoundsConfig", TextPPOConfig, GRPOConfig, OnlineConfig)
MEANS = {  # columns of the result: metrics of a round
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


def models_and_prompts(
    config: RoundsConfig, directory: Path
) -> tuple[
    RoundsConfig, TextModel, tuple[RewardSource, ...], list[list[int]], list[PromptRow] | None
]:
    """The configuration with its training loop settled, policy, what judges it, the prompts as
    token ids, and (for functions) as rows: all fit.
    """
    policy = load_text_model(config.policy, "policy", head="logits", place=config.place)
    loop = following(settings_of(config), loop_of(config), start_of(policy, config.lora))
    sources = load_sources(config.reward, config.rewards, place=config.place)
    models = [source.judge for source in sources if not is_function(source.judge)]
    for model in models:
        check_same_vocabulary(policy, model, "rewards" if config.rewards else "reward")
    data = fitting(config.data, policy)
    prompts, records = read_prompts(data, sources, policy.tokenizer, log=directory)
    for model in (policy, *models):
        check_room(model, max(map(len, prompts)), config.max_new_tokens)
    config = with_settings(config, loop.settled(len(prompts) / prompts_of_a_round(loop.settings)))
    return config, policy, sources, prompts, records


def prompts_of_a_round(settings: PPOSettings | GRPOSettings | FitConfig) -> int:
    """How many prompts are dealt out for one round, or one step, of sampling."""
    if isinstance(settings, FitConfig):
        return settings.rows
    return settings.prompts if isinstance(settings, GRPOSettings) else settings.batch_size


def loop_of(config: TextPPOConfig | GRPOConfig | OnlineConfig) -> str:
    """The command of such a configuration, which is the name of its section too."""
    return {TextPPOConfig: "ppo", GRPOConfig: "grpo", OnlineConfig: "online"}[type(config)]


def settings_of(config: TextPPOConfig | GRPOConfig | OnlineConfig) -> Any:
    """The settings of its training loop."""
    section = getattr(config, loop_of(config))
    return section.fit if isinstance(config, OnlineConfig) else section


def with_settings(config: RoundsConfig, settings: Any) -> RoundsConfig:
    """The configuration with other settings of its training loop."""
    if isinstance(config, OnlineConfig):
        settings = dataclasses.replace(config.online, fit=settings)
    return dataclasses.replace(config, **{loop_of(config): settings})


def inputs_of_rounds(
    config: TextPPOConfig | GRPOConfig | OnlineConfig,
    policy: TextModel,
    sources: Sequence[RewardSource],
    prompts: Sequence[Any],
) -> dict[str, Digest]:
    """What identifies the inputs of a run, of its prompts as token ids or as rows."""
    named = list(config.rewards or {config.reward: 1.0})
    rewards = [(name, s.weight, s.judge) for name, s in zip(named, sources, strict=True)]
    return inputs_of(
        models={"policy": policy}, data=prompts, adapter=config.adapter, rewards=rewards
    )


def read_prompts(
    data: DataConfig, sources: Sequence[RewardSource], tokenizer: Tokenizer, *, log: Path | None
) -> tuple[list[list[int]], list[PromptRow] | None]:
    """The prompts as token ids and, where functions judge the responses, as rows with all that the
    functions need; `log` as in `read_records`.
    """
    rows = None
    if has_functions(sources):
        records = rows = read_records(data, PromptRow, tokenizer=tokenizer, log=log)
        check_fields(sources, rows, data.path)
    else:
        records = read_records(data, Prompt, tokenizer=tokenizer, log=log)
    return [row.tokens.tolist() for (row,) in token_rows(records, tokenizer)], rows


def prompt_batches(
    run: Run, prompts: Sequence[Sequence[int]], pad_id: int, *, size: int, repeats: int = 1
) -> Callable[[int], tuple[TokenBatch, np.ndarray]]:
    """`round -> (TokenBatch, numbers)`: `size` prompts in random order, each in `repeats` rows in a
    row, and `[B]` which of the prompts they are.
    """
    length = max(map(len, prompts), default=0)

    def batch(number: int) -> tuple[TokenBatch, np.ndarray]:
        index = np.repeat(batch_indices(number, len(prompts), size, run.seed), repeats)
        chosen = [prompts[i] for i in index]
        rows = prompt_batch(chosen, pad_id=pad_id, length=length, index=np.arange(len(index)))
        return rows, index

    return batch


def rounds_left(run: Run, name: str, rounds: int) -> int:
    """How many of the rounds (or steps) a run has to do that an earlier one may have begun."""
    return rounds - max(run.checkpoints(name).steps(), default=0)


def fit_rounds(
    run: Run,
    name: str,
    state,
    iterate: Callable[[Any, tuple[TokenBatch, np.ndarray]], tuple[Any, dict]],
    batches: Callable[[int], tuple[TokenBatch, np.ndarray]],
    settings: PPOSettings | GRPOSettings,
    *,
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    evaluate_every: int | None = None,
):
    """The state after all rounds, resuming where an earlier run of this stage stopped.

    Args:
      name: of the stage, in metrics, checkpoints and progress.
      state: at the start.
      iterate: one round of sampling and learning.
      batches: prompts of a round, and which they are.
      settings: number of rounds, and when they are logged and saved.
      evaluate: metrics of a state, every `evaluate_every` rounds.
    """
    checkpoints = run.checkpoints(name)
    state = fit(
        run.layout.place(state),
        iterate,
        batches,
        steps=settings.total_iterations,
        on_metrics=functools.partial(run.metrics.write, name),
        on_start=functools.partial(run.metrics.resume, name),
        log_every=settings.log_every,
        checkpoints=checkpoints,
        checkpoint_every=settings.checkpoint_every,
        evaluate=evaluate,
        evaluate_every=evaluate_every,
        label=name,
    )
    checkpoints.close()
    return state


def finish_rounds(
    run: Run, trained: TextModel, name: str, *, method: str, notes: Sequence[str] = ()
) -> dict:
    """Save the model and report the means of the last rounds, with more notes."""
    means = {
        key: mean_score(np.array(list(logged(run.directory, name, metric).values())[-10:]))
        for key, metric in MEANS.items()
    }
    notes = ["Means of the last 10 logged rounds of training.", *notes]
    return finish(run, trained, {"method": method, **means}, notes=notes)


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
    """The longest prompt and response together must fit the model."""
    if prompt + max_new_tokens > policy.max_length:
        raise UserError(
            f"a prompt of {prompt} tokens and max_new_tokens {max_new_tokens} exceed the model's "
            f"length {policy.max_length}; lower --max_new_tokens or --data.max_length"
        )
