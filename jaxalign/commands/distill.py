"""`jaxalign distill`: a student trained on a teacher's distributions, on data and own samples."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.config.defaults import following
from jaxalign.config.distill import DistillConfig, DistillSettings
from jaxalign.data.chat import TokenRow, prompt_of
from jaxalign.data.records import PromptCompletion
from jaxalign.errors import UserError
from jaxalign.recipes.adapters import with_adapters
from jaxalign.recipes.distillation import train_distillation
from jaxalign.recipes.finish import finish, keep_model
from jaxalign.recipes.held_out import check_held_out
from jaxalign.recipes.inputs import inputs_of
from jaxalign.recipes.iterations import check_room, check_same_vocabulary
from jaxalign.recipes.prompts import Prompts
from jaxalign.recipes.reward_sources import mean_score
from jaxalign.recipes.run import open_run
from jaxalign.recipes.scoring import longest, perplexity
from jaxalign.recipes.text_models import load_text_model, start_of
from jaxalign.recipes.user_data import read_split, with_max_length
from jaxalign.system.console import phase
from jaxalign.train.metrics import logged

TITLES = {"forward_kl": "forward KL", "reverse_kl": "reverse KL", "jsd": "JSD"}
UNIT = "nats a token, averaged over the tokens of a response, then over responses"
IN_TRAINING = f"Divergence from the teacher: {UNIT}; mean of the last 10 logged batches."
HELD_OUT = f"Divergence from the teacher on the held-out rows: {UNIT}."


def run(config: DistillConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    student = load_text_model(config.policy, "policy", head="logits", place=config.place)
    teacher = load_text_model(config.teacher, "teacher", head="logits", place=config.place)
    check_same_vocabulary(student, teacher, "teacher")
    fit = following(config.distill.fit, "distill", start_of(student, config.lora))
    data = with_max_length(with_max_length(config.data, student), teacher)

    reading = {"tokenizer": student.tokenizer, "log": directory, "seed": config.seed}
    read, others = read_split(data, PromptCompletion, **reading)
    rows, held_out = read.texts, others.texts
    check_held_out(config.distill.fit, held_out)
    settled = fit.settled(len(rows) / fit.settings.rows)
    config = dataclasses.replace(config, distill=dataclasses.replace(config.distill, fit=settled))
    prompts = Prompts(ids=prompts_of(rows) if config.distill.on_policy else [])
    room = prompts.longest + config.max_new_tokens if len(prompts) else 0
    for model in (student, teacher) if len(prompts) else ():
        check_room(model, prompts.longest, config.max_new_tokens)
    length = max(longest([*rows, *held_out]), room)
    check_memory(config.distill, length, student.model.config.vocab_size)
    models = {"policy": student, "teacher": teacher}
    inputs = inputs_of(
        models=models, data=read.records, held_out=others.records, adapter=config.adapter
    )
    with open_run(directory, config, config.place, config.seed, inputs=inputs) as run:
        student = with_adapters(student, config.adapter, config.lora, run.key("lora"))
        trained = train_distillation(
            run,
            "distill",
            student,
            rows,
            teacher=teacher,
            prompts=prompts,
            settings=config.distill,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            evaluation_rows=held_out,
        )
        keep_model(run, trained)
        row: dict[str, Any] = {"method": f"distillation ({TITLES[config.distill.loss]})"}
        row |= divergences(directory, run.endings["distill"].step)
        if held_out:
            with phase("evaluating"):
                row["perplexity"] = perplexity(run, trained, held_out)  # at 1, as its column says
        return finish(run, row, notes=[HELD_OUT if held_out else IN_TRAINING])


def divergences(directory: Path, step: int) -> dict[str, float]:
    """Divergence on the held-out rows before training and of the model, that of this step; without
    such rows that of the end of training.
    """
    by_step = logged(directory, "distill", "eval/loss")
    if not by_step:
        losses = list(logged(directory, "distill", "loss").values())
        return {"divergence": mean_score(np.array(losses[-10:]))}
    numbers = {"divergence_before": by_step.get(0), "divergence": by_step.get(step)}
    return {name: value for name, value in numbers.items() if value is not None}


def prompts_of(rows: Sequence[TokenRow]) -> list[np.ndarray]:
    """Tokens before the first response token of every row."""
    prompts = [prompt_of(row) for row in rows]
    if not all(map(len, prompts)):
        raise UserError(
            "a text without a prompt cannot be sampled in a vocabulary without a BOS token; give "
            "rows with prompt and completion, or set --distill.on_policy 0"
        )
    return prompts


def check_memory(settings: DistillSettings, length: int, vocabulary: int) -> None:
    """Check that the teacher's float32 logits of a batch fit the memory allowed for them."""
    size = settings.fit.rows
    needed = 4 * size * length * vocabulary / 2**30
    if needed > settings.max_logits_gib:
        raise UserError(
            f"the teacher's logits of {size} responses of {length} tokens from {vocabulary} words "
            f"take {needed:.3g} GiB, distill.max_logits_gib is {settings.max_logits_gib:g}; lower "
            "distill.fit.batch_size or data.max_length, or raise it"
        )
