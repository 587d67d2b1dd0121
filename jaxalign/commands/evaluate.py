"""`jaxalign evaluate`: perplexity on texts, rewards of answers to prompts, accuracy on preferences,
rankings or steps.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.data.records import Preference, PromptCompletion, Ranking, Stepwise
from jaxalign.errors import UserError
from jaxalign.evaluation.bootstrap import prompt_blocks
from jaxalign.recipes.accuracy import implicit_accuracy, pair_accuracy
from jaxalign.recipes.iterations import check_same_vocabulary, text_task
from jaxalign.recipes.process_reward import step_accuracy, step_chances
from jaxalign.recipes.rankings import ranking_accuracy
from jaxalign.recipes.run import Run, open_run
from jaxalign.recipes.sample_evaluation import answers_of
from jaxalign.recipes.scoring import perplexity
from jaxalign.recipes.text_models import TextModel, load_text_model
from jaxalign.recipes.user_data import Rows, read_rows, with_max_length
from jaxalign.system.console import output
from jaxalign.system.files import write_atomically


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Print the metrics, a line each, and return them."""
    model = load_text_model(config.model, "model", place=config.place)
    measure = {
        "texts": perplexity_on_texts,
        "prompts": rewards_on_prompts,
        "preferences": accuracy_on_preferences,
        "rankings": accuracy_on_rankings,
        "steps": accuracy_on_steps,
    }[config.on]
    with (
        tempfile.TemporaryDirectory() as scratch,
        open_run(Path(scratch), config, config.place, 0) as run,
    ):
        measures = measure(config, run, model)
    for name, value in measures.items():
        text = "unknown" if value is None else f"{value:.4f}"
        output(f"{name} {text}", needed=not config.output)
    if config.output:
        write_atomically(Path(config.output), json.dumps(measures, indent=1).encode())
    return measures


def perplexity_on_texts(config: EvaluateConfig, run: Run, model: TextModel) -> dict[str, float]:
    """exp of the mean negative log-probability of a completion's token."""
    require_head(config, model, "logits")
    data = with_max_length(config.data, model)
    rows = read_rows(data, PromptCompletion, tokenizer=model.tokenizer, log=None)
    return {"perplexity": perplexity(run, model, rows.texts, temperature=config.temperature)}


def rewards_on_prompts(config: EvaluateConfig, run: Run, model: TextModel) -> dict[str, Any]:
    """Means of each reward, length, share that ended and KL of sampled answers, with 95% intervals
    over prompts; writes the answers.
    """
    require_head(config, model, "logits")
    task = text_task(config, model, place=config.place)
    if not len(task.prompts):
        raise UserError(f"--data.path {config.data.path} holds no prompt to answer")
    reference = None
    if config.reference:
        reference = load_text_model(
            config.reference, "reference", head="logits", place=config.place
        )
        check_same_vocabulary(model, reference, "reference", of="model")
    answered, lines = answers_of(
        run, model, task, reference=reference, samples=config.samples, seed=config.seed
    )
    if config.responses:
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        write_atomically(Path(config.responses), text.encode())
    return answered


def accuracy_on_preferences(config: EvaluateConfig, run: Run, model: TextModel) -> dict[str, float]:
    """Pair accuracy with its 95% interval, by the score or by the implicit reward."""
    data = with_max_length(config.data, model)
    rows = read_rows(data, Preference, tokenizer=model.tokenizer, log=None)
    pairs, blocks = rows.tokens, blocks_of(rows)
    if "score" in model.model.config.heads_out:
        for option, given in (
            ("reference", config.reference), ("temperature", config.temperature != 1)
        ):  # fmt: skip
            if given:
                raise UserError(
                    f"--model {config.model} is a reward model, whose scores --{option} does not "
                    "change; leave it out"
                )
        return pair_accuracy(run, model, pairs, blocks=blocks)
    require_head(config, model, "logits")
    reference = None
    if config.reference:
        reference = load_text_model(
            config.reference, "reference", head="logits", place=config.place
        )
        check_same_vocabulary(model, reference, "reference", of="model")
    return implicit_accuracy(
        run, model, reference, pairs, blocks=blocks, temperature=config.temperature
    )


def accuracy_on_rankings(config: EvaluateConfig, run: Run, model: TextModel) -> dict[str, float]:
    """Share of the pairs of every ranking in its order, and Kendall's tau, with 95% intervals."""
    require_head(config, model, "score")
    data = with_max_length(config.data, model)
    rows = read_rows(data, Ranking, tokenizer=model.tokenizer, log=None)
    return ranking_accuracy(run, model, rows.tokens, blocks=blocks_of(rows))


def accuracy_on_steps(config: EvaluateConfig, run: Run, model: TextModel) -> dict[str, float]:
    """Share of steps whose label the model predicts, with 95% intervals; writes their
    probabilities.
    """
    require_head(config, model, "step_score")
    data = with_max_length(config.data, model)
    rows = read_rows(data, Stepwise, tokenizer=model.tokenizer, log=None)
    chances = step_chances(run, model, rows.texts)
    if config.chances:
        lines = "".join(f"{json.dumps(row.round(6).tolist())}\n" for row in chances)
        write_atomically(Path(config.chances), lines.encode())
    labels = [record.labels for record in rows.records]
    return step_accuracy(chances, labels, blocks=blocks_of(rows))


def blocks_of(rows: Rows[Preference] | Rows[Ranking] | Rows[Stepwise]) -> np.ndarray:
    """Block labels `[N]` of the rows' prompts: intervals are over prompts."""
    return prompt_blocks([record.prompt for record in rows.records])


def require_head(config: EvaluateConfig, model: TextModel, head: str) -> None:
    """Raise a one-line `UserError` where the model lacks the head that such rows need."""
    heads = model.model.config.heads_out
    if head not in heads:
        raise UserError(
            f"--model {config.model} has the heads {', '.join(heads)}; "
            f"--on {config.on} needs a {head} head"
        )
