"""Tiny models and a tokenizer, made without a network, for libraries on top of transformers."""

import os
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import tokenizers
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from benchmarks.conformance.peers import data


def tokenizer(pad: int = data.PAD, *, with_bos: bool = False) -> PreTrainedTokenizerFast:
    """A token a word: `w7` is id 7."""
    words = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(3, data.VOCABULARY))]
    model = tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, "<pad>")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    if with_bos:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", data.BOS)]
        )
    names = {"pad_token": words[pad], "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def words(ids) -> str:
    """The text of ordinary ids and EOS, with a space behind."""
    return "".join(" </s>" if i == data.EOS else f" w{i}" for i in ids).strip() + " "


def llama_config(**changes) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=data.VOCABULARY,
        hidden_size=data.WIDTH,
        intermediate_size=data.WIDTH,
        num_hidden_layers=data.LAYERS,
        num_attention_heads=data.HEADS,
        num_key_value_heads=data.HEADS,
        max_position_embeddings=data.POSITIONS,
        pad_token_id=data.PAD,
        bos_token_id=data.BOS,
        eos_token_id=data.EOS,
        initializer_range=0.2,
        **changes,
    )


def llama(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(llama_config())


def classifier(pad: int = data.PAD) -> LlamaForSequenceClassification:
    torch.manual_seed(0)
    return LlamaForSequenceClassification(llama_config(num_labels=1) if pad == data.PAD else _eos())


def _eos() -> LlamaConfig:
    config = llama_config(num_labels=1)
    config.pad_token_id = data.EOS
    return config


def gpt2() -> GPT2LMHeadModel:
    """Absolute positions, dropout of 0.1 everywhere."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=data.VOCABULARY,
        n_positions=data.POSITIONS,
        n_embd=data.WIDTH,
        n_layer=data.LAYERS,
        n_head=data.HEADS,
        initializer_range=0.2,
        bos_token_id=data.BOS,
        eos_token_id=data.EOS,
    )
    return GPT2LMHeadModel(config)


def from_files(model):
    """The same model, which knows where it lies."""
    path = folder()
    model.save_pretrained(path)
    return type(model).from_pretrained(path)


def folder() -> str:
    return tempfile.mkdtemp(prefix="conformance-")


def flat(tensors) -> np.ndarray:
    return torch.cat([x.detach().double().ravel() for x in tensors]).numpy()


def update(trainer) -> np.ndarray:
    """What one step of plain gradient descent with rate 1 subtracts."""
    model = trainer.model
    before = flat(model.parameters())
    trainer.train()
    return before - flat(model.parameters())


def descent(model) -> tuple:
    """`optimizers=` of a trainer: plain gradient descent with rate 1."""
    return torch.optim.SGD(model.parameters(), lr=1.0), None


def settings(micro_batches: int = 1, rows: int = 4, **more) -> dict:
    """Arguments of one update from `rows` rows, gradients not clipped, on the CPU in float32."""
    return {
        "output_dir": folder(),
        "per_device_train_batch_size": rows // micro_batches,
        "gradient_accumulation_steps": micro_batches,
        "max_steps": 1,
        "learning_rate": 1.0,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        **more,
    }
