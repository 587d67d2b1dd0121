"""Tiny models with random PEFT adapters and the logits that PEFT gives; see README.md.

python tests/files/peft/make.py              # with torch, transformers and peft: writes all
python tests/files/peft/make.py --check BASE ADAPTER EXPECTED.npz   # what PEFT makes of a folder
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

HERE = Path(__file__).parent
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]])
LLAMA = LlamaConfig(
    vocab_size=16,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=16,
    tie_word_embeddings=False,
)
GPT2 = GPT2Config(vocab_size=16, n_embd=8, n_layer=2, n_head=2, n_positions=16)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    ("llama", "plain"): LoraConfig(r=2, lora_alpha=3, target_modules=ALL, task_type="CAUSAL_LM"),
    ("llama", "patterns"): LoraConfig(
        r=2,
        lora_alpha=3,
        target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"q_proj": 3},
        alpha_pattern={"model.layers.1.mlp.down_proj": 5, "v_proj": 1},
        use_rslora=True,
        task_type="CAUSAL_LM",
    ),
    ("gpt2", "joint"): LoraConfig(
        r=2,
        lora_alpha=3,
        target_modules=["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"],
        fan_in_fan_out=True,
        task_type="CAUSAL_LM",
    ),
}


def randomised(model, names):
    """All parameters whose name holds one of these words, random; larger than by default."""
    for name, parameter in model.named_parameters():
        if any(word in name for word in names):
            parameter.data = 0.4 * torch.randn(parameter.shape) + ("norm" in name or "ln_" in name)
    return model


def logits(model):
    with torch.no_grad():
        return model.double().eval()(TOKENS).logits.numpy().astype(np.float64)


def make():
    torch.manual_seed(0)
    bases = {"llama": LlamaForCausalLM(LLAMA), "gpt2": GPT2LMHeadModel(GPT2)}
    for name, model in bases.items():
        randomised(model, [""]).save_pretrained(HERE / name)
    for (base, name), config in ADAPTERS.items():
        model = AutoModelForCausalLM.from_pretrained(HERE / base)
        adapted = randomised(get_peft_model(model, config), ["lora_"])
        folder = HERE / f"{base}_{name}"
        adapted.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        fields = json.loads((folder / "adapter_config.json").read_text())
        fields["base_model_name_or_path"] = base
        (folder / "adapter_config.json").write_text(json.dumps(fields, indent=1, sort_keys=True))
        np.savez(folder / "logits.npz", tokens=TOKENS.numpy(), logits=logits(adapted))


def check(base, adapter, expected):
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    difference = np.abs(logits(model) - np.load(expected)["logits"]).max()
    print(f"{adapter}: PEFT's logits differ from the expected ones by at most {difference:.2g}")


if __name__ == "__main__":
    check(*sys.argv[2:]) if sys.argv[1:2] == ["--check"] else make()
