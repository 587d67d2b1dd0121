"""PPO of the fine-tuned model against the reward model, on beginnings of sentences.

jaxalign ppo --config ppo_ratings --output runs/ppo

after `sft_ratings` and `reward_ratings`.

Device: CPU, two cores; 51 s.
Expected over the ten iterations: mean score 0.75 (deviation 1 on the sentences), KL 1.9 nats (seed
0).
"""

from jaxalign.config.data import DataConfig
from jaxalign.config.loop import OptimizerConfig
from jaxalign.config.ppo import PPOSettings, TextPPOConfig


def get_config() -> TextPPOConfig:
    """The policy is the distribution at temperature 0.7."""
    return TextPPOConfig(
        policy="runs/sft",
        reward="runs/reward",
        data=DataConfig(path="data/prompts_train.jsonl", on_bad_row="skip", max_length=20),
        ppo=PPOSettings(
            iterations=10,
            micro_batches=4,
            kl_coef=0.1,
            missing_eos_penalty=0.25,
            optimizer=OptimizerConfig(learning_rate=5e-4, schedule="linear", warmup_steps=0),
        ),
        temperature=0.7,
        max_new_tokens=40,
    )
