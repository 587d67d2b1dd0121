"""The same model for libraries on top of transformers, and a tokenizer that reads numbers."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import tokenizers
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    logging,
)

from benchmarks.speed.work import Size

logging.set_verbosity_error()
torch.set_num_threads(2)


def config_of(size: Size, length: int, **more) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.mlp_width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=length,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
        **more,
    )


def causal(size: Size, length: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(config_of(size, length))


def classifier(size: Size, length: int) -> LlamaForSequenceClassification:
    torch.manual_seed(0)
    return LlamaForSequenceClassification(config_of(size, length, num_labels=1))


def tokenizer(size: Size) -> PreTrainedTokenizerFast:
    """A token a word: `7` is id 7."""
    words = ["<pad>", "<s>", "</s>", *(str(i) for i in range(3, size.vocabulary))]
    model = tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, "<pad>")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def text(ids: list[int]) -> str:
    return " ".join(map(str, ids))
