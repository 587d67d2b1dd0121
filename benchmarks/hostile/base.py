"""What trials start from: rows of every kind, a tiny trained policy and reward model, published
models with a vocabulary. Made once, by the program itself, in a process of its own.
"""

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "tests" / "files"
SENTENCE = "a fine film with a warm heart and a sly wit that never once loses its way"
WORDS = SENTENCE.split(" ")
PUBLISHED = ("llama", "gpt2", "gemma2", "gemma3", "mistral", "qwen2", "qwen3")
SIZE = ("--model.width", "16", "--model.layers", "2", "--model.heads", "2")
VOCABULARY = ("--tokenizer.kind", "bpe", "--tokenizer.vocab_size", "300")
# What no mend may change under the trials: defaults of loops are given.
LOOP = {"batch_size": "4", "log_every": "1", "save_every": "1"}
RATE = {"warmup_steps": "0", "learning_rate": "1e-3", "schedule": "constant"}


@dataclasses.dataclass(frozen=True)
class Base:
    """Paths below a working directory.

    work: where trials have their rooms.
    """

    work: Path

    def __getattr__(self, name: str) -> str:
        """The path of a file or folder of the base: `base.pairs`, `base.policy`."""
        if name.startswith("__"):
            raise AttributeError(name)
        return str(self.work / "base" / NAMES.get(name, name))

    def published(self, family: str) -> str:
        """The folder of a published model with a tokenizer."""
        return str(self.work / "base" / f"hf_{family}")

    def gguf(self, family: str) -> str:
        """A GGUF file of such a model."""
        return str(self.work / "base" / f"{family}.gguf")


NAMES = {
    name: f"{name}.jsonl"
    for name in (
        *("texts", "short", "pairs", "prompts", "labelled", "rankings", "steps"),
        *("golds", "completions", "conversations"),
    )
}


def text(i: int) -> str:
    """A text of six words."""
    return " ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(1, 7))


def rows(kind: str) -> list[dict[str, Any]]:
    """Eight good rows of a kind."""
    numbers = range(8)
    pairs = [{"prompt": "a ", "chosen": f"good {text(i)}", "rejected": f"bad {text(i)}"}
             for i in numbers]  # fmt: skip
    return {
        "texts": [{"text": text(i)} for i in numbers],
        "short": [{"text": text(i)[:20]} for i in numbers],
        "pairs": pairs,
        "golds": [row | {"gold": f"great {row['chosen']}"} for row in pairs],
        "prompts": [{"prompt": WORDS[i]} for i in numbers],
        "labelled": [{"prompt": "a ", "completion": text(i), "label": i % 2 == 0} for i in numbers],
        "completions": [{"prompt": "a ", "completion": text(i)} for i in numbers],
        "rankings": [{"prompt": "a ", "responses": [f"{w} {text(i)}" for w in ("good", "bad")]}
                     for i in numbers],
        "steps": [{"prompt": "a ", "completions": ["fine", text(i)], "labels": [True, i % 2 == 0]}
                  for i in numbers],
        "conversations": [
            {"messages": [{"role": "user", "content": WORDS[i]},
                          {"role": "assistant", "content": text(i)}]}
            for i in numbers
        ],
    }[kind]  # fmt: skip


def loop(section: str = "", steps: int = 2, **changes: str) -> list[str]:
    """Flags of a training loop, `section` being `dpo.` and the like."""
    fields = {"steps": str(steps)} | LOOP | {name: x for name, x in changes.items() if name in LOOP}
    rate = RATE | {name: x for name, x in changes.items() if name in RATE}
    flags = [(f"--{section}fit.{name}", x) for name, x in fields.items()]
    flags += [(f"--{section}fit.optimizer.{name}", x) for name, x in rate.items()]
    return [word for flag in flags for word in flag]


def rounds(section: str, iterations: int = 2, **changes: str) -> list[str]:
    """Flags of a loop of rounds: `ppo`, `grpo`."""
    own = {"ppo": {"batch_size": "4", "minibatches": "1", "update_epochs": "1"},
           "grpo": {"prompts": "2", "group_size": "2"}}[section]  # fmt: skip
    fields = {"iterations": str(iterations), "save_every": "1", **own} | {
        name: x for name, x in changes.items() if name not in RATE
    }
    rate = RATE | {name: x for name, x in changes.items() if name in RATE}
    flags = [(f"--{section}.{name}", x) for name, x in fields.items()]
    flags += [(f"--{section}.optimizer.{name}", x) for name, x in rate.items()]
    return [word for flag in flags for word in flag]


def command(name: str, base: Base, run_dir: str = "run", **files: str) -> list[str]:
    """A whole, quick command line; `data` gives other rows, `policy` another model."""
    model, reward = files.get("policy", base.policy), files.get("reward", base.reward)
    kind = {"dpo": "pairs", "kto": "labelled", "reward": "pairs", "sft": "texts"}.get(
        name, "prompts"
    )
    data = ["--data.path", files.get("data", getattr(base, kind))]
    room = ["--max_new_tokens", "4"]
    rest = {
        "sft": [*SIZE, *VOCABULARY, "--data.max_length", "40", *loop()],
        "dpo": ["--policy", model, *loop("dpo.")],
        "kto": ["--policy", model, *loop("kto.")],
        "reward": [
            "--init",
            model,
            "--reward.pooling",
            "none",
            "--reward.bag",
            "True",
            *loop("reward."),
        ],
        "ppo": ["--policy", model, "--reward", reward, *room, *rounds("ppo")],
        "grpo": ["--policy", model, "--reward", reward, *room, *rounds("grpo")],
        "online": ["--policy", model, "--reward", reward, *room, *loop("online.")],
    }[name]
    return [name, "--output", run_dir, *data, *rest]


def make(base: Base) -> None:
    """Write all of it.

    Raises:
      SystemExit: the program refuses what is right.
    """
    from jaxalign.cli import main

    folder = base.work / "base"
    folder.mkdir(parents=True)
    for kind in NAMES:
        lines = "".join(f"{json.dumps(row)}\n" for row in rows(kind))
        (folder / f"{kind}.jsonl").write_text(lines)
    main(command("sft", base, base.policy))
    main(command("reward", base, base.reward))
    for family in PUBLISHED:
        published(DATA / "hf" / family, Path(base.published(family)))
    ggufs(base)
    make_adapter(folder / "adapter")
    models = [base.published(family) for family in PUBLISHED]
    for model in (*models, base.gguf("llama"), base.gguf("gpt2")):
        main(["evaluate", "--model", model, "--data.path", base.short])


def published(source: Path, target: Path) -> None:
    """A copy of a stored model with a tokenizer of characters, which those come without."""
    shutil.copytree(source, target)
    for name, content in character_tokenizer().items():
        (target / name).write_text(json.dumps(content))


def character_tokenizer() -> dict[str, Any]:
    """`tokenizer.json` and `tokenizer_config.json` of ids 0 to 97: specials and ASCII."""
    from tokenizers import Tokenizer, decoders, models

    specials = ["<pad>", "<bos>", "<eos>"]
    characters = [chr(code) for code in range(32, 127)]
    vocabulary = {token: number for number, token in enumerate([*specials, *characters])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(specials)
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    return {"tokenizer.json": json.loads(backend.to_str()), "tokenizer_config.json": names}


def ggufs(base: Base) -> None:
    """GGUF files of two of the published models, with a byte-level tokenizer of their size."""
    from tokenizers import pre_tokenizers

    from tests import gguf_writer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), key=lambda x: (x != "Ġ", x))[:190]
    tokens = ["<pad>", "<bos>", "<eos>", *letters, "af"]
    for family in ("llama", "gpt2"):
        source = DATA / "hf" / family
        padded = tokens + [f"<unused{i}>" for i in range(199 - len(tokens))]
        written(base.gguf(family), source, gguf_writer, padded)


def written(path: str, source: Path, gguf_writer: Any, tokens: list[str]) -> None:
    """One file; the tokenizer's keys go in before the writer finishes."""
    finish = gguf_writer.finish

    def finish_with_tokenizer(writer: Any) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(tokens)
        kinds = [3 if token[0] == "<" and len(token) > 1 else 1 for token in tokens]
        writer.add_token_types(kinds)
        writer.add_token_merges(["a f"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_pad_token_id(0)
        finish(writer)

    gguf_writer.finish = finish_with_tokenizer
    try:
        gguf_writer.convert(source, path)
    finally:
        gguf_writer.finish = finish


def make_adapter(folder: Path) -> None:
    """An adapter in PEFT's format for the stored llama, of rank 2."""
    import numpy as np
    from safetensors.numpy import save_file

    draw, tensors = np.random.default_rng(0), {}
    for layer in range(2):
        for module, outputs in (("q_proj", 48), ("v_proj", 24)):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            a, b = draw.normal(0, 0.2, (2, 48)), draw.normal(0, 0.2, (outputs, 2))
            tensors[f"{name}.lora_A.weight"] = a.astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = b.astype(np.float32)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    fields = json.loads((DATA / "peft" / "llama_plain" / "adapter_config.json").read_text())
    fields |= {"target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(fields))


def in_a_process(function: Callable[[], object]) -> int:
    """Call it in a forked process, so that jax does not start in this one; its exit status."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 1)
            function()
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
