"""`jaxalign evaluate`: perplexity on texts, or accuracy on preferences."""

import json
import tempfile
from pathlib import Path

from jaxalign.config import EvaluateConfig
from jaxalign.data.records import Preference, PromptCompletion
from jaxalign.errors import UserError
from jaxalign.stages.dpo import implicit_accuracy
from jaxalign.stages.reward import pair_accuracy
from jaxalign.stages.run import Run, open_run
from jaxalign.stages.text_models import TextModel, load_text_model
from jaxalign.stages.training import perplexity
from jaxalign.stages.user_data import fitting, read_records, token_rows
from jaxalign.train.checkpoints import write_atomically


def run(config: EvaluateConfig) -> dict[str, float]:
    """Print the measures, a line each, and return them."""
    model = load_text_model(config.model, "model")
    measure = perplexity_on_texts if config.on == "texts" else accuracy_on_preferences
    with (
        tempfile.TemporaryDirectory() as scratch,
        open_run(Path(scratch), config, config.place, 0) as run,
    ):
        measures = measure(config, run, model)
    for name, value in measures.items():
        print(f"{name} {value:.4f}")
    if config.output:
        write_atomically(Path(config.output), json.dumps(measures, indent=1).encode())
    return measures


def perplexity_on_texts(config: EvaluateConfig, run: Run, model: TextModel) -> dict[str, float]:
    """exp of the mean negative log-probability of a completion's token."""
    if "logits" not in model.model.config.heads_out:
        raise UserError(f"--model {config.model} writes no text; use --on preferences")
    data = fitting(config.data, model)
    records = read_records(data, PromptCompletion, tokenizer=model.tokenizer, log=None)
    rows = [row for (row,) in token_rows(records, model.tokenizer)]
    return {"perplexity": perplexity(run, model, rows, temperature=config.temperature)}


def accuracy_on_preferences(config: EvaluateConfig, run: Run, model: TextModel) -> dict[str, float]:
    """Pair accuracy with its 95% interval, by the score or by the implicit reward."""
    data = fitting(config.data, model)
    records = read_records(data, Preference, tokenizer=model.tokenizer, log=None)
    pairs = token_rows(records, model.tokenizer)
    if "score" in model.model.config.heads_out:
        return pair_accuracy(run, model, pairs)
    reference = None
    if config.reference:
        reference = load_text_model(config.reference, "reference", head="logits")
    return implicit_accuracy(run, model, reference, pairs, temperature=config.temperature)
