"""Tokenizers: text to token ids and back, without loss, on the `tokenizers` library.

Three rules hold for every tokenizer, trained here or loaded:

- text never turns into special tokens: "<eos>" in somebody's text is five characters, not an end;
- `encode` adds nothing, whatever a post-processor would: BOS and EOS are placed once, by `chat.py`;
- `decode(encode(text))` is that text again, for any text that the vocabulary can spell (those
  trained here: any text in NFC), and so is `decode(encode(text) + encode_after(more))` for
  `text + more`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models

from jaxalign.data.dummy_prefix import has_prefix, has_prefix_behind_specials, without_prefix
from jaxalign.data.generation import FILE as GENERATION_FILE
from jaxalign.data.marks import MarkedTokenizer, marked_tokenizer, special_tokens, with_ids_below
from jaxalign.data.special_tokens import json_text, special_token_names
from jaxalign.data.tokenizer_json import lost_bytes, one_line
from jaxalign.errors import UserError
from jaxalign.system.files import make_directory, write_atomically

TEMPLATE_FILE = "chat_template.jinja"


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A tokenizer with the ids of its special tokens and its chat template.

    backend: of the `tokenizers` library.
    pad_id: of padding, which masks leave out.
    bos_id: None for models that have no BOS.
    eos_id: written behind a response.
    chat_template: Jinja source that writes conversations, or None.
    settings: other fields of a `tokenizer_config.json`, kept when the tokenizer is saved.
    also_stop: other ids that end a response when a model samples them.
    generation: fields of a `generation_config.json` that name no ids, kept in the same way.
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
        """Ids that end a response; EOS is the first."""
        return (self.eos_id, *(i for i in self.also_stop if i != self.eos_id))

    @functools.cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @functools.cached_property
    def id_ranges(self) -> tuple[tuple[int, int], ...]:
        """Ranges of the ids that are tokens, as pairs of first id and last plus one."""
        ids = np.array(sorted(self.backend.get_vocab(with_added_tokens=True).values()))
        parts = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
        return tuple((int(part[0]), int(part[-1]) + 1) for part in parts)

    @functools.cached_property
    def for_marks(self) -> MarkedTokenizer:
        """The tokenizer of texts with marks, as chat templates are rendered here."""
        return marked_tokenizer(self.backend)

    @functools.cached_property
    def special_names(self) -> dict[str, str]:
        """Spellings of the special tokens by chat templates' names: `{"bos_token": "<s>", ...}`."""
        ids = {"pad_token": self.pad_id, "bos_token": self.bos_id, "eos_token": self.eos_id}
        spellings = {key: self.token(i) for key, i in ids.items() if i is not None}
        return spellings | special_token_names(self.settings)

    @functools.cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The backend without the space that some put before a text (dummy prefix)."""
        return without_prefix(self.backend)

    @functools.cached_property
    def _prefix(self) -> str:
        """The dummy prefix before every text: a space, or nothing."""
        return " " if has_prefix(self.backend, self._plain) else ""

    @functools.cached_property
    def _specials(self) -> frozenset[int]:
        """Ids of the special tokens."""
        return frozenset(special_tokens(self.backend).values())

    @functools.cached_property
    def _prefix_behind_specials(self) -> bool:
        """Whether text behind a special token has the dummy prefix too."""
        return bool(self._prefix) and has_prefix_behind_specials(self.backend)

    @functools.cached_property
    def _lost_bytes(self) -> frozenset[int]:
        """Bytes that the vocabulary cannot spell and the backend would drop from a text."""
        model = self.backend.model
        parts = f"{self.backend.normalizer}{self.backend.pre_tokenizer}"
        if not isinstance(model, models.BPE) or model.unk_token or "ByteLevel(" not in parts:
            return frozenset()
        return lost_bytes(self.backend.get_vocab(with_added_tokens=True))

    def _check_spelled(self, text: str) -> None:
        """Refuse a text with a byte that the vocabulary cannot spell."""
        if self._lost_bytes and (lost := self._lost_bytes.intersection(text.encode())):
            raise UserError(
                f"the vocabulary has no token for the byte 0x{min(lost):02X} of a text; take it out"
            )

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without BOS or EOS."""
        return self.encode_after(f"{self._prefix}{text}") if text else []

    def encode_after(self, text: str) -> list[int]:
        """Ids of a text that continues another one: without a dummy prefix."""
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
        """Text of the ids of a whole text or its beginning, without special tokens."""
        return self.decode_all([ids])[0]

    def decode_all(self, rows: Sequence[Sequence[int] | np.ndarray]) -> list[str]:
        """`decode` for many rows, in parallel."""
        return [text.removeprefix(self._prefix) for text in self._texts_with_prefix(rows)]

    def decode_after(
        self,
        prefixes: Sequence[Sequence[int] | np.ndarray],
        continuations: Sequence[Sequence[int] | np.ndarray],
    ) -> list[str]:
        """Texts of continuations, as they stand behind their prefixes.

        Decoded alone, a continuation would lose its first space wherever a decoder takes one away.

        Args:
          prefixes: ids of each beginning.
          continuations: ids behind each prefix.
        """
        prefix_ids = [np.asarray(row).tolist() for row in prefixes]
        ids = [np.asarray(row).tolist() for row in continuations]
        both = [a + b for a, b in zip(prefix_ids, ids, strict=True)]
        prefix_texts, alone_texts, whole_texts = map(self._decoded, (prefix_ids, ids, both))
        return [
            self._continuation_text(ids, head, whole, text)
            for ids, head, whole, text in zip(
                prefix_ids, prefix_texts, whole_texts, alone_texts, strict=True
            )
        ]

    def _continuation_text(self, prefix_ids: list[int], prefix: str, whole: str, alone: str) -> str:
        """Text of a continuation: the whole text without that of its prefix."""
        text = whole[len(prefix) :] if whole.startswith(prefix) else alone
        behind_special = bool(prefix_ids) and prefix_ids[-1] in self._specials
        has_dummy = not prefix or (behind_special and self._prefix_behind_specials)
        return text.removeprefix(self._prefix) if has_dummy else text

    def _texts_with_prefix(self, rows: Sequence[Sequence[int] | np.ndarray]) -> list[str]:
        """Texts of rows, with the dummy prefix."""
        return self._decoded([np.asarray(row).tolist() for row in rows])

    def _decoded(self, ids: list[list[int]]) -> list[str]:
        """Texts of rows of plain numbers, with the dummy prefix."""
        with one_line("the tokenizer"):
            return self._plain.decode_batch(ids, skip_special_tokens=True)

    def token(self, token_id: int) -> str:
        """Spelling of one id in the vocabulary."""
        return str(self.backend.id_to_token(int(token_id)))

    def with_ids_below(self, size: int) -> "Tokenizer":
        """The tokenizer without the special tokens of ids from `size` on.

        For a model with `size` rows of embeddings: some (Gemma 3 without images) come with the
        tokenizer of a larger model.
        """
        if self.vocab_size <= size:
            return self
        backend = with_ids_below(self.backend, size)
        backend.encode_special_tokens = True
        pad_id = self.pad_id if self.pad_id < size else self.eos_id
        also_stop = tuple(i for i in self.also_stop if i < size)
        return dataclasses.replace(self, backend=backend, pad_id=pad_id, also_stop=also_stop)

    def save(self, directory: str | Path) -> None:
        """Write the files that `load_tokenizer` and other libraries read.

        They are `tokenizer.json`, `tokenizer_config.json` (the names of the special tokens, and
        what a loaded one had there) and, where there is one, `chat_template.jinja`; where more
        than EOS ends a response or there are defaults of sampling, `generation_config.json`.
        """
        ids = {"pad_token": self.pad_id, "bos_token": self.bos_id, "eos_token": self.eos_id}
        spellings = {key: None if i is None else self.token(i) for key, i in ids.items()}
        contents = {
            "tokenizer.json": self.backend.to_str(pretty=True),
            "tokenizer_config.json": json_text(self.settings | spellings),
            TEMPLATE_FILE: self.chat_template,
            GENERATION_FILE: None,
        }
        if self.generation or len(self.stop_ids) > 1:
            ends = {"eos_token_id": list(self.stop_ids)}
            contents[GENERATION_FILE] = json_text(self.generation | ends)
        folder = make_directory(directory)
        for name, text in contents.items():
            if text is not None:
                write_atomically(folder / name, text.encode())  # line ends stay as they are
            else:  # one of another tokenizer would be read as ours
                (folder / name).unlink(missing_ok=True)
