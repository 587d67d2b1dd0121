"""`jaxalign online`: a policy from preferences of a reward model between its own fresh samples."""

from pathlib import Path

from jaxalign.config_online import OnlineConfig
from jaxalign.data.records import Prompt
from jaxalign.stages.ppo import LAST_ROUNDS, check_room, check_same_vocabulary, last_rounds
from jaxalign.stages.run import open_run
from jaxalign.stages.sft import finish
from jaxalign.stages.text_models import load_text_model
from jaxalign.stages.text_online import train_online
from jaxalign.stages.user_data import fitting, read_records, token_rows

TITLES = {"online_dpo": "online DPO", "xpo": "XPO", "nash_md": "Nash-MD"}


def run(config: OnlineConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    policy = load_text_model(config.policy, "policy", head="logits")
    reward = load_text_model(config.reward, "reward", head="score")
    check_same_vocabulary(policy, reward)
    data = fitting(config.data, policy)
    records = read_records(data, Prompt, tokenizer=policy.tokenizer, log=directory)
    prompts = [row.tokens.tolist() for (row,) in token_rows(records, policy.tokenizer)]
    for model in (policy, reward):
        check_room(model, max(map(len, prompts)), config.max_new_tokens)
    title, pair_loss = TITLES[config.online.loss], config.online.pair_loss
    with open_run(directory, config, config.place, config.seed) as run:
        trained = train_online(
            run,
            "online",
            policy,
            reward,
            prompts,
            config.online,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
        )
        method = title if pair_loss == "dpo" else f"{title} ({pair_loss})"
        row = {"method": method, **last_rounds(directory, "online")}
        return finish(run, trained, row, notes=[LAST_ROUNDS])
