"""Loading of the tokenizer in a GGUF file: byte-level BPE, or BPE of SentencePiece."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import UserError
from jaxalign.pretrained.gguf.file import metadata, open_gguf
from jaxalign.system.files import as_type, quote, short_path

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SPACE = "▁"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CASELESS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
LINES = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
FIRST = r"[^\r\n\p{L}\p{N}]?"
# Text is cut at the first expression, the pieces at the second, and so on, before any merge.
GPT2, DIGITS = (WORDS,), (r"\p{N}", WORDS)
LLAMA3, QWEN2 = (CASELESS + r"\p{N}{1,3}" + LINES,), (CASELESS + r"\p{N}" + LINES,)
TEKKEN = (
    rf"{FIRST}{UPPER}*{LOWER}+|{FIRST}{UPPER}+{LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
# What llama.cpp takes for "default".
PUNCTUATION = (r"[\p{P}\$\+<=>\^~\|]+", WORDS, r"\p{N}+", r"[0-9][0-9][0-9]")
PIECES = {
    "default": PUNCTUATION,
    "gpt-2": GPT2,
    "mpt": GPT2,
    "olmo": GPT2,
    "smollm": DIGITS,
    "starcoder": DIGITS,
    "refact": DIGITS,
    "codeshell": DIGITS,
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "dbrx": LLAMA3,
    "smaug-bpe": LLAMA3,
    "qwen2": QWEN2,
    "stablelm2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "tekken": TEKKEN,
}
# A piece that is an entry of the vocabulary is one token, whatever the merges give.
WHOLE_PIECES = ("llama-bpe", "llama3", "llama-v3", "tekken")
ENDS = ("bos", "eos", "eot", "eom")
LONGEST = 1024  # characters of a token; SentencePiece's merges take the square of it
KEYS: dict[str, Any] = {
    "tokens": list[str],
    "merges": list[str],
    "scores": list[float],
    "token_type": list[int],
    "pre": str,
    "add_space_prefix": bool,
    "remove_extra_whitespaces": bool,
    **dict.fromkeys(
        [f"{name}_token_id" for name in ("padding", "bos", "eos", "eot", "eom", "unknown")], int
    ),
}
STOPS = ("eot_token_id", "eom_token_id")


def load_gguf_tokenizer(path: str | Path) -> Tokenizer:
    """Tokenizer of a GGUF file: byte-level BPE ("gpt2"), or SentencePiece's BPE ("llama").

    BOS, EOS and the padding token are those that the file names; without a padding token, EOS
    serves. A response ends with `eos_token_id`, and with `eot_token_id` and `eom_token_id` where
    there are such. Where SentencePiece puts a space before a text, one stands after every special
    token too, as in llama.cpp.

    Args:
      path: of the file; of several, the first.

    Raises:
      UserError: no tokenizer, one of an unsupported kind, or an incomplete one.
    """
    fields, where = metadata(open_gguf(path)[0], "tokenizer."), short_path(path)
    settings = {k.removeprefix("ggml."): v for k, v in fields.items() if k.startswith("ggml.")}
    kind, template = settings.get("model"), fields.get("chat_template")
    if kind not in ("gpt2", "llama"):
        raise UserError(f"{where}: tokenizer.ggml.model {quote(kind)} is none of gpt2, llama")
    _check_settings(settings, where)
    if template is not None:
        as_type(template, str, f"{where}: tokenizer.chat_template")
    backend = (_byte_level if kind == "gpt2" else _sentence_piece)(settings, where)
    backend.add_tokens(_added_tokens(settings, USER_DEFINED))
    backend.add_special_tokens(_added_tokens(settings, CONTROL))
    backend.encode_special_tokens = True
    return Tokenizer(
        backend,
        pad_id=settings.get("padding_token_id", settings["eos_token_id"]),
        bos_id=settings.get("bos_token_id"),
        eos_id=settings["eos_token_id"],
        chat_template=template,
        also_stop=tuple(settings[x] for x in STOPS if settings.get(x) is not None),
    )


def _check_settings(settings: Mapping[str, Any], where: str) -> None:
    """Refuse keys of wrong types or lengths, ids that are no tokens, and unsupported settings."""
    for name, kind in KEYS.items():
        if name in settings:
            as_type(settings[name], kind, f"{where}: tokenizer.ggml.{name}")
    tokens = settings.get("tokens", [])
    if not tokens:
        raise UserError(f"{where}: no tokenizer.ggml.tokens")
    if len(set(tokens)) < len(tokens):
        raise UserError(f"{where}: a token is listed twice in tokenizer.ggml.tokens")
    if long := [token for token in tokens if len(token) > LONGEST]:
        raise UserError(
            f"{where}: tokenizer.ggml.tokens has {quote(long[0])}, more than {LONGEST} characters"
        )
    for name in ("token_type", "scores"):
        if len(settings.get(name, tokens)) != len(tokens):
            raise UserError(
                f"{where}: {len(tokens)} tokens, {len(settings[name])} tokenizer.ggml.{name}"
            )
    if not all(map(math.isfinite, settings.get("scores", []))):
        raise UserError(f"{where}: tokenizer.ggml.scores has a number that is not finite")
    if unknown := sorted(set(settings.get("token_type", [])) - set(range(BYTE + 1))):
        raise UserError(f"{where}: tokenizer.ggml.token_type has {quote(unknown[0])}: no type")
    if settings.get("eos_token_id") is None:
        raise UserError(f"{where}: no tokenizer.ggml.eos_token_id")
    for name in ("padding", "bos", "eos", "eot", "eom", "unknown"):
        if not 0 <= settings.get(f"{name}_token_id", 0) < len(tokens):
            raise UserError(f"{where}: tokenizer.ggml.{name}_token_id is no token")
    for name in ("remove_extra_whitespaces", "precompiled_charsmap"):
        if settings.get(name):
            raise UserError(f"{where}: tokenizer.ggml.{name} is not supported")


def _types(settings: Mapping[str, Any]) -> list[int]:
    """Type of each token; tokens that end texts are control tokens."""
    types = list(settings.get("token_type", [NORMAL] * len(settings["tokens"])))
    for name in ENDS:
        if (i := settings.get(f"{name}_token_id")) is not None:
            types[i] = CONTROL
    return [CONTROL if kind == UNKNOWN else kind for kind in types]


def _vocabulary(settings: Mapping[str, Any]) -> dict[str, int]:
    """Vocabulary (token to id) without unused tokens, which fill it up to a round number."""
    kinds = zip(settings["tokens"], _types(settings), strict=True)
    special_ids = [i for name, i in settings.items() if name.endswith("_token_id")]
    return {token: i for i, (token, kind) in enumerate(kinds) if kind != UNUSED or i in special_ids}


def _added_tokens(settings: Mapping[str, Any], kind_of_token: int) -> list[AddedToken]:
    """Added tokens of a type, which are matched in a text before it is cut into pieces."""
    kinds = zip(settings["tokens"], _types(settings), strict=True)
    names = [token for token, kind in kinds if kind == kind_of_token]
    # Some files write the spaces of Gemma's runs of spaces as SentencePiece does.
    spaced = settings["model"] == "llama" and not settings.get("add_space_prefix", True)
    return [
        AddedToken(x, normalized=spaced and SPACE in x, special=kind_of_token == CONTROL)
        for x in names
    ]


def _byte_level(settings: Mapping[str, Any], where: str) -> tokenizers.Tokenizer:
    """Tokenizer by byte-level BPE, with the pre-tokenizer that the file names."""
    kind = settings.get("pre")
    if kind not in PIECES:
        raise UserError(f"{where}: tokenizer.ggml.pre {quote(kind)} is none of {', '.join(PIECES)}")
    if settings.get("add_space_prefix"):
        raise UserError(f"{where}: add_space_prefix of a byte-level tokenizer is not supported")
    merges = [tuple(merge.split(" ")) for merge in settings.get("merges", [])]
    if not merges:
        raise UserError(f"{where}: no tokenizer.ggml.merges")
    vocabulary = _vocabulary(settings)
    known = vocabulary.keys()
    if lost := [m for m in merges if len(m) != 2 or not {*m, "".join(m)} <= known]:
        raise UserError(
            f"{where}: tokenizer.ggml.merges has {quote(' '.join(lost[0]))}, which makes no token"
        )
    backend = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, ignore_merges=kind in WHOLE_PIECES)
    )
    if PIECES[kind] is QWEN2:
        backend.normalizer = normalizers.NFC()
    cuts = [pre_tokenizers.Split(Regex(x), behavior="isolated") for x in PIECES[kind]]
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, as_bytes])
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentence_piece(settings: Mapping[str, Any], where: str) -> tokenizers.Tokenizer:
    """Tokenizer by SentencePiece's BPE, whose merges follow from the scores of tokens."""
    tokens, unknown = settings["tokens"], settings.get("unknown_token_id")
    if "scores" not in settings:
        raise UserError(f"{where}: no tokenizer.ggml.scores")
    vocabulary = _vocabulary(settings)
    if unknown is None and not all(f"<0x{byte:02X}>" in vocabulary for byte in range(256)):
        raise UserError(f"{where}: neither tokens for all 256 bytes nor an unknown token")
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocabulary,
            _merges(tokens, settings["scores"], _types(settings)),
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefixed = settings.get("add_space_prefix", True)
    prefix = [normalizers.Prepend(SPACE)] if prefixed else []
    backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if prefixed else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return backend


def _merges(tokens: list[str], scores: list[float], types: list[int]) -> list[tuple[str, str]]:
    """BPE merges in the order of SentencePiece, best first.

    SentencePiece merges the neighbours whose union has the highest score; any two pieces that make
    a third may be merged. Only normal tokens take part.
    """
    plain = {x: s for x, s, kind in zip(tokens, scores, types, strict=True) if kind == NORMAL}
    best_first = sorted((x for x in plain if len(x) > 1), key=lambda x: -plain[x])
    return [
        (token[:cut], token[cut:])
        for token in best_first
        for cut in range(1, len(token))
        if token[:cut] in plain and token[cut:] in plain
    ]
