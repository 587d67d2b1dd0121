"""Where rows come from: names, kinds of files, formats, broken Parquet and gzip."""

import functools
import gzip
import json
import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.hostile.base import Base, command, rows
from benchmarks.hostile.judge import either, refused, worked
from benchmarks.hostile.probes import in_place_of, measured, numbers_of, same
from benchmarks.hostile.trial import Room, Trial

KIND = "sources"
NAMES = {
    "nothing": "",
    "missing": "no.jsonl",
    "pattern": "no-*.jsonl",
    "broken_pattern": "[.jsonl",
    "long": "x" * 5000 + ".jsonl",
    "long_part": "/".join("x" * 200 for _ in range(30)) + ".jsonl",
    "zero_character": "a\0.jsonl",
    "surrogate": "a\udcff.jsonl",
    "directory": ".",
    "below_file": "/etc/passwd/a.jsonl",
    "no_end": "/etc/passwd",
    "device": "/dev/zero",
    "null_device": "/dev/null",
    "proc": "/proc/self/mem",
    "tilde": "~no_such_user/a.jsonl",
    "address": "http://localhost:1/a.jsonl",
    "line_end": "a\nb.jsonl",
    "escape": "\x1b[31mred.jsonl",
    "tfds": "tfds:",
    "tfds_no_split": "tfds:no_such_data_set",
    "tfds_unknown": "tfds:no_such_data_set:train",
    "tfds_split": "tfds:human_ratings/movies:no_such_split",
    "tfds_config": "tfds:human_ratings/no_such_config:policy",
    "tfds_parent": "tfds:../../etc:train",
    "tfds_python": "tfds:__import__('os').system('true'):train",
    "many_stars": "**/" * 9 + "no_such_*.jsonl",
}
FORMATS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "json": lambda r: json.dumps(r).encode(),
    "lines.json": lambda r: lines(r),
    "csv": lambda r: ("text\n" + "".join(f'"{row["text"]}"\n' for row in r)).encode(),
    "jsonl.gz": lambda r: gzip.compress(lines(r)),
    "zipped.jsonl": lambda r: gzip.compress(lines(r)),
    "json.gz": lambda r: gzip.compress(json.dumps(r).encode()),
    "ndjson": lambda r: lines(r),
    "JSONL": lambda r: lines(r),
    "txt": lambda r: "".join(f"{row['text']}\n" for row in r).encode(),
    "tsv": lambda r: ("text\n" + "".join(f"{row['text']}\n" for row in r)).encode(),
    "jsonl.zst": lambda r: lines(r),
    "xlsx": lambda r: b"PK\x03\x04" + bytes(100),
    "yaml": lambda r: "".join(f"- text: {row['text']}\n" for row in r).encode(),
}
SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "byte_order_mark": lambda x: b"\xef\xbb\xbf" + x,
    "carriage_returns": lambda x: x.replace(b"\n", b"\r\n"),
    "no_last_line_end": lambda x: x.rstrip(b"\n"),
    "blank_lines": lambda x: x.replace(b"\n", b"\n\n  \n\t\n"),
    "spaces": lambda x: x.replace(b"{", b"   {  "),
    "escaped": lambda x: x.replace(b"film", b"\\u0066ilm"),
}
BROKEN: dict[str, bytes] = {
    "empty": b"",
    "white_space": b"\n \n\t\n",
    "utf16": '{"text": "a"}\n'.encode("utf-16"),
    "utf32": '{"text": "a"}\n'.encode("utf-32"),
    "zeros": bytes(10_000),
    "noise": bytes(range(256)) * 40,
    "array": b'[{"text": "a"}, {"text": "b"}]',
    "pretty": b'{\n  "text": "a"\n}\n',
    "carriage_returns_only": b'{"text": "a"}\r{"text": "b"}\r',
    "html": b"<!doctype html><html><body>404</body></html>",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "parquet": b"PAR1" + bytes(100) + b"PAR1",
    "all_bad": b'{"no": 1}\n' * 2000,
}


def lines(given: list[dict[str, Any]]) -> bytes:
    """JSON lines."""
    return "".join(f"{json.dumps(row)}\n" for row in given).encode()


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Names, formats, spellings, contents, Parquet of odd types and with damage."""
    chance = random.Random(f"{KIND} {seed}")
    for name, source in NAMES.items():
        for what in ("evaluate", "dpo"):
            yield _trial(f"{what}_name_{name}", named, source=source, what=what)
    for name in FORMATS:
        yield _trial(f"format_{name}", formatted, ending=name)
    for name, spelling in SPELLINGS.items():
        yield _trial(f"spelling_{name}", spelled, spelling=spelling)
    for name, content in BROKEN.items():
        yield _trial(f"content_{name}", replaced, content=content)
    for what in ("directory", "fifo", "loop", "endless", "huge"):
        for end in ("jsonl", "parquet"):
            yield _trial(f"{end}_{what}", no_file, what=what, end=end)
    yield _trial("socket", socket_file)
    yield _trial("unreadable_part", unreadable_part)
    yield _trial("saved_arrow_folder", arrow_folder)
    yield _trial("one_long_row", one_long_row, command_name="sft")
    yield _trial("one_long_row_evaluated", one_long_row, command_name="evaluate")
    for name in TABLES:
        yield _trial(f"parquet_{name}", parquet, name=name)
    for number in range(24):
        place, cut = chance.random(), number % 3 == 0
        yield _trial(f"parquet_damaged_{number}", damaged, end="parquet", place=place, cut=cut)
        yield _trial(f"gzip_damaged_{number}", damaged, end="jsonl.gz", place=place, cut=cut)


def _trial(name: str, act: Callable[..., str], /, **settings: Any) -> Trial:
    return Trial(kind=KIND, name=name, act=functools.partial(act, **settings))


def unharmed(room: Room) -> dict[str, Any]:
    """The measures of the policy on the unharmed texts."""
    return room.unharmed("sources", lambda: numbers_of(room, room.base.policy, "unharmed.json"))


def on(room: Room, data: str):
    """What `evaluate` does with the policy on that data."""
    return measured(room, room.base.policy, data=data)


def named(room: Room, *, source: str, what: str) -> str:
    """A source that is none."""
    names = ("data.path", "tfds", source[:20].strip("\0\n\x1b\udcff") or "data", "jsonl")
    if what == "evaluate":
        arguments = ["evaluate", "--model", room.base.policy, "--data.path", source]
    else:
        arguments = command("dpo", room.base, data=source)
    return refused(room.call(*arguments), *names)


def formatted(room: Room, *, ending: str) -> str:
    """Another format: read with the same result, or a line that says what to do."""
    data = room.write(f"data.{ending}", FORMATS[ending](rows("short")))
    expected = unharmed(room)
    return either(on(room, data), lambda: same(room, expected), f"data.{ending}")


def spelled(room: Room, *, spelling: Callable[[bytes], bytes]) -> str:
    """The same rows, spelled in another way."""
    data = room.write("data.jsonl", spelling(lines(rows("short"))))
    expected = unharmed(room)
    return worked(on(room, data), lambda: same(room, expected))


def replaced(room: Room, *, content: bytes) -> str:
    """A file that is no JSON lines."""
    return refused(on(room, room.write("data.jsonl", content)), "data.jsonl")


def no_file(room: Room, *, what: str, end: str) -> str:
    """Something else than a file."""
    in_place_of(room.path / f"data.{end}", what)
    return refused(on(room, str(room.path / f"data.{end}")), f"data.{end}")


def socket_file(room: Room) -> str:
    """A socket."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("data.jsonl")
        return refused(on(room, "data.jsonl"), "data.jsonl")


def unreadable_part(room: Room) -> str:
    """A pattern that matches a file and a directory."""
    room.write("part-1.jsonl", lines(rows("short")))
    (room.path / "part-2.jsonl").mkdir()
    return refused(on(room, "part-*.jsonl"), "part-2.jsonl")


def arrow_folder(room: Room) -> str:
    """A folder of arrow files, as `save_to_disk` writes it: read, or the exact remedy."""
    import pyarrow

    table = pyarrow.Table.from_pylist(rows("short"))
    (room.path / "saved").mkdir()
    with (
        pyarrow.OSFile("saved/data-00000-of-00001.arrow", "wb") as file,
        pyarrow.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    room.write("saved/state.json", state)
    expected = unharmed(room)
    return either(on(room, "saved"), lambda: same(room, expected), "saved")


def one_long_row(room: Room, *, command_name: str) -> str:
    """A row of 50 MB among small ones: named, in little memory."""
    text = "a fine film " * (50_000_000 // 12)
    data = room.write("data.jsonl", [*rows("short"), {"text": text}])
    if command_name == "evaluate":
        return refused(on(room, data), "data.jsonl:9")
    return refused(room.call(*command("sft", room.base, data=data)), "data.jsonl:9")


def tables() -> dict[str, Any]:
    """Columns of odd types beside, or instead of, the text."""
    import datetime
    import decimal

    import pyarrow as pa

    text = pa.array([row["text"] for row in rows("short")])
    count = len(text)
    far = pa.array([2**62] * count, pa.timestamp("us"))
    return {
        "dictionary": {"text": text.dictionary_encode()},
        "large_string": {"text": text.cast(pa.large_string())},
        "binary": {"text": text.cast(pa.binary())},
        "timestamp_far": {"text": text, "when": far},
        "timestamp_minus": {"text": text, "when": pa.array([-(2**62)] * count, pa.timestamp("us"))},
        "timestamp_zone": {"text": text, "when": pa.array([0] * count, pa.timestamp("s", "X/Y"))},
        "date_far": {"text": text, "when": pa.array([2**30] * count, pa.date32())},
        "duration_far": {"text": text, "when": pa.array([2**62] * count, pa.duration("s"))},
        "time": {"text": text, "when": pa.array([datetime.time(1)] * count)},
        "decimal": {"text": text, "x": pa.array([decimal.Decimal("1e30")] * count)},
        "float16": {"text": text, "x": pa.array([1.0] * count, pa.float16())},
        "nulls": {"text": text, "x": pa.nulls(count)},
        "list": {"text": text, "x": pa.array([[1, None]] * count)},
        "map": {"text": text, "x": pa.array([[("a", 1), ("a", 2)]] * count,
                                            pa.map_(pa.string(), pa.int64()))},
        "struct": {"text": text, "x": pa.array([{"a": {"b": None}}] * count)},
        "text_null": {"text": pa.array([None, *text.to_pylist()[1:]])},
        "text_numbers": {"text": pa.array(list(range(count)))},
        "text_timestamps": {"text": far},
        "no_rows": {"text": text[:0]},
        "no_text": {"other": text},
        "latin1": {"text": pa.array([b"\xe4"] * count).view(pa.string())},
    }  # fmt: skip


TABLES = (
    *("dictionary", "large_string", "binary", "timestamp_far", "timestamp_minus"),
    *("timestamp_zone", "date_far", "duration_far", "time", "decimal", "float16", "nulls", "list"),
    *("map", "struct", "text_null", "text_numbers", "text_timestamps", "no_rows", "no_text"),
    *("latin1", "two_columns", "no_columns"),
)


def parquet(room: Room, *, name: str) -> str:
    """A Parquet file: read with the same result, or refused by its name."""
    import pyarrow
    import pyarrow.parquet

    path = str(room.path / "data.parquet")
    if name in ("two_columns", "no_columns"):
        text = pyarrow.array([row["text"] for row in rows("short")])
        columns = [text, text] if name == "two_columns" else []
        table = pyarrow.Table.from_arrays(columns, names=["text"] * len(columns))
    else:
        table = pyarrow.table(tables()[name])
    pyarrow.parquet.write_table(table, path)
    expected = unharmed(room)
    return either(on(room, path), lambda: same(room, expected), "data.parquet")


def damaged(room: Room, *, end: str, place: float, cut: bool) -> str:
    """A file cut off, or with a bit turned over: noticed, or without effect."""
    import pyarrow
    import pyarrow.parquet

    path = room.path / f"data.{end}"
    if end == "parquet":
        table = pyarrow.Table.from_pylist(rows("short"))
        pyarrow.parquet.write_table(table, path, write_page_checksum=True)
    else:
        path.write_bytes(gzip.compress(lines(rows("short"))))
    content = bytearray(path.read_bytes())
    if cut:
        os.truncate(path, int(place * len(content)))
    else:
        content[int(place * len(content))] ^= 16
        Path(path).write_bytes(content)
    expected = unharmed(room)
    return either(on(room, str(path)), lambda: same(room, expected), f"data.{end}")
