"""Makes the tokenizers and `expected.json` of this folder, with transformers and not with jaxalign.

python tests/files/chat/make_expected.py
"""

import json
import pathlib

import tokenizers
import transformers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent
TEXT = """
You are a helpful assistant. You are a helpful AI assistant named SmolLM, trained by Hugging Face.
user assistant system model What is the capital of France? The capital of France is Paris.
Why is the sky blue? Because the air scatters blue light. How are you? I am well, thank you.
Yes. No. So it is. Sure? Are you sure? One, two, three. [INST] [/INST] Thank you for asking.
"""
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA3 = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
GEMMA = ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
LLAMA = ["<unk>", "<s>", "</s>"]
PHI = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]

# template: (tokenizer, special tokens)
MODELS = {
    "smollm2": ("bytes", {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}),
    "qwen2_5": ("bytes", {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}),
    "qwen2_5_training": ("bytes", {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}),
    "qwen3": ("bytes", {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}),
    "llama3": ("bytes", {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}),
    "gemma": ("pieces", {"bos_token": "<bos>", "eos_token": "<eos>"}),
    "mistral": ("legacy", {"bos_token": "<s>", "eos_token": "</s>"}),
    "mistral ": ("first", {"bos_token": "<s>", "eos_token": "</s>"}),
    "phi3": ("legacy", {"bos_token": "<s>", "eos_token": "</s>"}),
}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


CONVERSATIONS = [  # prompt, response
    ([user("Why is the sky blue?")], [assistant("Because the air scatters blue light.")]),
    (
        [user("  Are you\n\nsure?\n"), assistant("Yes. "), user("é 日本 👍🏽!")],
        [assistant("So it is."), user("\nThank you"), assistant("No.\n\nSure? ")],
    ),
    (
        [{"role": "system", "content": "Be a helpful assistant."}, user("How are you?")],
        [assistant("I am well,\tthank you.")],
    ),
]


THOUGHT = "<think>\nWell.\n</think>\n\nSo it is."
LLAMA3_NAMES = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
CHATML_NAMES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
# Shapes of templates: (template, names, messages, variables); the last message is the answer.
SHAPES = [
    ("opens_thought", LLAMA3_NAMES, [user("Why?"), assistant(THOUGHT)], {}),
    (
        "opens_thought",
        LLAMA3_NAMES,
        [user("Why?"), assistant(THOUGHT), user("Sure?"), assistant(THOUGHT)],
        {},
    ),
    ("last_thought", CHATML_NAMES, [user("Why?"), assistant(THOUGHT)], {}),
    ("last_thought", CHATML_NAMES, [user("Why?"), assistant("Yes.")], {"enable_thinking": False}),
    ("last_thought", CHATML_NAMES, [user("Why?"), assistant("Yes.")], {"enable_thinking": True}),
    (
        "last_thought",
        CHATML_NAMES,
        [
            user("Why?"),
            assistant("Yes."),
            user("So?"),
            assistant("No.") | {"reasoning_content": "W."},
        ],
        {},
    ),
    (
        "last_thought",
        CHATML_NAMES,
        [
            *(user("Look."), assistant("I do.")),
            {"role": "tool", "content": "4", "tool_call_id": "call_7"},
            assistant("Four."),
        ],
        {"tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}]},
    ),
    ("user_header", LLAMA3_NAMES, [user("Why?"), assistant("Yes.")], {}),
    ("user_header", LLAMA3_NAMES, [user("Why?"), assistant(THOUGHT)], {"thinking": True}),
    ("empty_thought", CHATML_NAMES, [user("Why?"), assistant(THOUGHT)], {}),
    ("empty_thought", CHATML_NAMES, [user("Why?"), assistant("Yes.")], {"enable_thinking": False}),
    (
        "system_in_user",
        LLAMA3_NAMES,
        [
            {"role": "developer", "content": " Be. "},
            user("Why?") | {"name": "Ann"},
            assistant("Yes."),
        ],
        {},
    ),
    (
        "channels",
        LLAMA3_NAMES,
        [user("Why?"), assistant("So."), user("Sure?"), assistant("Yes.") | {"thinking": "Well."}],
        {},
    ),
]


def byte_level():
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=CHATML + LLAMA3,
        show_progress=False,
    )
    backend.train_from_iterator([TEXT], trainer)
    backend.add_tokens([AddedToken(t, normalized=False) for t in ("<think>", "</think>")])
    return backend


def sentencepiece(kind):
    """Llama 2's with "Prepend" ("legacy"), a newer one's ("first") and Gemma's ("pieces")."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    replace = normalizers.Replace(" ", "▁")
    if kind == "legacy":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    elif kind == "pieces":
        backend.normalizer = replace
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    specials = ["<unk>", *GEMMA] if kind == "pieces" else LLAMA
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=480, special_tokens=[*specials, *bytes_], show_progress=False
    )
    words = TEXT.split(" ")
    backend.train_from_iterator([" ".join(words[i : i + 2]) for i in range(len(words))], trainer)
    written = json.loads(backend.to_str())
    written["added_tokens"] = [t for t in written["added_tokens"] if t["content"] in specials]
    if kind == "pieces":  # as in Gemma 2's file: only tokenizer_config.json calls them special
        for token in written["added_tokens"]:
            token["special"] = "turn" not in token["content"]
    backend = tokenizers.Tokenizer.from_str(json.dumps(written))
    if kind == "legacy":
        backend.add_special_tokens([AddedToken(t, rstrip=True, normalized=False) for t in PHI])
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return backend


def expected(template, tokenizer, names):
    peer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(HERE / f"{tokenizer}.json"), clean_up_tokenization_spaces=False, **names
    )
    peer.chat_template = (HERE / "templates" / f"{template.strip()}.jinja").read_text("utf-8")
    rows = []
    for prompt, response in CONVERSATIONS:
        if prompt[0]["role"] == "system" and template == "gemma":
            continue  # it refuses them
        whole = peer.apply_chat_template(
            prompt + response,
            return_dict=True,
            return_assistant_tokens_mask="training" in template,
        )
        asked = peer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
        rows.append({"prompt": prompt, "response": response, "prompt_ids": asked})
        rows[-1]["ids"] = whole["input_ids"]
        if "training" in template:
            rows[-1]["mask"] = whole["assistant_masks"]
    return {"template": template.strip(), "tokenizer": tokenizer, "names": names, "rows": rows}


def shaped(template, names, messages, variables):
    peer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(HERE / "bytes.json"), clean_up_tokenization_spaces=False, **names
    )
    peer.chat_template = (HERE / "templates" / f"{template}.jinja").read_text("utf-8")
    told = {"return_dict": False, **variables}
    return {
        **{"template": template, "tokenizer": "bytes", "names": names},
        **{"messages": messages, "given": variables},
        "prompt_ids": peer.apply_chat_template(messages[:-1], add_generation_prompt=True, **told),
        "ids": peer.apply_chat_template(messages, **told),
    }


if __name__ == "__main__":
    byte_level().save(str(HERE / "bytes.json"), pretty=False)
    for kind in ("legacy", "first", "pieces"):
        sentencepiece(kind).save(str(HERE / f"{kind}.json"), pretty=False)
    models_ = [expected(name, *model) for name, model in MODELS.items()]
    made = {"transformers": transformers.__version__, "models": models_}
    made["shapes"] = [shaped(*shape) for shape in SHAPES]
    (HERE / "expected.json").write_text(json.dumps(made, ensure_ascii=False), "utf-8")
