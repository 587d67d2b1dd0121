"""Prompt and response are the text that was given, as ids and as text, with every kind of
tokenizer: what goes on from a text has no space before it that nobody wrote.
"""

import functools
import itertools
import json
import pathlib
import tempfile

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from jaxalign.batches.tokens import TokenBatch
from jaxalign.data.chat import prompt_ids, response_row, step_row, text_row
from jaxalign.data.marks import marked_tokenizer
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.data.tokenizer_loading import load_tokenizer
from jaxalign.data.tokenizer_training import train_tokenizer
from jaxalign.errors import UserError
from jaxalign.pretrained.gguf.tokenizer import load_gguf_tokenizer
from jaxalign.recipes.prompts import Prompts
from jaxalign.recipes.reward_sources import judges_of
from tests.folders import FILES
from tests.pretrained.test_gguf_tokenizer import GIVEN, byte_level, sentence_piece

CHAT = FILES / "chat"
SPACES = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
STRIPPED = decoders.Sequence([*SPACES, decoders.Strip(" ", 1, 0)])


@functools.cache
def llama() -> Backend:
    """A byte-fallback vocabulary of SentencePiece with a merge list, without its edges."""
    with tempfile.TemporaryDirectory() as folder:
        path = sentence_piece(pathlib.Path(folder) / "x.gguf", "llama")
        return load_gguf_tokenizer(path).backend


def edged(normalizer=None, pre_tokenizer=None, decoder=STRIPPED) -> Tokenizer:
    backend = Backend.from_str(llama().to_str())
    written = json.loads(backend.to_str()) | {"normalizer": None, "pre_tokenizer": None}
    backend = Backend.from_str(json.dumps(written))
    if normalizer is not None:
        backend.normalizer = normalizer
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoder
    backend.encode_special_tokens = True
    return Tokenizer(backend, pad_id=0, bos_id=2, eos_id=1)


def metaspace(scheme, split):
    pre = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    return edged(
        None,
        pre,
        decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme)]),
    )


def gpt2(add_prefix_space):
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    backend.train_from_iterator(["the price is $46"] * 3, trainer)
    backend.encode_special_tokens = True
    return Tokenizer(backend, pad_id=0, bos_id=None, eos_id=0)


def from_gguf(write, *args):
    with tempfile.TemporaryDirectory() as folder:
        return load_gguf_tokenizer(write(pathlib.Path(folder) / "x.gguf", *args))


def from_chat(name, bos, eos):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "tokenizer.json"
        file.write_bytes((CHAT / f"{name}.json").read_bytes())
        names = {"bos_token": bos, "eos_token": eos}
        (file.parent / "tokenizer_config.json").write_text(json.dumps(names))
        return load_tokenizer(file)


PREPEND = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
KINDS = {
    "word": lambda: train_tokenizer(["the price is $46"] * 3, vocab_size=300),
    "bpe": lambda: train_tokenizer(["the price is $46"] * 3, vocab_size=300, kind="bpe"),
    "prepend": lambda: edged(PREPEND),
    "prepend, decoder that keeps": lambda: edged(PREPEND, decoder=decoders.Sequence(SPACES)),
    "metaspace always": lambda: metaspace("always", False),
    "metaspace first": lambda: metaspace("first", False),
    "metaspace first, split": lambda: metaspace("first", True),
    "metaspace never": lambda: metaspace("never", False),
    "gemma": lambda: edged(normalizers.Replace(" ", "▁"), decoder=decoders.Sequence(SPACES)),
    "gpt2": lambda: gpt2(False),
    "gpt2, add_prefix_space": lambda: gpt2(True),
    "gguf llama": lambda: from_gguf(sentence_piece, "llama"),
    "gguf gemma": lambda: from_gguf(sentence_piece, "gemma"),
    "gguf byte level": lambda: from_gguf(byte_level, "gpt-2"),
    "chat bytes": lambda: from_chat("bytes", None, "<|im_end|>"),
    "chat first": lambda: from_chat("first", "<s>", "</s>"),
    "chat legacy": lambda: from_chat("legacy", "<s>", "</s>"),
    "chat pieces": lambda: from_chat("pieces", "<bos>", "<eos>"),
}
PREFIXED = ("prepend", "metaspace always", "metaspace first", "add_prefix_space", "gguf llama")
PROMPTS = [
    *("", " ", "the price is $", "the price is $ ", " lead", "  two", "a\n", "\n", "1", "e", "é"),
    *("🎉", "<s>", "</s> x", "<unk>x", "日本", "\t", "<|end|>", "a<eos> b"),
]
RESPONSES = [
    *("46", " 46", "  46", "\n46", " ", "46 ", "\u0301x", "🎉 y", "<s>", "</s>a", "日本", "\n\n"),
    *("<|end|>a", "<pad>", "'s", "<0x0A>"),
]


@functools.cache
def kind(name) -> Tokenizer:
    return KINDS[name]()


def check(tokenizer, prompt, response):
    """The row is the text; the response alone is what was added; the prompt's ids come first.

    A BOS or EOS that somebody wrote around a text is not part of it.
    """
    row, asked = response_row(prompt, response, tokenizer), prompt_ids(prompt, tokenizer)
    assert row.tokens[: len(asked)].tolist() == asked
    own = row.tokens[len(asked) :]
    assert own[-1] == tokenizer.eos_id
    bos = "" if tokenizer.bos_id is None else tokenizer.token(tokenizer.bos_id)
    ends = (bos, tokenizer.token(tokenizer.eos_id))
    prompt, response = (x.removeprefix(ends[0]).removesuffix(ends[1]) for x in (prompt, response))
    assert tokenizer.decode(row.tokens) == prompt + response
    assert tokenizer.decode_after([asked], [own]) == [response]
    assert tokenizer.decode(asked) == prompt


@pytest.mark.parametrize("name", KINDS)
def test_prompt_and_response_are_what_was_given(name):
    for prompt, response in itertools.product(PROMPTS, RESPONSES):
        check(kind(name), prompt, response)


# No ▁, which pieces spell a space with; no marks that NFC joins to what is before them.
TEXT = st.text(
    st.one_of(
        st.sampled_from(list(" \n\tab1.$é日🎉<>|")),
        st.characters(exclude_categories=["Cs", "Mn", "Mc"], exclude_characters="▁"),
    ),
    max_size=12,
).map(lambda text: normalizers.NFC().normalize_str(text))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(prompt=TEXT, response=TEXT)
def test_any_prompt_and_response(prompt, response):
    for name in KINDS:
        check(kind(name), prompt, response)


@pytest.mark.parametrize("name", KINDS)
def test_the_prompts_own_ids_are_those_of_the_library(name):
    """A text that begins with no space is read as ever, a space in front included."""
    tokenizer = kind(name)
    for text in ("the price is $46", "a", "Why?\n\nSo."):
        ids = tokenizer.backend.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text) == tokenizer.encode_all([text])[0] == ids
        first, spaced = tokenizer.encode_after(text), tokenizer.encode_after(f" {text}")
        assert ids == (spaced if name.endswith(PREFIXED) or "first" in name else first) or (
            name in ("prepend, decoder that keeps", "chat legacy") and ids == spaced
        )


def test_a_continuation_by_hand():
    """`▁is▁t` and `he`, no `▁he`; one space in ` he`, not two."""
    tokenizer = kind("prepend")
    rows = [response_row("is t", said, tokenizer).tokens[1:-1] for said in ("he", " he")]
    spelled = ["".join(map(tokenizer.token, row)) for row in rows]
    assert spelled == ["▁is▁the", "▁is▁t▁he"]


def test_conversations_and_steps_have_no_spaces_of_the_tokenizer():
    said = [{"role": "user", "content": "Why?"}], [{"role": "assistant", "content": "So."}]
    for name in KINDS:
        row = response_row(*said, kind(name))
        assert kind(name).decode(row.tokens) == "User: Why?\nAssistant: So."
        steps = step_row("2+2", ["a", " b"], kind(name))
        assert kind(name).decode(steps.tokens) == "2+2a\n b\n"
        assert steps.is_response.sum() == 2
        assert kind(name).decode(text_row(" So.", kind(name)).tokens) == " So."


@pytest.mark.parametrize("name", ["prepend", "metaspace always", "metaspace first", "bpe"])
def test_reward_functions_get_the_text_that_was_sampled(name):
    """The last token of each response is one that ends it, or none."""
    tokenizer = kind(name)
    stops = Tokenizer(tokenizer.backend, 0, tokenizer.bos_id, 1, also_stop=(9,))
    heard = {}

    def reward(prompts, responses):
        heard.update(zip(prompts, responses, strict=True))
        return [0.0] * len(responses)

    prompts = [prompt_ids(text, tokenizer) for text in ("is $", "is ", "")]
    ends = [("46", [9]), (" 46", [1])]
    answers = [stops.encode_after(text) + end for text, end in ends] + [stops.encode("So")]
    width = max(len(a) + len(b) for a, b in zip(prompts, answers, strict=True))
    tokens, masks = np.zeros((3, width), np.int32), np.zeros((2, 3, width), bool)
    for i, (asked, own) in enumerate(zip(prompts, answers, strict=True)):
        tokens[i, : len(asked) + len(own)] = asked + own
        masks[0, i, : len(asked)] = True
        masks[1, i, len(asked) : len(asked) + len(own)] = True
    rows = TokenBatch(
        tokens=tokens, prompt_mask=masks[0], response_mask=masks[1], index=np.arange(3)
    )
    judges = judges_of(reward, stops, Prompts(ids=prompts))
    judges(rows, np.full((3, 1), np.nan), np.arange(3))
    assert heard == {"is $": "46", "is ": " 46", "": "So"}


def test_a_response_that_begins_inside_a_character_leaves_the_prompt_alone():
    """A sampled byte that ends nothing is shown as such; the prompt's emoji stays one."""
    tokenizer = kind("prepend")
    asked, stray = prompt_ids("🎉", tokenizer), tokenizer.backend.token_to_id("<0x9F>")
    assert tokenizer.decode_after([asked], [[stray]]) == ["\ufffd"]
    assert tokenizer.decode_after([asked], [[]]) == [""]


def test_decoders_that_join_words_keep_the_space_between_them():
    """Word-level vocabularies have no spaces of their own: the decoder writes them."""
    backend = Backend(models.WordLevel({"<e>": 0, "the": 1, "price": 2, "?": 3}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = Tokenizer(backend, pad_id=0, bos_id=None, eos_id=0)
    assert tokenizer.decode_after([[1]], [[2]]) == [" price"]


def test_pieces_of_templated_text_that_are_tokenized_apart():
    """Behind a text a piece has no space before it, behind a special token it has."""
    backend = Backend.from_str(edged(PREPEND).backend.to_str())
    backend.add_special_tokens([tokenizers.AddedToken("<|user|>", special=True)])
    marked = marked_tokenizer(backend)

    def pieces(text, cut):
        parts = marked.split(marked.marked(text), [len(marked.marked(text[:cut]))])
        return ["".join(backend.id_to_token(i) for i in ids) for ids in parts]

    assert len(marked.encode("the")) == 1  # so that a cut inside is a cut through a token
    assert pieces("th" + "e end", 2) == ["▁th", "e▁end"]
    assert pieces("<|user|>th" + "e<|user|>so", 10) == ["<|user|>▁th", "e<|user|>▁so"]
    assert pieces("<|user|>the" + "<|user|>so", 11) == ["<|user|>▁the", "<|user|>▁so"]


def test_given_tokenizers_have_the_prefix_that_their_files_say():
    assert [GIVEN[name]["add_space_prefix"] for name in ("llama", "gemma")] == [True, False]
    for name, prefixed in (("gguf llama", True), ("gguf gemma", False)):
        assert (kind(name).encode("a") != kind(name).encode_after("a")) == prefixed


def before_every_word():
    """T5's: white space is dropped, and every word gets a space."""
    always = pre_tokenizers.Metaspace(prepend_scheme="always")
    return edged(None, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), always]))


def before_every_piece():
    prefixed = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    tokenizer = gpt2(False)
    parts = [pre_tokenizers.Split(" ", "removed"), prefixed]
    tokenizer.backend.pre_tokenizer = pre_tokenizers.Sequence(parts)
    return tokenizer


@pytest.mark.parametrize("make", [before_every_word, before_every_piece])
def test_a_tokenizer_after_which_nothing_can_go_on_is_refused(make, tmp_path):
    make().save(tmp_path)
    with pytest.raises(UserError, match="puts a space before words inside a text") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", KINDS)
def test_the_others_are_loaded_as_they_were(name, tmp_path):
    kind(name).save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.encode(" so, be") == kind(name).encode(" so, be")
