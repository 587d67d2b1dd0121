"""Text to token ids and back, without loss, on the `tokenizers` library.

Three rules hold for every tokenizer, ours or a loaded one:

- text never turns into special tokens: "<eos>" in somebody's text is five characters, not an end;
- `encode` adds nothing, whatever a post-processor would: BOS and EOS are placed once, by `chat.py`;
- `decode(encode(text))` is that text again, for any text that the vocabulary can spell (our own
  tokenizers: any text in NFC), and so is `decode(encode(text) + encode_after(more))` for
  `text + more`.
"""

import collections
import dataclasses
import functools
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from jaxalign.data.dummy_prefix import (
    check_continues,
    has_prefix,
    has_prefix_behind_specials,
    without_prefix,
)
from jaxalign.data.generation import FILE as GENERATION_FILE
from jaxalign.data.generation import Generation, read_generation
from jaxalign.data.marks import (
    MarkedTokenizer,
    marked_tokenizer,
    special_tokens,
    with_ids_below,
    with_special_tokens,
)
from jaxalign.data.tokenizer_json import lost_bytes, one_line, read_backend
from jaxalign.errors import UserError
from jaxalign.system.files import (
    exists,
    make_directory,
    read_bytes,
    read_json,
    shown,
    shown_path,
    typed,
    write_atomically,
)

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Named:
    content: str | None = None
    special: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Template:
    name: str
    template: str


Name = str | _Named | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Names:
    """The fields of `tokenizer_config.json` and `special_tokens_map.json` that are read."""

    pad_token: Name = None
    bos_token: Name = None
    eos_token: Name = None
    unk_token: Name = None
    additional_special_tokens: list[Name] | None = None
    extra_special_tokens: list[Name] | dict[str, Name] | None = None
    added_tokens_decoder: dict[str, _Named] | None = None
    chat_template: str | list[_Template] | None = None


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A tokenizer with the ids that training needs.

    bos_id: None for models that have no BOS.
    eos_id: the id that is written behind a response.
    also_stop: other ids that end a response when a model samples them.
    chat_template: Jinja that writes conversations as the model knows them, if it has its own.
    settings: the other fields of a `tokenizer_config.json`, kept for who loads what we save.
    generation: the fields of a `generation_config.json` that name no ids, kept in the same way.
    """

    backend: tokenizers.Tokenizer
    pad_id: int
    bos_id: int | None
    eos_id: int
    chat_template: str | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    also_stop: tuple[int, ...] = ()
    generation: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """All ids that end a response; EOS is the first."""
        return (self.eos_id, *(i for i in self.also_stop if i != self.eos_id))

    @functools.cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @functools.cached_property
    def id_ranges(self) -> tuple[tuple[int, int], ...]:
        """The ids that are tokens, as pairs of first id and last plus one."""
        ids = np.array(sorted(self.backend.get_vocab(with_added_tokens=True).values()))
        parts = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
        return tuple((int(part[0]), int(part[-1]) + 1) for part in parts)

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

    @functools.cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The backend that puts no space before a text and takes none away."""
        return without_prefix(self.backend)

    @functools.cached_property
    def _prefix(self) -> str:
        """What stands before every text: a space, or nothing."""
        return " " if has_prefix(self.backend, self._plain) else ""

    @functools.cached_property
    def _specials(self) -> frozenset[int]:
        return frozenset(special_tokens(self.backend).values())

    @functools.cached_property
    def _prefix_behind_specials(self) -> bool:
        return bool(self._prefix) and has_prefix_behind_specials(self.backend)

    @functools.cached_property
    def _lost_bytes(self) -> frozenset[int]:
        """The bytes that the backend would leave out of a text, in silence."""
        model = self.backend.model
        parts = f"{self.backend.normalizer}{self.backend.pre_tokenizer}"
        if not isinstance(model, models.BPE) or model.unk_token or "ByteLevel(" not in parts:
            return frozenset()
        return lost_bytes(self.backend.get_vocab(with_added_tokens=True))

    def _check_spelled(self, text: str) -> None:
        if self._lost_bytes and (lost := self._lost_bytes.intersection(text.encode())):
            raise UserError(
                f"the vocabulary has no token for the byte 0x{min(lost):02X} of a text; take it out"
            )

    def encode(self, text: str) -> list[int]:
        """The ids of a text from its beginning, without BOS or EOS."""
        return self.encode_after(f"{self._prefix}{text}") if text else []

    def encode_after(self, text: str) -> list[int]:
        """The ids of a text that goes on from another one: nothing is put before it."""
        self._check_spelled(text)
        with one_line("the tokenizer"):
            return self._plain.encode(text, add_special_tokens=False).ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many texts, in parallel."""
        spaced = [text and f"{self._prefix}{text}" for text in texts]
        for text in texts:
            self._check_spelled(text)
        with one_line("the tokenizer"):
            encodings = self._plain.encode_batch_fast(spaced, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of the ids, of a whole text or its beginning; special tokens are left out."""
        return self.decode_all([ids])[0]

    def decode_all(self, rows: Sequence[Sequence[int] | np.ndarray]) -> list[str]:
        """`decode` for many rows, in parallel."""
        return [text.removeprefix(self._prefix) for text in self._raw(rows)]

    def decode_after(
        self,
        beginnings: Sequence[Sequence[int] | np.ndarray],
        rows: Sequence[Sequence[int] | np.ndarray],
    ) -> list[str]:
        """The texts of rows that go on from other rows: what they add to them.

        Decoded alone, a row would lose its first space wherever a decoder takes one away.
        """
        before = [np.asarray(row).tolist() for row in beginnings]
        own = [np.asarray(row).tolist() for row in rows]
        heads, alone = self._raw(before), self._raw(own)
        wholes = self._raw([a + b for a, b in zip(before, own, strict=True)])
        return [
            self._added(ids, head, whole, text)
            for ids, head, whole, text in zip(before, heads, wholes, alone, strict=True)
        ]

    def _added(self, before: list[int], head: str, whole: str, alone: str) -> str:
        """The text behind a beginning, which ends a word or cuts a character nowhere."""
        text = whole[len(head) :] if whole.startswith(head) else alone
        behind = bool(before) and before[-1] in self._specials and self._prefix_behind_specials
        return text.removeprefix(self._prefix) if not head or behind else text

    def _raw(self, rows: Sequence[Sequence[int] | np.ndarray]) -> list[str]:
        """The texts of rows with the space that stands before a text."""
        ids = [np.asarray(row).tolist() for row in rows]
        with one_line("the tokenizer"):
            return self._plain.decode_batch(ids, skip_special_tokens=True)

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
        also_stop = tuple(i for i in self.also_stop if i < size)
        return dataclasses.replace(self, backend=backend, pad_id=pad_id, also_stop=also_stop)

    def save(self, directory: str | Path) -> None:
        """Writes `tokenizer.json`, `tokenizer_config.json` (the names of the special tokens, and
        what a loaded one had there) and, where there is one, `chat_template.jinja`; where more
        than EOS ends a response or there are defaults of sampling, `generation_config.json`.
        """
        names = {"pad_token": self.pad_id, "bos_token": self.bos_id, "eos_token": self.eos_id}
        named = {key: None if i is None else self.token(i) for key, i in names.items()}
        contents = {
            "tokenizer.json": self.backend.to_str(pretty=True),
            "tokenizer_config.json": _json(self.settings | named),
            TEMPLATE: self.chat_template,
            GENERATION_FILE: None,
        }
        if self.generation or len(self.stop_ids) > 1:
            ends = {"eos_token_id": list(self.stop_ids)}
            contents[GENERATION_FILE] = _json(self.generation | ends)
        folder = make_directory(directory)
        for name, text in contents.items():
            if text is not None:
                write_atomically(folder / name, text.encode())  # line ends stay as they are
            else:  # one of another tokenizer would be read as ours
                (folder / name).unlink(missing_ok=True)


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2)


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

    A response ends with `eos_token` and with every other `eos_token_id` of
    `generation_config.json`, or of `config.json` where that names none (Gemma's <end_of_turn>, the
    <|eot_id|> of Llama 3). The first is what is written behind a response.

    The chat template is `chat_template.jinja` beside it, or else `chat_template` of
    `tokenizer_config.json`: of several, the one named "default".
    """
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    if not exists(file):
        raise UserError(f"no tokenizer at {shown_path(file)}")
    backend = read_backend(file)
    generation = read_generation(file.parent)
    tokens = {i: token for token, i in backend.get_vocab(with_added_tokens=True).items()}
    for i in generation.stop_ids:
        if i not in tokens:
            raise UserError(f"{shown_path(file)}: no token {i}, which is an eos_token_id beside it")
    settings = _settings(file, tokens, generation)
    stops = [tokens[i] for i in generation.stop_ids if i in backend.get_added_tokens_decoder()]
    backend = with_special_tokens(backend, [*_all_names(settings), *stops])
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True
    check_continues(backend, shown_path(file))
    names = _names(settings)
    ids = {key: _token_id(backend, names.get(key), file) for key in SPECIAL}
    eos_id = next((i for i in (ids["eos_token"], *generation.stop_ids) if i is not None), None)
    if eos_id is None:
        raise UserError(
            f"{shown_path(file)}: no EOS; name it as eos_token in tokenizer_config.json beside it"
        )
    template = _template(file.with_name(TEMPLATE), settings.pop("chat_template", None))
    return Tokenizer(
        backend,
        pad_id=eos_id if ids["pad_token"] is None else ids["pad_token"],
        bos_id=ids["bos_token"],
        eos_id=eos_id,
        chat_template=template,
        settings=settings,
        also_stop=generation.stop_ids,
        generation=generation.defaults,
    )


def _settings(file: Path, tokens: Mapping[int, str], generation: Generation) -> dict[str, Any]:
    """What stands beside `tokenizer.json` about it; the first of the files to say a thing."""
    named = _object(file.with_name("special_tokens_map.json"))
    ids = _object(file.with_name("config.json"))
    by_id = {key: ids.get(f"{key}_id") for key in SPECIAL}
    by_id["eos_token"] = next(iter(generation.stop_ids), None)
    found = {key: tokens[i] for key, i in by_id.items() if type(i) is int and i in tokens}
    found |= {key: value for key, value in named.items() if key in SPECIAL}
    config = file.with_name("tokenizer_config.json")
    if not exists(config) and not found:
        return dict(zip(SPECIAL, (PAD, BOS, EOS), strict=True))
    return found | _object(config)


def _object(file: Path) -> dict[str, Any]:
    """The JSON object in a file, its fields of the right types; none where there is no file."""
    content = read_json(file) if exists(file) else {}
    if file.name != "config.json":
        typed(content, _Names, shown_path(file))
        try:
            _json(content).encode()
        except UnicodeEncodeError:
            raise UserError(f"{shown_path(file)} holds half a surrogate pair: no Unicode") from None
    return content


def _template(file: Path, given: Any) -> str | None:
    if exists(file):
        try:
            return read_bytes(file).decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{shown_path(file)}: invalid UTF-8 at byte {error.start + 1}"
            ) from None
    if not isinstance(given, list):
        return given
    named = {entry["name"]: entry["template"] for entry in given}
    if "default" not in named:
        raise UserError(
            f"{shown_path(file.parent)}: chat templates {shown(sorted(named))}, but none named "
            "'default'"
        )
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
        raise UserError(
            f"{shown_path(file)}: no token {shown(name)}; name one in tokenizer_config.json"
        )
    return token_id
