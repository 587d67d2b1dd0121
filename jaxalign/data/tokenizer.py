"""Text to token ids and back, without loss, on the `tokenizers` library.

Three rules hold for every tokenizer, ours or a loaded one:

- text never turns into special tokens: "<eos>" in somebody's text is five characters, not an end;
- `encode` adds nothing, whatever a post-processor would: BOS and EOS are placed once, by `chat.py`;
- text is in NFC; `decode(encode(text))` is that text again, for any text (with our own tokenizers).
"""

import collections
import dataclasses
import functools
import json
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from jaxalign.data.marks import (
    MarkedTokenizer,
    marked_tokenizer,
    with_ids_below,
    with_special_tokens,
)
from jaxalign.errors import UserError

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
SPECIAL = ("pad_token", "bos_token", "eos_token")
TEMPLATE = "chat_template.jinja"
# A word with the space before it, a number, a run of punctuation, or other white space. Lengths are
# bounded because matching a piece against the vocabulary costs the square of its length.
PIECES = Regex(
    r" ?\p{L}(?:[\p{L}\p{M}]|'(?=\p{L})){0,31}"
    r"| ?\p{N}{1,4}"
    r"| ?[^\s\p{L}\p{N}]{1,8}"
    r"|\s{1,8}"
)


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A tokenizer with the ids that training needs.

    bos_id: None for models that have no BOS.
    eos_id: the one id that ends a response.
    chat_template: Jinja that writes conversations as the model knows them, if it has its own.
    settings: the other fields of a `tokenizer_config.json`, kept for who loads what we save.
    """

    backend: tokenizers.Tokenizer
    pad_id: int
    bos_id: int | None
    eos_id: int
    chat_template: str | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    @functools.cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @functools.cached_property
    def for_marks(self) -> MarkedTokenizer:
        """The tokenizer of what a chat template writes."""
        return marked_tokenizer(self.backend)

    @functools.cached_property
    def special_names(self) -> dict[str, str]:
        """`{"bos_token": "<s>", ...}`: what chat templates call the special tokens."""
        ids = {"pad_token": self.pad_id, "bos_token": self.bos_id, "eos_token": self.eos_id}
        ours = {key: self.token(i) for key, i in ids.items() if i is not None}
        return ours | _names(self.settings)

    def encode(self, text: str) -> list[int]:
        """The ids of the text, without BOS or EOS."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many texts, in parallel."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of the ids; special tokens are left out."""
        return self.backend.decode([int(i) for i in np.asarray(ids)], skip_special_tokens=True)

    def decode_all(self, rows: Sequence[Sequence[int] | np.ndarray]) -> list[str]:
        """`decode` for many rows, in parallel."""
        ids = [np.asarray(row).tolist() for row in rows]
        return self.backend.decode_batch(ids, skip_special_tokens=True)

    def token(self, token_id: int) -> str:
        """The text of one id as the vocabulary spells it."""
        return str(self.backend.id_to_token(int(token_id)))

    def with_ids_below(self, size: int) -> "Tokenizer":
        """Without the special tokens from that id on, for a model that has no rows for them.

        Some models (Gemma 3 without images) come with the tokenizer of a larger one.
        """
        if self.vocab_size <= size:
            return self
        backend = with_ids_below(self.backend, size)
        backend.encode_special_tokens = True
        pad_id = self.pad_id if self.pad_id < size else self.eos_id
        return dataclasses.replace(self, backend=backend, pad_id=pad_id)

    def save(self, directory: str | Path) -> None:
        """Writes `tokenizer.json`, `tokenizer_config.json` (the names of the special tokens, and
        what a loaded one had there) and, where there is one, `chat_template.jinja`.
        """
        names = {"pad_token": self.pad_id, "bos_token": self.bos_id, "eos_token": self.eos_id}
        named = {key: None if i is None else self.token(i) for key, i in names.items()}
        config = json.dumps(self.settings | named, ensure_ascii=False, indent=2)
        contents = {"tokenizer.json": self.backend.to_str(pretty=True)}
        contents["tokenizer_config.json"] = config
        if self.chat_template is not None:
            contents[TEMPLATE] = self.chat_template
        Path(directory).mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            aside = Path(directory) / f".{name}.{os.getpid()}"
            aside.write_bytes(text.encode())  # line ends of a template stay as they are
            aside.replace(Path(directory) / name)
        if self.chat_template is None:  # one of another tokenizer would be read as ours
            (Path(directory) / TEMPLATE).unlink(missing_ok=True)


def _wrapped(backend: tokenizers.Tokenizer) -> Tokenizer:
    """With our own special tokens; other libraries are told to put a BOS in front, as we do."""
    backend.encode_special_tokens = True
    vocabulary = backend.get_vocab()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return Tokenizer(
        backend, pad_id=vocabulary[PAD], bos_id=vocabulary[BOS], eos_id=vocabulary[EOS]
    )


def _byte_level(model: models.Model) -> tokenizers.Tokenizer:
    """NFC, pieces, bytes: every text has a spelling."""
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.NFC()
    pieces = pre_tokenizers.Split(PIECES, behavior="isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pieces, as_bytes])
    backend.decoder = decoders.ByteLevel()
    return backend


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level byte-pair encoding: frequent words become one token, rare ones several."""
    _check_size(vocab_size)
    backend = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return _wrapped(backend)


def train_words(texts: Iterable[str], vocab_size: int, *, pieces_share: float = 0.2) -> Tokenizer:
    """A vocabulary of the most frequent whole words; the others are spelled in pieces and bytes.

    A word is matched from its start with the longest entry, again and again. So a text made of
    frequent words is one token a word, and a model that samples whole words writes no broken ones.

    Args:
      vocab_size: specials, 256 bytes, pieces and words together (fewer if the texts have fewer
      words).
      pieces_share: share of the entries after the bytes that goes to frequent parts of words.
    """
    _check_size(vocab_size)
    texts = list(texts)
    room = vocab_size - 3 - 256
    pieces = train_bpe(texts, 3 + 256 + int(room * pieces_share))
    vocabulary = dict(sorted(pieces.backend.get_vocab().items(), key=lambda item: item[1]))
    for word in _words_by_frequency(texts, pieces.backend):
        if len(vocabulary) == vocab_size:
            break
        vocabulary.setdefault(word, len(vocabulary))
    longest_first = models.WordPiece(
        vocabulary, unk_token=PAD, continuing_subword_prefix="", max_input_chars_per_word=10_000
    )
    backend = _byte_level(longest_first)
    backend.add_special_tokens([PAD, BOS, EOS])
    return _wrapped(backend)


def _words_by_frequency(texts: list[str], backend: tokenizers.Tokenizer) -> list[str]:
    """The pieces that occur at least twice, in bytes, most frequent first, equal ones by name."""
    counts = collections.Counter()
    pre_tokenizer: Any = backend.pre_tokenizer
    for text in texts:
        normal = unicodedata.normalize("NFC", text)
        counts.update(piece for piece, _ in pre_tokenizer.pre_tokenize_str(normal))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, count in ranked if count > 1]


def _check_size(vocab_size: int) -> None:
    if vocab_size < 3 + 256:
        raise UserError(
            f"vocab_size {vocab_size} is too small: 3 special tokens and 256 bytes need 259"
        )


TRAINERS = {"word": train_words, "bpe": train_bpe}


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, kind: str = "word") -> Tokenizer:
    """Trains a tokenizer on the texts; the same texts in any order of processes give the same one.

    Args:
      kind: "word" (`train_words`) or "bpe" (`train_bpe`).
    """
    if kind not in TRAINERS:
        raise UserError(f"no tokenizer kind {kind!r}; there are {sorted(TRAINERS)}")
    return TRAINERS[kind](texts, vocab_size)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """A saved tokenizer, or any Hugging Face one: a directory with `tokenizer.json`, or that file.

    The special tokens are those that `tokenizer_config.json` beside it names. One that it leaves
    out is that of `special_tokens_map.json` or the id in `config.json`, as older models have them;
    without any of these, <pad>, <bos> and <eos>. Where a model has no padding token, EOS serves:
    masks, not ids, say what is padding.

    A response ends with `eos_token` of that file and nothing else. Where `generation_config.json`
    lists several ids (Gemma's <eos> and <end_of_turn>), the others end nothing here; to stop at
    another one, name it as eos_token.

    The chat template is `chat_template.jinja` beside it, or else `chat_template` of
    `tokenizer_config.json`: of several, the one named "default".
    """
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise UserError(f"no tokenizer at {file}")
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{file} is not a tokenizer: {error}") from None
    settings = _settings(file, backend)
    backend = with_special_tokens(backend, _all_names(settings))
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True
    names = _names(settings)
    ids = {key: _token_id(backend, names.get(key), file) for key in SPECIAL}
    if ids["eos_token"] is None:
        raise UserError(f"{file}: no EOS; name it as eos_token in tokenizer_config.json beside it")
    pad_id = ids["eos_token"] if ids["pad_token"] is None else ids["pad_token"]
    template = _template(file.with_name(TEMPLATE), settings.pop("chat_template", None))
    return Tokenizer(
        backend,
        pad_id=pad_id,
        bos_id=ids["bos_token"],
        eos_id=ids["eos_token"],
        chat_template=template,
        settings=settings,
    )


def _settings(file: Path, backend: tokenizers.Tokenizer) -> dict[str, Any]:
    """What stands beside `tokenizer.json` about it; the first of the files to say a thing."""
    named = _object(file.with_name("special_tokens_map.json"))
    ids = _object(file.with_name("config.json"))
    by_id = {key: _first(ids.get(f"{key}_id")) for key in SPECIAL}
    found = {key: backend.id_to_token(i) for key, i in by_id.items() if isinstance(i, int)}
    found |= {key: value for key, value in named.items() if key in SPECIAL}
    config = file.with_name("tokenizer_config.json")
    if not config.is_file() and not found:
        return dict(zip(SPECIAL, (PAD, BOS, EOS), strict=True))
    return found | _object(config)


def _object(file: Path) -> dict[str, Any]:
    """The JSON object in a file; none where there is no file."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: invalid JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: not an object but {type(content).__name__}")
    return content


def _first(ids: Any) -> Any:
    """A field may list several ids; the first one counts."""
    return ids[0] if isinstance(ids, list) and ids else ids


def _template(file: Path, given: Any) -> str | None:
    if file.is_file():
        return file.read_bytes().decode()
    if given is None or isinstance(given, str):
        return given
    if not isinstance(given, list):
        wanted = f"wanted text or a list in tokenizer_config.json beside {file}"
        raise UserError(f"chat_template is {type(given).__name__}, {wanted}")
    named = {entry["name"]: entry["template"] for entry in given}
    if "default" not in named:
        raise UserError(f"{file.parent}: chat templates {sorted(named)}, but none named 'default'")
    return named["default"]


def _names(settings: dict[str, Any]) -> dict[str, str]:
    """The fields that name a special token (plain, or `{"content": name}` as some files write)."""
    fields = {key: _name(value) for key, value in settings.items() if key.endswith("_token")}
    return {key: name for key, name in fields.items() if name is not None}


def _name(value: Any) -> str | None:
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None  # add_bos_token is no name


def _all_names(settings: dict[str, Any]) -> list[str]:
    """The special tokens that have a field of their own and those that are only listed."""
    lists = [settings.get("additional_special_tokens"), settings.get("extra_special_tokens")]
    values = [v for x in lists for v in (x.values() if isinstance(x, dict) else x or ())]
    added = (settings.get("added_tokens_decoder") or {}).values()
    listed = [_name(value) for value in [*values, *(x for x in added if x.get("special"))]]
    return [*_names(settings).values(), *(name for name in listed if name is not None)]


def _token_id(backend: tokenizers.Tokenizer, name: str | None, file: Path) -> int | None:
    if name is None:
        return None
    if (token_id := backend.token_to_id(name)) is None:
        raise UserError(f"{file}: no token {name!r}; name it in tokenizer_config.json beside it")
    return token_id
