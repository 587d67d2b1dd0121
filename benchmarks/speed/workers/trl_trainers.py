"""TRL's trainers: DPO, SFT, GRPO.

DPO may `--precompute` the reference's log-probabilities, and take a step in as many micro-batches
as ours (`--parts`).
"""

import tempfile
import warnings

from datasets import Dataset, disable_progress_bars
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from benchmarks.speed.pace import Pace
from benchmarks.speed.work import GROUP, PARTS, Size, Work, rows_of
from benchmarks.speed.workers.arguments import parse
from benchmarks.speed.workers.torch_models import causal, text, tokenizer

disable_progress_bars()
warnings.simplefilter("ignore")


class Paced(TrainerCallback):
    """A unit is what lies between two beginnings of a step."""

    def __init__(self, pace: Pace):
        self.pace = pace

    def on_step_begin(self, args, state, control, **more):
        self.pace()


def settings(rows: int) -> dict:
    return {
        "output_dir": tempfile.mkdtemp(prefix="speed-"),
        "per_device_train_batch_size": rows,
        "max_steps": 1_000_000,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1_000_000,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
    }


def dpo(work: Work, size: Size, flags) -> DPOTrainer:
    rows = rows_of(work, size, 16 * work.rows)
    others = rows_of(work, size, 16 * work.rows, 1)
    # one token less: TRL adds the EOS
    data = Dataset.from_dict(
        {
            "prompt": [text(row[: work.prompt]) + " " for row in rows],
            "chosen": [text(row[work.prompt : -1]) for row in rows],
            "rejected": [text(row[work.prompt : -1]) for row in others],
        }
    )
    parts = PARTS[size] if flags.parts else 1
    arguments = settings(work.rows // parts) | {
        "precompute_ref_log_probs": flags.precompute,
        "gradient_accumulation_steps": parts,
    }
    return DPOTrainer(
        model=causal(size, work.length),
        ref_model=causal(size, work.length),
        args=DPOConfig(**arguments, max_length=work.length),
        train_dataset=data,
        processing_class=tokenizer(size),
    )


def sft(work: Work, size: Size, flags) -> SFTTrainer:
    rows = rows_of(work, size, 16 * work.rows)
    data = Dataset.from_dict(
        {
            "prompt": [text(row[: work.prompt]) + " " for row in rows],
            "completion": [text(row[work.prompt : -1]) for row in rows],
        }
    )
    return SFTTrainer(
        model=causal(size, work.length),
        args=SFTConfig(**settings(work.rows), max_length=work.length),
        train_dataset=data,
        processing_class=tokenizer(size),
    )


def grpo(work: Work, size: Size, flags) -> GRPOTrainer:
    rows = rows_of(work, size, 16 * work.rows)

    def reward(completions, **columns) -> list[float]:
        return [float(len(x) % 7) for x in completions]

    model = causal(size, work.length)
    arguments = settings(work.rows) | {
        "num_generations": GROUP,
        "max_completion_length": work.response,
        "generation_kwargs": {"min_new_tokens": work.response},
        "beta": 0.0,
    }
    return GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(**arguments),
        train_dataset=Dataset.from_dict({"prompt": [text(row[: work.prompt]) for row in rows]}),
        processing_class=tokenizer(size),
    )


def main() -> None:
    work, size, flags = parse("--precompute", "--parts")
    trainer = {"dpo": dpo, "sft": sft, "grpo": grpo}[work.kind](work, size, flags)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Paced(Pace(warm_up=2)))
    trainer.train()


if __name__ == "__main__":
    main()
