"""TRL's trainers, as its documentation has them: LoRA by PEFT, data by `datasets`."""

import argparse

from datasets import load_dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)

from benchmarks.first_result.jobs import ALPHA, GROUP, NEW_TOKENS, RANK, Job
from benchmarks.first_result.reward import plain_words
from benchmarks.first_result.workers.told import mark, parse

METHODS = {
    "dpo": (DPOConfig, DPOTrainer),
    "sft": (SFTConfig, SFTTrainer),
    "reward": (RewardConfig, RewardTrainer),
    "kto": (KTOConfig, KTOTrainer),
    "grpo": (GRPOConfig, GRPOTrainer),
}


class FirstStep(TrainerCallback):
    """Marks the end of the first update."""

    def on_step_end(self, args, state, control, **more):
        if state.global_step == 1:
            mark("first step")


def settings(job: Job, args: argparse.Namespace) -> dict:
    """What is not as TRL has it by default: the numbers of the job, and float32 on a CPU."""
    chosen = {
        "output_dir": str(args.output),
        "per_device_train_batch_size": job.batch,
        "max_steps": job.steps,
        "learning_rate": args.learning_rate,
        "lr_scheduler_type": "linear",
        "logging_steps": 1,
        "report_to": "none",
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,  # memory for time, which ours does not pay either
        "model_init_kwargs": {"dtype": "float32"},
    }
    if job.method == "grpo":
        chosen |= {
            "per_device_train_batch_size": job.batch * GROUP,
            "num_generations": GROUP,
            "max_completion_length": NEW_TOKENS,
            "loss_type": "grpo",
            "beta": 0.0,
        }
    return chosen


def adapters(job: Job) -> LoraConfig:
    kind = {"task_type": "CAUSAL_LM"}
    if job.method == "reward":
        kind = {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}
    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", **kind)


def main() -> None:
    job, args = parse()
    config, trainer_of = METHODS[job.method]
    parts = ("train", "test") if job.held_out else ("train",)
    data = load_dataset(
        "json", data_files={name: str(args.rows / f"{name}.jsonl") for name in parts}
    )
    more = {"reward_funcs": plain_words} if job.method == "grpo" else {}
    trainer = trainer_of(
        model=str(args.model),
        args=config(**settings(job, args)),
        train_dataset=data["train"],
        eval_dataset=data.get("test"),
        peft_config=adapters(job),
        **more,
    )
    trainer.add_callback(FirstStep())
    trainer.train()
    trainer.save_model()
    mark("model")
    if job.held_out:
        print(trainer.evaluate())
        mark("evaluation")


if __name__ == "__main__":
    main()
