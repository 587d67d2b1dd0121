"""What online methods on text share: rounds of sampling from prompts, scored by a reward model."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.batches import TokenBatch
from jaxalign.config import PPOSettings, TextPPOConfig
from jaxalign.config_grpo import GRPOConfig, GRPOSettings
from jaxalign.config_online import OnlineConfig
from jaxalign.data.batching import batch_indices, prompt_batch
from jaxalign.data.records import Prompt
from jaxalign.errors import UserError
from jaxalign.stages.run import Run
from jaxalign.stages.sft import finish
from jaxalign.stages.text_models import TextModel, load_text_model
from jaxalign.stages.user_data import fitting, read_records, token_rows
from jaxalign.train.loop import fit
from jaxalign.train.metrics import read_metrics

MEANS = {  # columns of the result: metrics of a round
    "reward_score": "scores/mean",
    "kl": "kl/reference",
    "length": "response/length",
    "ended": "response/ended",
}
SHARED = {  # how two models come to have one vocabulary
    "reward": "train the reward model with --init set to the policy's run directory",
    "teacher": "train the student by `jaxalign sft` on the teacher's texts with its --tokenizer "
    "settings, or with --init set to the teacher's run directory",
}


def models_and_prompts(
    config: TextPPOConfig | GRPOConfig | OnlineConfig, directory: Path
) -> tuple[TextModel, TextModel, list[list[int]]]:
    """Policy, reward model and the prompts as token ids, all that fit each other."""
    policy = load_text_model(config.policy, "policy", head="logits")
    reward = load_text_model(config.reward, "reward", head="score")
    check_same_vocabulary(policy, reward)
    data = fitting(config.data, policy)
    records = read_records(data, Prompt, tokenizer=policy.tokenizer, log=directory)
    prompts = [row.tokens.tolist() for (row,) in token_rows(records, policy.tokenizer)]
    for model in (policy, reward):
        check_room(model, max(map(len, prompts)), config.max_new_tokens)
    return policy, reward, prompts


def prompt_batches(
    run: Run, prompts: Sequence[Sequence[int]], pad_id: int, *, size: int, repeats: int = 1
) -> Callable[[int], TokenBatch]:
    """`round -> TokenBatch`: `size` prompts in random order, each in `repeats` rows in a row."""
    length = max(map(len, prompts), default=0)

    def batch(number: int) -> TokenBatch:
        index = np.repeat(batch_indices(number, len(prompts), size, run.seed), repeats)
        chosen = [prompts[i] for i in index]
        return prompt_batch(chosen, pad_id=pad_id, length=length, index=np.arange(len(index)))

    return batch


def fit_rounds(
    run: Run,
    name: str,
    state,
    iterate: Callable[[Any, TokenBatch], tuple[Any, dict]],
    batches: Callable[[int], TokenBatch],
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
      batches: prompts of a round.
      settings: number of rounds, and when they are logged and saved.
      evaluate: metrics of a state, every `evaluate_every` rounds.
    """
    checkpoints = run.checkpoints(name)
    state = fit(
        run.layout.place(state),
        iterate,
        batches,
        steps=settings.iterations,
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
    last = [line for line in read_metrics(run.directory) if line["stage"] == name][-10:]
    means = {key: float(np.mean([line[metric] for line in last])) for key, metric in MEANS.items()}
    notes = ["Means of the last 10 logged rounds of training.", *notes]
    return finish(run, trained, {"method": method, **means}, notes=notes)


def check_same_vocabulary(policy: TextModel, other: TextModel, option: str = "reward") -> None:
    """Texts go to the other model as tokens, so both must read the same ones."""
    ours, theirs = (m.tokenizer.backend.get_vocab() for m in (policy, other))
    if ours != theirs:
        raise UserError(f"--policy and --{option} have different vocabularies; {SHARED[option]}")


def check_room(policy: TextModel, prompt: int, max_new_tokens: int) -> None:
    """The longest prompt and response together must fit the model."""
    if prompt + max_new_tokens > policy.max_length:
        raise UserError(
            f"a prompt of {prompt} tokens and max_new_tokens {max_new_tokens} exceed the model's "
            f"length {policy.max_length}; lower --max_new_tokens or --data.max_length"
        )
