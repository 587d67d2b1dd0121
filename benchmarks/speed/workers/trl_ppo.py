"""TRL's PPO (`trl.experimental.ppo`, in TRL up to 1.15): policy, value, reference, reward model."""

import tempfile
import warnings

from datasets import Dataset
from transformers import TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer

from benchmarks.speed.pace import Pace
from benchmarks.speed.work import EPOCHS, Size, Work, rows_of
from benchmarks.speed.workers.arguments import parse
from benchmarks.speed.workers.torch_models import causal, classifier, tokenizer

warnings.simplefilter("ignore")


class Paced(TrainerCallback):
    """The trainer tells of the end of every round."""

    def __init__(self, pace: Pace):
        self.pace = pace

    def on_step_end(self, args, state, control, **more):
        self.pace()


def trainer_of(work: Work, size: Size) -> PPOTrainer:
    rows = rows_of(work, size, 16 * work.rows)
    config = PPOConfig(
        output_dir=tempfile.mkdtemp(prefix="speed-"),
        per_device_train_batch_size=work.rows,
        gradient_accumulation_steps=1,
        num_mini_batches=1,
        num_ppo_epochs=EPOCHS,
        total_episodes=work.rows * 1_000_000,
        local_rollout_forward_batch_size=work.rows,
        response_length=work.response,
        num_sample_generations=0,
        temperature=1.0,
        learning_rate=1e-5,
        max_grad_norm=1.0,
        report_to="none",
        save_strategy="no",
        logging_steps=1_000_000,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
    )
    return PPOTrainer(
        args=config,
        processing_class=tokenizer(size),
        model=causal(size, work.length),
        ref_model=causal(size, work.length),
        reward_model=classifier(size, work.length),
        value_model=classifier(size, work.length),
        train_dataset=Dataset.from_dict({"input_ids": [row[: work.prompt] for row in rows]}),
    )


def main() -> None:
    work, size, _ = parse()
    trainer = trainer_of(work, size)
    trainer.add_callback(Paced(Pace(warm_up=2)))
    trainer.train()


if __name__ == "__main__":
    main()
