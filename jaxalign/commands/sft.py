"""`jaxalign sft`: supervised fine-tuning on a user's rows."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jaxalign.config.defaults import following
from jaxalign.config.sft import SFTConfig
from jaxalign.data.records import PromptCompletion, Unpaired
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import UserError
from jaxalign.recipes.adapters import with_adapters
from jaxalign.recipes.finish import finish, keep_model
from jaxalign.recipes.held_out import check_held_out
from jaxalign.recipes.inputs import inputs_of
from jaxalign.recipes.run import Run, open_run
from jaxalign.recipes.scoring import perplexity
from jaxalign.recipes.sft import train_sft
from jaxalign.recipes.text_batches import TextBatches, bucketed_batches, packed_batches
from jaxalign.recipes.text_models import TextModel, load_text_model, new_text_model, start_of
from jaxalign.recipes.user_data import (
    Rows,
    learn_tokenizer,
    read_split,
    read_texts,
    with_max_length,
)
from jaxalign.system.console import phase, tell


def run(config: SFTConfig, directory: Path) -> dict:
    """Train, save `model`, write the report; returns what `results.json` holds."""
    start = starting_model(config, directory) if config.init else None
    config = dataclasses.replace(config, data=with_max_length(config.data, start))
    fit = following(config.fit, "sft", start_of(start, config.lora))
    tokenizer = None if start is None else start.tokenizer
    if tokenizer is None:
        records = read_texts(config.data, _kind(config), seed=config.seed)
        records = [record for record in records if _good(record)]
        _check_imitated(records, config.data.source)
        tokenizer = learn_tokenizer(config.tokenizer, records)
    rows, held_out = _imitated(config, directory, tokenizer)
    check_held_out(config.fit, held_out)
    batches = _batches(config, fit.settings.rows, tokenizer.pad_id, rows.texts)
    config = dataclasses.replace(config, fit=fit.settled(batches.per_epoch))
    if batches.note:
        tell(batches.note)
    inputs = inputs_of(
        models={"init": start},
        tokenizer=tokenizer,
        data=rows.records,
        held_out=held_out.records,
        adapter=config.adapter,
    )
    with open_run(directory, config, config.place, config.seed, inputs=inputs) as run:
        if start is None:
            start = new_text_model(
                config.model, tokenizer, run.key("init"), max_length=config.data.longest
            )
        start = with_adapters(start, config.adapter, config.lora, run.key("lora"))
        trained = train_sft(
            run, "sft", start, batches, settings=config.fit, evaluation_rows=held_out.texts
        )
        keep_model(run, trained)
        return finish(run, _row(run, trained, held_out.texts))


def starting_model(config: SFTConfig, directory: Path) -> TextModel:
    """The policy that training starts from."""
    return load_text_model(config.init, "init", head="logits", place=config.place)


def _kind(config: SFTConfig) -> type[Unpaired] | type[PromptCompletion]:
    return Unpaired if config.labelled else PromptCompletion


def _good(record: Unpaired | PromptCompletion) -> bool:
    """Whether a record is imitated: it has a true label, or none."""
    return not isinstance(record, Unpaired) or record.label


def _check_imitated(records: Sequence, source: str) -> None:
    if not records:
        raise UserError(f"{source}: no row has a true label, so there is nothing to imitate")


def _imitated(config: SFTConfig, directory: Path, tokenizer: Tokenizer) -> tuple[Rows, Rows]:
    """Rows to imitate, and held-out rows."""
    data, reading = config.data, {"tokenizer": tokenizer, "log": directory, "seed": config.seed}
    rows, held_out = (part.where(_good) for part in read_split(data, _kind(config), **reading))
    _check_imitated(rows.records, data.source)
    if data.evaluation_path or data.evaluation_share:
        _check_imitated(held_out.records, data.evaluation_path or f"rows held out of {data.source}")
    return rows, held_out


def _batches(config: SFTConfig, size: int, pad_id: int, rows: Sequence) -> TextBatches:
    shared = {"pad_id": pad_id, "seed": config.seed}
    if config.packing:
        return packed_batches(rows, size, length=config.data.longest, **shared)
    return bucketed_batches(rows, size, buckets=config.buckets(len(rows)), **shared)


def _row(run: Run, trained: TextModel, held_out: Sequence) -> dict:
    row: dict = {"method": "SFT"}
    if held_out:
        with phase("evaluating"):
            row["perplexity"] = perplexity(run, trained, held_out)
    return row
