"""A `tokenizer.json` that is damaged, foreign or hostile is one line, soon and in little memory."""

import json
import os

import pytest
from tokenizers import pre_tokenizers

from jaxalign.data.tokenizer_json import _letter
from jaxalign.data.tokenizer_loading import load_tokenizer
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError

GIVEN = json.loads(train_bpe(["the film is good"], 270).backend.to_str())
SIZE = len(GIVEN["model"]["vocab"])
FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


def model(**fields):
    return {"model": GIVEN["model"] | fields}


def vocab(**tokens):
    return model(vocab=GIVEN["model"]["vocab"] | tokens)


def merges(*more):
    return model(merges=[*GIVEN["model"]["merges"], *more])


def added(**fields):
    token = {"id": SIZE, "content": "<q>", "special": True} | FLAGS
    return {"added_tokens": [*GIVEN["added_tokens"], token | fields]}


def other_model(kind, **fields):
    tokens = ["<pad>", "<bos>", "<eos>"]
    words = {token: i for i, token in enumerate(tokens)}
    return {"added_tokens": [], "model": {"type": kind, "vocab": words} | fields}


def replaced(pattern, content, count=1):
    one = {"type": "Replace", "pattern": pattern, "content": content}
    return {"normalizer": {"type": "Sequence", "normalizers": [one] * count}}


def split(regex):
    fields = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated"}
    return {"pre_tokenizer": fields | {"invert": False}}


def nested(depth):
    part = {"type": "NFC"}
    for _ in range(depth):
        part = {"type": "Sequence", "normalizers": [part]}
    return {"normalizer": part}


REMOVED = split(".")["pre_tokenizer"] | {"behavior": "Removed"}
LETTERS = {  # as a vocabulary of characters has them, without one for what is unknown
    "model": {"type": "BPE", "vocab": {}, "merges": []},
    "pre_tokenizer": None,
}

BAD = {
    "a list": ([], "Expected `object`, got `array`"),
    "no model": ({"model": None}, "got `null` - at `$.model`"),
    "a model that is a text": ({"model": "x"}, "got `str` - at `$.model`"),
    "another kind of model": (model(type="Foo"), "did not match"),
    "no vocabulary": (model(vocab=None), "at `$.model.vocab`"),
    "tokens without ids": (model(vocab=["a"]), "at `$.model.vocab[0]`"),
    "a negative id": (vocab(x=-1), "Expected `int` >= 0"),
    "an id that is a flag": (vocab(x=True), "got `bool`"),
    "half an id": (vocab(x=2.5), "got `float`"),
    "an endless id": (vocab(x=2**31), "Expected `int` <= 16777215"),
    "two tokens of one id": (vocab(x=5), "two tokens have the id 5"),
    "no tokens but special ones": (LETTERS, "makes no tokens of any text"),
    "no text left": (split(".") | {"pre_tokenizer": REMOVED}, "makes no tokens of any text"),
    "a merge of unknown tokens": (merges(["q", "qq"]), "`qq` out of vocabulary"),
    "a merge of three": (merges(["a", "b", "c"]), "did not match"),
    "merges that are numbers": (model(merges=[1]), "did not match"),
    "dropout": (model(dropout=0.5), "at `$.model.dropout`"),
    "prefixes that no piece has": (model(continuing_subword_prefix="##"), "is not a tokenizer"),
    "added far away": (added(id=9999), "has id 9999, but would be read as"),
    "added with the id of another": (added(id=0), "two added tokens have the same id"),
    "added at a token of another name": (added(id=7), "has id 7, but would be read as"),
    "added below 0": (added(id=-1), "Expected `int` >= 0"),
    "added with a text for an id": (added(id="5"), "got `str` - at `$.added_tokens[3].id`"),
    "added without a text": (added(content=""), "length >= 1"),
    "added that is no object": ({"added_tokens": [3]}, "at `$.added_tokens[0]`"),
    "added that are none": ({"added_tokens": None}, "at `$.added_tokens`"),
    "a normalizer that is a text": ({"normalizer": "NFC"}, "at `$.normalizer`"),
    "a normalizer of no kind": ({"normalizer": {"type": "Foo"}}, "did not match"),
    "a deep normalizer": (nested(200), "recursion limit"),
    "doubling": (replaced({"String": "a"}, "aa", 40), "more than 64 times as long"),
    "a large replacement": (replaced({"String": "a"}, "b" * 10**6), "more than 64 times as long"),
    "something for nothing": (replaced({"String": ""}, "x"), "more than 64 times as long"),
    "something for a place": (replaced({"Regex": "(?=a)"}, "bb"), "is not a tokenizer"),
    "a large prefix": ({"normalizer": {"type": "Prepend", "prepend": "x" * 99}}, "64 times"),
    "a broken expression": (split("[a-"), "Oniguruma error"),
    "a deep expression": (split("(" * 5000 + "a" + ")" * 5000), "Oniguruma error"),
    "an expression without end": (split("(x+)+y"), "retry-limit"),
    "another one": (split("(x|x)*y"), "retry-limit"),
    "no letters": ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "is not a tokenizer"),
    "a lost byte": (
        model(
            merges=[],
            vocab={token: i for token, i in GIVEN["model"]["vocab"].items() if token != "!"},
        ),
        "byte-level, but the byte 0x21 is no token",
    ),
    "a growing decoder": (
        {"decoder": replaced({"String": "a"}, "aa", 9)["normalizer"]},
        "did not match|decoder makes texts more than 64 times",
    ),
    "a post-processor that drops the text": (
        {
            "post_processor": {
                "type": "TemplateProcessing",
                **{"single": [], "pair": [], "special_tokens": {}},
            }
        },
        "post-processor adds or drops ids of the text",
    ),
    "a newer version": ({"version": "9.9"}, "Unknown tokenizer version"),
    "a score that is none": (
        other_model("Unigram", vocab=[["<pad>", float("inf")]], unk_id=0),
        "not finite",
    ),
    "a unigram token twice": (
        other_model("Unigram", vocab=[["<pad>", 0.0], ["<pad>", 1.0]], unk_id=0),
        "stands twice",
    ),
    "an unknown token that is none": (
        other_model("Unigram", vocab=[["<pad>", 0.0]], unk_id=7),
        "is not a tokenizer",
    ),
}


def written(folder, parts):
    content = GIVEN | parts if isinstance(parts, dict) else parts
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_one_line(tmp_path, capfd, name):
    parts, message = BAD[name]
    with pytest.raises(UserError) as error:
        load_tokenizer(written(tmp_path, parts))
    line = str(error.value)
    assert "tokenizer.json" in line and "\n" not in line and len(line) < 600
    assert any(part in line for part in message.split("|"))
    assert capfd.readouterr().err == ""  # a panic of the library prints nothing


def test_letters_of_bytes_are_those_of_the_library():
    assert {_letter(byte) for byte in range(256)} == set(pre_tokenizers.ByteLevel.alphabet())
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in ("\t\n\r !Az~", "\x7f\x80\xa0\xad\xff", "日本🎉", "\u2028"):
        ((letters, _),) = as_bytes.pre_tokenize_str(text)
        assert letters == "".join(map(_letter, text.encode()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "is not JSON") for text in ("", "{", "\x00", "[" * 10**5, '{"a": 1, "a": 2}')),
        (json.dumps(GIVEN).replace('"<bos>": 1', '"<pad>": 1'), "'<pad>' stands there twice"),
    ],
)
def test_what_is_no_json_is_one_line(tmp_path, text, message):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["a directory", "a pipe", "a link to itself"])
def test_what_is_no_file_is_one_line(tmp_path, kind):

    file = tmp_path / "tokenizer.json"
    {
        "a directory": file.mkdir,
        "a pipe": lambda: os.mkfifo(file),
        "a link to itself": lambda: file.symlink_to(file),
    }[kind]()
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_padding_and_truncation_are_not_used(tmp_path):
    """They would make a text of 10^12 tokens, or of one."""
    padding = {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}
    cut = {"max_length": 1, "strategy": "LongestFirst", "stride": 5, "direction": "Right"}
    loaded = load_tokenizer(written(tmp_path, {"padding": padding, "truncation": cut}))
    assert loaded.decode(loaded.encode("the film is good")) == "the film is good"


@pytest.mark.parametrize(
    "parts",
    [
        other_model("WordLevel", unk_token="<none>"),
        other_model("WordPiece", unk_token="<none>", max_input_chars_per_word=9)
        | {"pre_tokenizer": None},
    ],
)
def test_a_text_that_cannot_be_spelled_is_one_line(tmp_path, parts):
    parts["model"].setdefault("continuing_subword_prefix", "##")
    loaded = load_tokenizer(written(tmp_path, parts))
    with pytest.raises(UserError, match=r"the tokenizer: .*Missing \[UNK\] token"):
        loaded.encode("film")
    with pytest.raises(UserError, match=r"the tokenizer: .*Missing \[UNK\] token"):
        loaded.encode_all(["film"])


@pytest.mark.parametrize(
    "fields",
    [
        *({"eos_token": 3}, {"eos_token": ["<eos>"]}, {"additional_special_tokens": "<a>"}),
        *({"additional_special_tokens": [3]}, {"added_tokens_decoder": []}),
        *({"added_tokens_decoder": {"0": "x"}}, {"extra_special_tokens": 3}),
        *({"chat_template": [{"name": "default"}]}, {"chat_template": [3]}, {"chat_template": {}}),
        *({"eos_token": {"content": 3}}, {"added_tokens_decoder": {"0": {"special": "yes"}}}),
    ],
)
def test_settings_of_other_types_are_one_line(tmp_path, fields):
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names | fields))
    with pytest.raises(UserError, match=r"tokenizer_config\.json: .* at `\$\.") as error:
        load_tokenizer(written(tmp_path, {}))
    assert "\n" not in str(error.value)


def test_half_a_surrogate_pair_in_a_name_is_one_line(tmp_path):
    train_bpe(["a"], 270).save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        r'{"eos_token": "<eos>", "pad_token": "\ud800"}'
    )
    with pytest.raises(UserError, match=r"tokenizer_config\.json holds half a surrogate pair"):
        load_tokenizer(tmp_path)
