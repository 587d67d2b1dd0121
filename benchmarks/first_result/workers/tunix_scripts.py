"""Tunix's DPO and PEFT trainers, LoRA by qwix, as its examples have them."""

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import qwix
from flax import nnx
from transformers import AutoTokenizer
from tunix.models.llama3 import model as llama3
from tunix.models.llama3 import params as llama3_params
from tunix.sft import hooks, peft_trainer
from tunix.sft.dpo import dpo_trainer

from benchmarks.first_result.jobs import ALPHA, LONGEST, RANK, Job
from benchmarks.first_result.workers.told import mark, parse

LONGEST_PROMPT = 48  # tokens
MODULES = ".*q_proj|.*k_proj|.*v_proj|.*o_proj|.*gate_proj|.*up_proj|.*down_proj"


class Milestones(hooks.TrainingHooks):
    """Marks the end of the first update and of the last evaluation."""

    def on_train_start(self, train_ctx):
        pass

    def on_train_end(self, train_ctx):
        pass

    def on_train_step_start(self, train_ctx):
        pass

    def on_train_step_end(self, train_ctx, train_step, train_loss, *more):
        if train_step == 1:
            float(train_loss)
            mark("first step")

    def on_eval_step_start(self, train_ctx):
        pass

    def on_eval_step_end(self, train_ctx, eval_loss):
        float(eval_loss)
        mark("evaluation")  # of the start too: the last one counts


def policy(folder: Path, rank: int):
    """SmolLM2 in float32, with adapters where the rank is above 0."""
    fields = json.loads((folder / "config.json").read_text())
    config = llama3.ModelConfig(
        num_layers=fields["num_hidden_layers"],
        vocab_size=fields["vocab_size"],
        embed_dim=fields["hidden_size"],
        hidden_dim=fields["intermediate_size"],
        num_heads=fields["num_attention_heads"],
        head_dim=fields["head_dim"],
        num_kv_heads=fields["num_key_value_heads"],
        rope_theta=int(fields["rope_theta"]),
        norm_eps=fields["rms_norm_eps"],
        weight_tying=fields["tie_word_embeddings"],
    )
    model = llama3_params.create_model_from_safe_tensors(str(folder), config, dtype=jnp.float32)
    if not rank:
        return model
    provider = qwix.LoraProvider(module_path=MODULES, rank=rank, alpha=ALPHA)
    inputs = model.get_model_input()
    return qwix.apply_lora_to_model(model, provider, rngs=nnx.Rngs(0), **inputs)


def texts(tokenizer, row: dict, response: str) -> tuple[list[int], list[int]]:
    """Tokens of the prompt and of the response, in the model's chat template."""
    prompt = tokenizer.apply_chat_template(
        row["prompt"], tokenize=False, add_generation_prompt=True
    )
    whole = tokenizer.apply_chat_template(row["prompt"] + row[response], tokenize=False)
    encode = tokenizer.encode
    return encode(prompt), encode(whole.removeprefix(prompt))


def padded(rows: list[list[int]], length: int, pad: int, *, left: bool = False):
    """`(ids, mask)` of rows that fit a length."""
    ids, mask = (np.full((len(rows), length), fill, np.int32) for fill in (pad, 0))
    for number, row in enumerate(rows):
        place = slice(length - len(row), None) if left else slice(len(row))
        ids[number, place], mask[number, place] = row, 1
    return ids, mask


def pair_batch(tokenizer, rows: list[dict]) -> dpo_trainer.TrainingInput:
    sides = {side: [texts(tokenizer, row, side) for row in rows] for side in ("chosen", "rejected")}
    pad, fields = tokenizer.pad_token_id, {}
    prompts = [prompt for prompt, _ in sides["chosen"]]
    fields["prompt_ids"], fields["prompt_mask"] = padded(prompts, LONGEST_PROMPT, pad, left=True)
    for side, pairs in sides.items():
        fields[f"{side}_ids"], fields[f"{side}_mask"] = padded([r for _, r in pairs], LONGEST, pad)
    return dpo_trainer.TrainingInput(**fields)


def text_batch(tokenizer, rows: list[dict]) -> peft_trainer.TrainingInput:
    pairs = [texts(tokenizer, row, "completion") for row in rows]
    length = LONGEST_PROMPT + LONGEST
    ids, _ = padded(
        [prompt + response for prompt, response in pairs], length, tokenizer.pad_token_id
    )
    trained = np.zeros_like(ids)
    for number, (prompt, response) in enumerate(pairs):
        trained[number, len(prompt) : len(prompt) + len(response)] = 1
    return peft_trainer.TrainingInput(input_tokens=ids, input_mask=trained)


class Batches:
    """Batches of a file of rows, read again from its start wherever a loop begins."""

    def __init__(self, file: Path, size: int, make, *, endless: bool):
        self.rows = [json.loads(line) for line in file.read_text().splitlines()]
        self.size, self.make, self.endless = size, make, endless

    def __iter__(self) -> Iterator:
        starts = range(0, len(self.rows) - self.size + 1, self.size)
        for start in itertools.cycle(starts) if self.endless else starts:
            yield self.make(self.rows[start : start + self.size])


def trainer_of(job: Job, args: argparse.Namespace, optimizer):
    """The trainer, and what makes a batch of rows."""
    shared = {
        "max_steps": job.steps,
        "eval_every_n_steps": job.steps,
        "checkpoint_root_directory": str(args.output.resolve()),
    }
    model = policy(args.model, RANK)
    if job.method == "dpo":
        config = dpo_trainer.DPOTrainingConfig(**shared, beta=0.1)
        trainer = dpo_trainer.DPOTrainer(model, policy(args.model, 0), optimizer, config)
        return trainer, pair_batch
    trainer = peft_trainer.PeftTrainer(model, optimizer, peft_trainer.TrainingConfig(**shared))
    return trainer.with_gen_model_input_fn(model_input), text_batch


def model_input(batch: peft_trainer.TrainingInput) -> dict:
    """What the loss of Tunix's SFT reads."""
    rows, length = batch.input_tokens.shape
    causal = jnp.tril(jnp.ones((length, length), bool))
    return {
        "input_tokens": batch.input_tokens,
        "input_mask": batch.input_mask,
        "positions": jnp.broadcast_to(jnp.arange(length), (rows, length)),
        "attention_mask": jnp.broadcast_to(causal, (rows, length, length)),
    }


def main() -> None:
    job, args = parse()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    schedule = optax.linear_schedule(args.learning_rate, 0.0, job.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.0))
    trainer, make = trainer_of(job, args, optimizer)
    trainer.with_training_hooks(Milestones())

    def batches(name: str, *, endless: bool) -> Batches:
        file = args.rows / f"{name}.jsonl"
        return Batches(file, job.batch, lambda rows: make(tokenizer, rows), endless=endless)

    trainer.train(batches("train", endless=True), batches("test", endless=False))
    mark("model")  # the adapters, in a checkpoint that is written at the end of `train`


if __name__ == "__main__":
    main()
