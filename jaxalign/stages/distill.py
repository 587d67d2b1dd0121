"""`jaxalign distill`: a student from a teacher's distributions, on data and on its own samples."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.config_distill import DistillConfig
from jaxalign.data.records import PromptCompletion
from jaxalign.stages.ppo import check_room, check_same_vocabulary
from jaxalign.stages.run import open_run
from jaxalign.stages.sft import finish
from jaxalign.stages.text_distill import prompts_of, train_distillation
from jaxalign.stages.text_models import load_text_model
from jaxalign.stages.training import perplexity
from jaxalign.stages.user_data import fitting, read_records, token_rows
from jaxalign.train.metrics import read_metrics

TITLES = {"forward_kl": "forward KL", "reverse_kl": "reverse KL", "jsd": "JSD"}
UNIT = "nats a token, averaged over the tokens of a response, then over responses"
IN_TRAINING = f"Divergence from the teacher: {UNIT}; mean of the last 10 logged batches."
HELD_OUT = f"Divergence from the teacher on the held-out rows: {UNIT}."


def run(config: DistillConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    student = load_text_model(config.policy, "policy", head="logits")
    teacher = load_text_model(config.teacher, "teacher", head="logits")
    check_same_vocabulary(student, teacher, "teacher")
    data = fitting(fitting(config.data, student), teacher)

    def rows_of(held_out: bool = False) -> list:
        records = read_records(
            data, PromptCompletion, tokenizer=student.tokenizer, log=directory, held_out=held_out
        )
        return [row for (row,) in token_rows(records, student.tokenizer)]

    rows = rows_of()
    held_out = rows_of(held_out=True) if data.evaluation_path else []
    if config.distill.on_policy:
        for model in (student, teacher):
            check_room(model, max(map(len, prompts_of(rows))), config.max_new_tokens)
    with open_run(directory, config, config.place, config.seed) as run:
        trained = train_distillation(
            run,
            "distill",
            student,
            teacher,
            rows,
            config.distill,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            evaluation_rows=held_out,
        )
        row: dict[str, Any] = {"method": f"distillation ({TITLES[config.distill.loss]})"}
        lines = [line for line in read_metrics(directory) if line["stage"] == "distill"]
        if not held_out:
            row |= {"divergence": float(np.mean([line["loss"] for line in lines][-10:]))}
            return finish(run, trained, row, notes=[IN_TRAINING])
        measured = [line["validation/loss"] for line in lines if "validation/loss" in line]
        row |= {"divergence_before": measured[0], "divergence": measured[-1]}
        row["perplexity"] = perplexity(run, trained, held_out, temperature=config.temperature)
        return finish(run, trained, row, notes=[HELD_OUT])
