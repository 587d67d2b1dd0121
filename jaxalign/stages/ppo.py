"""`jaxalign ppo` on text: PPO of a policy against a reward model, on a user's prompts."""

from pathlib import Path

import numpy as np

from jaxalign.config import TextPPOConfig
from jaxalign.data.records import Prompt
from jaxalign.errors import UserError
from jaxalign.stages.run import open_run
from jaxalign.stages.sft import finish
from jaxalign.stages.text_models import TextModel, load_text_model
from jaxalign.stages.text_ppo import train_ppo
from jaxalign.stages.user_data import fitting, read_records, token_rows
from jaxalign.train.metrics import read_metrics

ROUNDS = 10
LAST_ROUNDS = f"Means of the last {ROUNDS} logged rounds of training."
SHARED = {  # how two models come to have one vocabulary
    "reward": "train the reward model with --init set to the policy's run directory",
    "teacher": "train the student by `jaxalign sft` on the teacher's texts with its --tokenizer "
    "settings, or with --init set to the teacher's run directory",
}


def run(config: TextPPOConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    policy = load_text_model(config.policy, "policy", head="logits")
    reward = load_text_model(config.reward, "reward", head="score")
    check_same_vocabulary(policy, reward)
    data = fitting(config.data, policy)
    records = read_records(data, Prompt, tokenizer=policy.tokenizer, log=directory)
    prompts = [row.tokens.tolist() for (row,) in token_rows(records, policy.tokenizer)]
    check_room(policy, max(map(len, prompts)), config.max_new_tokens)
    with open_run(directory, config, config.place, config.seed) as run:
        trained = train_ppo(
            run,
            "ppo",
            policy,
            reward,
            prompts,
            config.ppo,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
        )
        row = {"method": "PPO", **last_rounds(directory, "ppo")}
        return finish(run, trained, row, notes=[LAST_ROUNDS])


def last_rounds(directory: Path, stage: str) -> dict[str, float]:
    """What the samples of the last logged rounds were like, on average."""
    columns = {
        "reward_score": "scores/mean",
        "kl": "kl/reference",
        "length": "response/length",
        "ended": "response/ended",
    }
    last = [line for line in read_metrics(directory) if line["stage"] == stage][-ROUNDS:]
    return {
        column: float(np.mean([line[metric] for line in last]))
        for column, metric in columns.items()
    }


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
