"""Tokenizers lose nothing and never read special tokens into text; conversations get one BOS, one
EOS.
"""

import dataclasses
import json
import os
import random
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import tokenizers

from jaxalign.data.chat import prompt_ids, response_row, text_row
from jaxalign.data.tokenizer_loading import load_tokenizer
from jaxalign.data.tokenizer_training import train_tokenizer
from jaxalign.errors import UserError

TEXTS = [
    "The film is a delight, and the cast is a joy.",
    "The cast is dull, the film is not a joy: don't go!",
    "A delight of a film; the cast don't disappoint.",
    "Don't miss the film, it is the film of the year 2002...",
] * 3
USER = [{"role": "user", "content": "How is the film?"}]
ANSWER = [{"role": "assistant", "content": "A joy."}]
HARD = [
    "",
    " ",
    "\n\n\t  two  spaces \r\n",
    "e\u0301 combining, \u00e9 composed",
    "日本語のテキスト and العربية and हिन्दी",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "\x00\x01\x7f\u2028\ufeff",
    "<pad><bos><eos> are words here",
    "'tis o'clock don't ''quoted'' rock'n'roll '",
    "x" * 3000 + " " * 100 + "9" * 50 + "!" * 50,
    "ＡＢ ﬁ İ ß ſ",
]


@pytest.fixture(scope="module", params=["word", "bpe"])
def tokenizer(request):
    return train_tokenizer(TEXTS, vocab_size=320, kind=request.param)


@pytest.fixture(scope="module")
def words():
    return train_tokenizer(TEXTS, vocab_size=320, kind="word")


@pytest.mark.parametrize("text", HARD + TEXTS[:4])
def test_every_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)
    assert all(3 <= i < tokenizer.vocab_size for i in ids)  # 0, 1, 2 are the special tokens
    assert tokenizer.encode_all([text, "a"])[0] == ids


def test_random_texts_come_back(tokenizer):
    draw = random.Random(0)
    for _ in range(300):
        points = [draw.choice([draw.randrange(0x250), draw.randrange(0xD800)]) for _ in range(30)]
        text = unicodedata.normalize("NFC", "".join(map(chr, points)))
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_are_no_text_and_text_is_no_special_token(tokenizer):
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
    ids = tokenizer.encode("<eos>")
    assert len(ids) > 1 and tokenizer.eos_id not in ids
    assert tokenizer.decode([1, *ids, 2, 0]) == "<eos>"
    assert tokenizer.token(tokenizer.eos_id) == "<eos>"


def test_frequent_words_are_one_token_rare_ones_are_spelled(words):
    for text, count in [("The film is a delight", 5), (" don't", 1), (" delightful", 2)]:
        ids = words.encode(text)
        assert len(ids) >= count and words.decode(ids) == text
    assert len(words.encode("The film is a delight")) == 5
    assert len(words.encode(" don't")) == 1
    rare = words.encode(" zyzzyva")
    assert len(rare) > 3
    assert words.vocab_size <= 320


def test_the_most_frequent_words_get_the_room_and_single_words_none():
    texts = ["blue red"] * 3 + ["green green green green", "blue violet"]
    # room for one word beside specials and bytes: " green" 3 times, " red" 3 times, "blue" 4 times
    one = train_tokenizer(texts, vocab_size=260, kind="word")
    assert [len(one.encode(word)) for word in ("blue", " red", "green", " violet")] == [1, 4, 5, 7]
    two = train_tokenizer(texts, vocab_size=261, kind="word")  # equal counts go by name
    assert [len(two.encode(word)) for word in ("blue", " red", " green")] == [1, 4, 1]
    # however much room: what occurs once is spelled
    assert len(train_tokenizer(texts, vocab_size=270, kind="word").encode(" violet")) > 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_training_is_the_same_in_another_process(kind, tmp_path):
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    code = (
        "import json, pathlib; from jaxalign.data.tokenizer_training import train_tokenizer;"
        f"d = pathlib.Path({str(tmp_path)!r}); texts = json.loads((d / 'texts.json').read_text());"
        f"train_tokenizer(texts, vocab_size=330, kind={kind!r}).save(d)"
    )
    changed = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=changed)
    here = train_tokenizer(TEXTS, vocab_size=330, kind=kind)
    assert here.backend.to_str(pretty=True) == (tmp_path / "tokenizer.json").read_text("utf-8")


def test_a_saved_tokenizer_is_the_same_one(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new")
    for path in (tmp_path / "new", tmp_path / "new" / "tokenizer.json"):
        loaded = load_tokenizer(path)
        for text in HARD + TEXTS:
            assert loaded.encode(text) == tokenizer.encode(text)
        assert (loaded.pad_id, loaded.bos_id, loaded.eos_id) == (0, 1, 2)
        assert loaded.vocab_size == tokenizer.vocab_size
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def gpt2_like(directory):
    """As Hugging Face saves GPT-2: one special token, a post-processor that adds it, truncation
    on.
    """
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|end|> $A <|end|>", special_tokens=[("<|end|>", 0)]
    )
    backend.enable_truncation(4)
    backend.enable_padding(length=9)
    backend.save(str(directory / "tokenizer.json"))


def test_a_hugging_face_tokenizer_adds_pads_and_cuts_nothing(tmp_path):
    gpt2_like(tmp_path)
    names = {"eos_token": {"content": "<|end|>"}, "bos_token": "<|end|>", "model_max_length": 4}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    loaded = load_tokenizer(tmp_path)
    assert loaded.pad_id == loaded.bos_id == loaded.eos_id == 0
    ids = loaded.encode(TEXTS[0] + "<|end|>")
    assert 0 not in ids and len(ids) > 9
    assert loaded.decode(ids) == TEXTS[0] + "<|end|>"
    row = text_row("A joy.<|end|>", loaded)
    assert row.tokens.tolist() == [0, *loaded.encode("A joy."), 0]
    assert row.is_response.tolist() == [False] + [True] * (len(row) - 1)


def test_special_tokens_are_those_of_the_first_file_that_names_them(tmp_path):
    """GPT-2's own folder names none of them but in `config.json`."""
    gpt2_like(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    (tmp_path / "config.json").write_text('{"bos_token_id": 0, "eos_token_id": [0, 7]}')
    loaded = load_tokenizer(tmp_path)
    assert (loaded.bos_id, loaded.eos_id, loaded.pad_id) == (0, 0, 0)
    other = {"eos_token": loaded.token(7), "unk_token": "<|end|>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(other))
    loaded = load_tokenizer(tmp_path)
    assert (loaded.bos_id, loaded.eos_id) == (0, 7)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": null, "eos_token": "<|end|>"}')
    loaded = load_tokenizer(tmp_path)
    assert (loaded.bos_id, loaded.eos_id) == (None, 0)


def test_special_tokens_beyond_a_model_are_text(tmp_path):
    """As <image_soft_token> of Gemma 3 is where the model reads no images."""
    gpt2_like(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    plain = load_tokenizer(tmp_path)
    whole = load_tokenizer(tmp_path)
    whole.backend.add_special_tokens(["<image>", "<pad>"])
    whole = dataclasses.replace(whole, pad_id=plain.vocab_size + 1)
    assert whole.vocab_size == plain.vocab_size + 2
    small = whole.with_ids_below(plain.vocab_size)
    assert small.vocab_size == plain.vocab_size and small.pad_id == small.eos_id
    text = "A joy.<image><|end|>"
    assert small.encode(text) == plain.encode(text)
    assert small.decode(small.encode(text)) == text
    assert whole.with_ids_below(whole.vocab_size) is whole


def test_a_model_without_bos_gets_none(tmp_path):
    gpt2_like(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    loaded = load_tokenizer(tmp_path)
    assert loaded.bos_id is None
    assert prompt_ids("A joy", loaded) == loaded.encode("A joy")
    row = text_row("A joy", loaded)  # nothing predicts the first token
    assert row.is_response.tolist() == [False] + [True] * (len(row) - 1)


def test_what_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(UserError, match="no tokenizer at"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="is not a tokenizer"):
        load_tokenizer(tmp_path)
    gpt2_like(tmp_path)
    with pytest.raises(UserError, match="no token '<pad>'"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<|end|>"}')
    with pytest.raises(UserError, match="no EOS"):
        load_tokenizer(tmp_path)


def test_too_small_or_unknown_is_named():
    with pytest.raises(UserError, match="vocab_size 258 is too small"):
        train_tokenizer(TEXTS, vocab_size=258)
    with pytest.raises(UserError, match="no tokenizer kind 'letters'"):
        train_tokenizer(TEXTS, vocab_size=300, kind="letters")
    assert train_tokenizer(TEXTS, vocab_size=259).vocab_size == 259


def count_specials(row):
    return [int((row.tokens == i).sum()) for i in (0, 1, 2)]


@pytest.mark.parametrize("wrapped", ["{}", "{}<eos>", "<bos>{}", "<bos>{}<eos>"])
def test_one_bos_one_eos_however_often_they_were_written(words, wrapped):
    plain = response_row("The film", " is a joy.", words)
    assert response_row(wrapped.format("The film"), wrapped.format(" is a joy."), words) == plain
    said = [{"role": "assistant", "content": wrapped.format("A joy.")}]
    chat = response_row(USER, said, words)
    assert chat == response_row(USER, ANSWER, words)
    for row in (plain, chat):
        assert count_specials(row) == [0, 1, 1]
        assert row.tokens[0] == words.bos_id and row.tokens[-1] == words.eos_id
        assert row.is_response[-1] and not row.is_response[0]


def test_a_conversation_as_it_is_written(words):
    row = response_row(USER, ANSWER, words)
    assert words.decode(row.tokens) == "User: How is the film?\nAssistant: A joy."
    assert words.decode(row.tokens[row.is_response]) == " A joy."
    turns = response_row(USER, ANSWER + USER + ANSWER, words)
    trained = words.decode(turns.tokens[turns.is_response])
    assert trained == " A joy.\n A joy."
    assert words.decode(turns.tokens) == (
        "User: How is the film?\nAssistant: A joy.\nUser: How is the film?\nAssistant: A joy."
    )
    assert count_specials(turns) == [0, 1, 1]


def test_sampling_continues_the_very_ids_that_were_trained_after(words):
    for prompt, response in [("The fil", "m is a joy"), ("", "The film"), (USER, ANSWER)]:
        row = response_row(prompt, response, words)
        ids = prompt_ids(prompt, words)
        assert row.tokens[: len(ids)].tolist() == ids
        assert not row.is_response[: len(ids)].any() and row.is_response[len(ids) :].all()


def test_eos_that_pads_is_still_trained_on(tmp_path):
    gpt2_like(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    loaded = load_tokenizer(tmp_path)
    row = response_row("The film", " is", loaded)
    assert row.tokens[-1] == loaded.pad_id and row.is_response[-1]


def test_roles_that_make_no_sense_are_named(words):
    with pytest.raises(UserError, match="no role 'bot'"):
        prompt_ids([{"role": "bot", "content": "x"}], words)
    with pytest.raises(UserError, match="begins and ends with the assistant"):
        response_row(USER, USER, words)
    with pytest.raises(UserError, match="begins and ends with the assistant"):
        response_row(USER, ANSWER + USER, words)


def test_decode_takes_arrays(words):
    ids = words.encode("A joy.")
    assert words.decode(np.array(ids, np.int32)) == words.decode(tuple(ids)) == "A joy."
