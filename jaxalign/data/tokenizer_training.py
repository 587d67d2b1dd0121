"""Tokenizers trained on texts: byte-level BPE, or a vocabulary of whole words."""

import collections
import unicodedata
from collections.abc import Iterable
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from jaxalign.data.special_tokens import BOS, EOS, PAD
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import UserError

# A word with the space before it, a number, a run of punctuation, or other white space. Lengths are
# bounded because matching a piece against the vocabulary costs the square of its length.
PIECES = Regex(
    r" ?\p{L}(?:[\p{L}\p{M}]|'(?=\p{L})){0,31}"
    r"| ?\p{N}{1,4}"
    r"| ?[^\s\p{L}\p{N}]{1,8}"
    r"|\s{1,8}"
)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, kind: str = "word") -> Tokenizer:
    """Tokenizer trained on texts, the same in every process.

    Args:
      texts: to count words in.
      vocab_size: number of ids, at least 259 (3 special tokens and 256 bytes).
      kind: "word" (`train_words`) or "bpe" (`train_bpe`).
    """
    if kind not in TRAINERS:
        raise UserError(f"no tokenizer kind {kind!r}; there are {sorted(TRAINERS)}")
    return TRAINERS[kind](texts, vocab_size)


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Tokenizer by byte-level byte-pair encoding: one token a frequent word, several a rare one."""
    _check_size(vocab_size)
    backend = _byte_level_backend(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return _with_special_ids(backend)


def train_words(texts: Iterable[str], vocab_size: int, *, pieces_share: float = 0.2) -> Tokenizer:
    """Tokenizer of the most frequent whole words; other words become pieces and bytes.

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
    backend = _byte_level_backend(longest_first)
    backend.add_special_tokens([PAD, BOS, EOS])
    return _with_special_ids(backend)


def _with_special_ids(backend: tokenizers.Tokenizer) -> Tokenizer:
    """The tokenizer with <pad>, <bos> and <eos>; other libraries read from it to put BOS first."""
    backend.encode_special_tokens = True
    vocabulary = backend.get_vocab()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return Tokenizer(
        backend, pad_id=vocabulary[PAD], bos_id=vocabulary[BOS], eos_id=vocabulary[EOS]
    )


def _byte_level_backend(model: models.Model) -> tokenizers.Tokenizer:
    """Untrained tokenizer that cuts texts in NFC into pieces of bytes, so every text has ids."""
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.NFC()
    pieces = pre_tokenizers.Split(PIECES, behavior="isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pieces, as_bytes])
    backend.decoder = decoders.ByteLevel()
    return backend


def _words_by_frequency(texts: list[str], backend: tokenizers.Tokenizer) -> list[str]:
    """Pieces that occur at least twice, in bytes, most frequent first, ties in order of bytes."""
    counts = collections.Counter()
    pre_tokenizer: Any = backend.pre_tokenizer
    for text in texts:
        normal = unicodedata.normalize("NFC", text)
        counts.update(piece for piece, _ in pre_tokenizer.pre_tokenize_str(normal))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, count in ranked if count > 1]


def _check_size(vocab_size: int) -> None:
    """Refuse a vocabulary too small for the special tokens and all bytes."""
    if vocab_size < 3 + 256:
        raise UserError(
            f"vocab_size {vocab_size} is too small: 3 special tokens and 256 bytes need 259"
        )


TRAINERS = {"word": train_words, "bpe": train_bpe}
