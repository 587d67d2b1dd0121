"""Files of data: every kind is read alike, and of every other one line says what it is."""

import csv
import datetime
import decimal
import gzip
import io
import json
import os
import socket

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from jaxalign.data.formats import load_records
from jaxalign.data.records import (
    MarginPreference,
    Preference,
    Prompt,
    PromptCompletion,
    PromptRow,
    Stepwise,
    Unpaired,
)
from jaxalign.errors import UserError

TURN = [{"role": "user", "content": "Wh\ny?"}, {"role": "assistant", "content": 'So, "é".'}]
ROWS = [{"messages": TURN}, {"prompt": "a, b", "completion": ' "c"\n'}]
WANTED = [PromptCompletion(TURN[:1], TURN[1:]), PromptCompletion("a, b", ' "c"\n')]


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table_of_text(rows, delimiter):
    text = io.StringIO()
    names = sorted({name for row in rows for name in row})
    writer = csv.DictWriter(text, names, delimiter=delimiter)
    writer.writeheader()
    for row in rows:
        cells = {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()}
        writer.writerow(cells)
    return text.getvalue().encode()


def arrow(rows, stream):
    table = pyarrow.Table.from_pylist(rows, arrow_schema(rows))
    sink = io.BytesIO()
    new = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with new(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def arrow_schema(rows):
    names = {name: value for row in rows for name, value in row.items()}
    return pyarrow.Table.from_pylist([names]).schema


def parquet(rows):
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, arrow_schema(rows)), sink)
    return sink.getvalue()


KINDS = {
    "a.jsonl": jsonl(ROWS),
    "A.JSONL": jsonl(ROWS),
    "a.ndjson": jsonl(ROWS),
    "lines.json": jsonl(ROWS),
    "list.json": json.dumps(ROWS, indent=1).encode(),
    "mark.json": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
    "a.jsonl.gz": gzip.compress(jsonl(ROWS)),
    "two.jsonl.gz": gzip.compress(jsonl(ROWS[:1])) + gzip.compress(jsonl(ROWS[1:])),
    "unnamed.jsonl": gzip.compress(jsonl(ROWS)),
    "a.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "a.csv": table_of_text(ROWS, ","),
    "mark.csv": b"\xef\xbb\xbf" + table_of_text(ROWS, ","),
    "a.tsv": table_of_text(ROWS, "\t"),
    "a.csv.gz": gzip.compress(table_of_text(ROWS, ",")),
    "a.parquet": parquet(ROWS),
    "stream.arrow": arrow(ROWS, stream=True),
    "file.arrow": arrow(ROWS, stream=False),
    "a.feather": arrow(ROWS, stream=False),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_holds_the_same_rows(name, tmp_path):
    (tmp_path / name).write_bytes(KINDS[name])
    assert load_records(tmp_path / name, PromptCompletion).records == WANTED


def save_to_disk(folder, rows):
    """As Hugging Face's `datasets` does."""
    folder.mkdir(parents=True)
    names = [f"data-0000{i}-of-00002.arrow" for i in range(2)]
    for name, part in zip(names, (rows[:1], rows[1:]), strict=True):
        (folder / name).write_bytes(arrow(part, stream=True))
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "x"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def test_saved_folders_are_read(tmp_path):
    save_to_disk(tmp_path / "one", ROWS)
    assert load_records(tmp_path / "one", PromptCompletion).records == WANTED
    save_to_disk(tmp_path / "dict" / "train", ROWS)
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert load_records(tmp_path / "dict", PromptCompletion).records == WANTED
    save_to_disk(tmp_path / "dict" / "test", ROWS)
    with pytest.raises(UserError, match=r"holds the parts test, train; give one, as .*dict/test$"):
        load_records(tmp_path / "dict", PromptCompletion)
    assert load_records(tmp_path / "dict" / "test", PromptCompletion).records == WANTED
    state = {"_data_files": [{"filename": "../one/data-00000-of-00002.arrow"}]}
    for text, line in (
        (json.dumps(state), "lists no files as _data_files"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', r"gone\.arrow does not exist"),
        ("{", r"state\.json is not JSON"),
    ):
        (tmp_path / "one" / "state.json").write_text(text)
        with pytest.raises(UserError, match=line):
            load_records(tmp_path / "one", PromptCompletion)


def test_what_a_table_fills_with_null_is_absent(tmp_path):
    rows = [
        {"prompt": [{"role": "user", "content": "a", "name": None, "tool_calls": None}]},
        {"prompt": [{"role": "tool", "content": "b", "name": "n", "tool_calls": None}]},
    ]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    first, second = load_records(path, Prompt).records
    assert first.prompt == [{"role": "user", "content": "a"}]
    assert second.prompt == [{"role": "tool", "content": "b", "name": "n"}]
    # a struct of lists is how some tables hold a list of structs
    table = pyarrow.table({"prompt": pyarrow.array([{"role": ["user"], "content": ["a"]}])})
    pyarrow.parquet.write_table(table, path)
    assert load_records(path, Prompt).records == [first]


def test_types_of_tables(tmp_path):
    days = datetime.datetime(2024, 1, 1)
    table = pyarrow.table(
        {
            "prompt": pyarrow.array(["a", "b", "a"]).dictionary_encode(),
            "chosen": pyarrow.array(["x", "y", "z"], pyarrow.large_string()),
            "rejected": pyarrow.array([b"1", b"2", b"3"]),  # UTF-8, as some write text
            "margin": pyarrow.array([decimal.Decimal("1.5"), decimal.Decimal("2"), None]),
            "image": pyarrow.array([b"\xff\xd8"] * 3),
            "at": pyarrow.array([days] * 3, pyarrow.timestamp("us", "Europe/Berlin")),
            "map": pyarrow.array([[("k", 1)]] * 3, pyarrow.map_(pyarrow.string(), pyarrow.int8())),
        }
    )
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table, path)
    loaded = load_records(path, MarginPreference)
    assert [r.margin for r in loaded.records] == [1.5, 2.0, 0.0]  # null is absent
    assert loaded.records[0].rejected == "1"
    row = load_records(path, PromptRow).records[0]
    assert row.columns["map"] == {"k": 1} and row.columns["image"] == b"\xff\xd8"


ODD = [
    (pyarrow.array([2**62, 0], pyarrow.timestamp("us")), "date value out of range"),
    (pyarrow.array([2**62, 0], pyarrow.timestamp("ms")), "too large"),
    (pyarrow.array([1, 1000], pyarrow.timestamp("ns")), "Nanosecond resolution"),
    (pyarrow.array([2**31 - 1, 0], pyarrow.int32()).cast(pyarrow.date32()), "days=2147483647"),
    (pyarrow.array([2**62 + 1, 1000], pyarrow.duration("ns")), "Nanosecond duration"),
    (
        pyarrow.array([[("x", 1), ("x", 2)], []], pyarrow.map_(pyarrow.string(), pyarrow.int8())),
        "strict mode",
    ),
]


@pytest.mark.parametrize("column, why", ODD, ids=[str(column.type) for column, _ in ODD])
def test_a_value_that_python_lacks_names_row_and_column(column, why, tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["a", "b"], "odd": column}), path)
    loaded = load_records(path, Prompt, on_bad_row="skip")
    assert [record.prompt for record in loaded.records] == ["b"]
    (bad,) = loaded.skipped
    assert bad.place == f"{path}: row 1" and bad.reason.startswith("odd of type ")
    assert why in bad.reason and "\n" not in bad.reason


def test_a_time_zone_of_nowhere(tmp_path):
    zone = pyarrow.timestamp("us", "Mars/Olympus")
    table = pyarrow.table({"prompt": ["a"], "at": pyarrow.array([0], zone)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"row 1: at of type .* its time zone is not known here"):
        load_records(tmp_path / "a.parquet", Prompt)


WHOLE = arrow([{"prompt": "abcdefgh"}] * 300, stream=True)
FAULTS = {
    # name: (bytes, what the line says)
    "cut.jsonl.gz": (
        gzip.compress(jsonl(ROWS * 500))[:60],
        "cannot be read after line 0: it is cut",
    ),
    "crc.jsonl.gz": (
        gzip.compress(jsonl(ROWS))[:-8] + b"\0" * 8,
        "cannot be read after line 2: CRC check",
    ),
    "plain.jsonl.gz": (jsonl(ROWS), "is not gzipped, as its name says"),
    "zip.jsonl": (b"PK\x03\x04...", "is a zip archive; unpack it"),
    "zstd.jsonl": (b"\x28\xb5\x2f\xfd...", "is compressed by zstd; unpack it"),
    "utf16.csv": ("prompt\na".encode("utf-16"), "is UTF-16; save it as UTF-8"),
    "lfs.parquet.jsonl": (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    "parquet.json": (parquet(ROWS), "is a Parquet file; call it .parquet"),
    "cut.json": (b'[{"prompt": "a"}, {"prom', "row 2: invalid JSON"),
    "comma.json": (b'[{"prompt": "a"},]', "row 2: invalid JSON"),
    "open.json": (b'[{"prompt": "a"}', "the list does not end behind row 1"),
    "more.json": (b'[{"prompt": "a"}]]', "the list does not end behind row 1"),
    "deep.json": (b"[" * 10**5, "row 1: nested too deeply"),
    "latin.json": (b'[{"prompt": "\xe9"}]', "invalid UTF-8 at byte 14"),
    "empty.json": (b"[ ]", "no usable row"),
    "list.jsonl": (b'[{"prompt": "a"}]', r"list.jsonl is one JSON list; call it .json"),
    "lines.jsonl": (b'\n[\n  {"prompt": "a"}\n]', r"is one JSON list; call it .json"),
    "word.json": (b'"a"', r"word.json:1: not an object but str"),
    "quote.csv": (b'prompt\na\n"b\nc\n', "quote.csv:3: not readable as CSV: a quote is not closed"),
    "twice.csv": (b"prompt,prompt\na,b\n", "the column 'prompt' is named twice"),
    "latin.csv": (b"prompt\na\ncaf\xe9\n", "latin.csv:3: invalid UTF-8 at byte 4"),
    "mac.csv": (b"prompt\ra\r", r"its lines end with \r alone"),
    "cut.arrow": (WHOLE[:-400], "not readable as Arrow after row"),
    "odd.arrow": (WHOLE.replace(b"\x10\0\0\0\x18\0\0\0", b"\xff\xff\xff\x7f\x18\0\0\0"), "Offset"),
    "text.arrow": (jsonl(ROWS), "not readable as Arrow after row 0"),
    "empty.arrow": (b"", "not readable as Arrow"),
    "old.feather": (b"FEA1....", "is Feather of version 1; save it anew"),
    "empty.parquet": (b"", "not readable as Parquet after row 0"),
    "a.parquet.gz": (gzip.compress(b"a"), "is packed twice; unpack it"),
    "deep.jsonl": (
        b'{"prompt": ' + b'{"a":' * 500 + b"1" + b"}" * 501,
        "nested more than 64 levels",
    ),
    "blank.jsonl": (b"\n" * 100_002, "nothing but empty lines"),
    "digits.jsonl": (b'{"prompt": 1' + b"0" * 400 + b"}", "prompt is 'a number of 200 digits or"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_file_is_one_line(name, tmp_path):
    content, line = FAULTS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refusal:
        load_records(tmp_path / name, Prompt)
    first, *rest = str(refusal.value).split("\n")
    assert line in str(refusal.value) and f"{tmp_path}/{name}" in first
    assert len(rest) <= 1 and all(str(tmp_path) in one for one in rest)  # a line for a bad row


def test_a_row_has_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxalign.data.text_rows.LARGEST_ROW", 1000)
    packed = gzip.compress(b'{"prompt": "a"}\n' + b" " * 10**7)  # a thousand times as large
    for name in ("a.jsonl.gz", "a.csv.gz"):
        (tmp_path / name).write_bytes(packed)
        with pytest.raises(UserError, match=rf"{name}:2: a row of more than 1,000 bytes"):
            load_records(tmp_path / name, Prompt)


def test_rows_of_a_csv_file_are_told_apart(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'prompt,completion,label\r\na,"x\ny",TRUE\n\nb\nc,d,0,e\nf,g,1.0\nh,i\0,1\nj,k,0\n'
    )
    loaded = load_records(path, Unpaired, on_bad_row="skip")
    assert loaded.records == [Unpaired("a", "x\ny", True), Unpaired("j", "k", False)]
    assert [(bad.place.rsplit(":")[-1], bad.reason) for bad in loaded.skipped] == [
        ("5", "1 cells, but 3 columns are named"),
        ("6", "4 cells, but 3 columns are named"),
        ("7", "label is '1.0' (float), wanted true or false"),
        ("8", "a cell holds a zero character"),
    ]
    path.write_text('prompt,completions,labels\na,"[""b"", ""c""]","[true, 0.5]"\n')
    assert load_records(path, Stepwise).records == [Stepwise("a", ["b", "c"], [1.0, 0.5])]
    path.write_text("prompt,chosen,rejected,margin\na,1,2,0.5\n,q a,q b,\n")  # texts stay texts
    loaded = load_records(path, Preference)
    assert loaded.records == [Preference("a", "1", "2"), Preference("q", " a", " b")]


def test_a_bad_row_of_a_list_is_named_and_the_others_are_kept(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"prompt": "a", "prompt": "b"}, 3, {"prompt": {"x": []}}, {"prompt": "c"}]')
    loaded = load_records(path, Prompt, on_bad_row="skip")
    assert loaded.records == [Prompt("c")]
    assert [(bad.place, bad.reason[:20]) for bad in loaded.skipped] == [
        (f"{path}: row 1", "'prompt' stands ther"),
        (f"{path}: row 2", "not an object but in"),
        (f"{path}: row 3", "prompt is \"{'x': []}"),
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.arrow", "a.csv.gz", "noend"])
def test_what_is_no_file_is_said(name, tmp_path):
    path = tmp_path / name

    def refused(line):
        with pytest.raises(UserError, match=line) as refusal:
            load_records(path, Prompt)
        assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 500
        path.rmdir() if path.is_dir() else path.unlink()

    os.mkfifo(path)
    refused("is a pipe; a file is needed")
    path.symlink_to("/dev/zero")
    refused("is a device; a file is needed")
    path.symlink_to(path)
    refused("cannot be read: Too many levels of symbolic links")
    path.symlink_to(tmp_path / "nowhere")
    refused("does not exist")
    path.mkdir()
    refused("is a directory, which holds no file; give a file of rows")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        refused("is a socket; a file is needed")


NAMES = [
    "x" * 5000 + ".jsonl",
    "a\0b.jsonl",
    "a\0*.jsonl",
    "[x]*" * 900,
    "a\nb",
    "",
    "\udce4.jsonl",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_that_no_file_has(name):
    with pytest.raises(UserError, match=r"^no file .*give a \.jsonl") as refusal:
        load_records(name, Prompt)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 500
    str(refusal.value).encode()


def test_directories_say_what_they_hold(tmp_path):
    (tmp_path / "a.md").write_text("")
    with pytest.raises(UserError, match=r"which holds \['a\.md'\]; give a file of rows"):
        load_records(tmp_path, Prompt)
    for name in ("a.jsonl", "b.jsonl", "c.csv.gz"):
        (tmp_path / name).write_bytes(jsonl(ROWS))
    several = rf"which holds \['a\.jsonl', .*; give one, or several as {tmp_path}/\*\.jsonl"
    with pytest.raises(UserError, match=several):
        load_records(tmp_path, Prompt)
    (tmp_path / "sub.jsonl").mkdir()
    with pytest.raises(UserError, match=r"sub\.jsonl is a directory"):
        load_records(tmp_path / "*.jsonl", Prompt)


REPEATED = [
    (PromptCompletion, {"prompt": "Why so?", "completion": "Why so? So."}),
    (Preference, {"prompt": "Why so?", "chosen": "Why so? So.", "rejected": "Why so? No."}),
    (Unpaired, {"prompt": "Why so?", "completion": "Why so? So.", "label": True}),
]


@pytest.mark.parametrize("kind, row", REPEATED)
def test_texts_that_repeat_their_prompt_are_not_trained_on_twice(kind, row, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl([row] * 2))
    with pytest.raises(UserError, match=r"every answer begins with its prompt, .* hide it with"):
        load_records(path, kind)
    if kind is Preference:  # what the line says
        loaded = load_records(path, kind, fields={"prompt": ""})
        assert loaded.records[0] == Preference("Why so?", " So.", " No.")
    other = {name: "No." if name == "rejected" else value for name, value in row.items()}
    other |= {"completion": "No."} if "completion" in row else {}
    path.write_bytes(jsonl([row, other]))  # one that does so by itself may mean it
    assert len(load_records(path, kind).records) == 2


def test_a_page_of_parquet_that_is_not_as_it_was_written_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    table = pyarrow.Table.from_pylist([{"prompt": "the film"}])
    pyarrow.parquet.write_table(table, path, write_page_checksum=True, compression="none")
    path.write_bytes(path.read_bytes().replace(b"the film", b"the filn", 1))
    with pytest.raises(UserError, match=r"a.parquet: not readable as Parquet"):
        load_records(path, Prompt)
