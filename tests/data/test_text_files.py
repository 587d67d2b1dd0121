"""Plain texts, a line or a file each, and files as they come: with marks, odd ends, packed."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from jaxalign.config.data import DataConfig
from jaxalign.data.formats import load_records
from jaxalign.data.records import Prompt, PromptCompletion
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.recipes.user_data import read_rows


def texts(source, **options) -> list:
    return [
        record.completion for record in load_records(source, PromptCompletion, **options).records
    ]


LINES = [
    (b"one\ntwo\n", ["one", "two"]),
    (b"one\ntwo", ["one", "two"]),
    (b"one\r\ntwo\r\n", ["one", "two"]),
    (b"\xef\xbb\xbfone\n\n  \ntwo\n", ["one", "two"]),
    (b"one", ["one"]),
    (b"  indented\n", ["  indented"]),
]


@pytest.mark.parametrize(("content", "wanted"), LINES, ids=range(len(LINES)))
def test_a_line_is_a_text(content, wanted, tmp_path):
    for name, packed in (("a.txt", content), ("a.txt.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(packed)
        assert texts(tmp_path / name) == wanted


def test_of_several_files_each_is_a_text(tmp_path):
    for name, content in (("b.txt", "two\nlines\n"), ("a.txt", "\ufeffone"), ("c.txt", "\n")):
        (tmp_path / name).write_text(content)
    assert texts(tmp_path) == texts(tmp_path / "*.txt") == ["one", "two\nlines"]
    assert texts(tmp_path, text="line") == ["one", "two", "lines"]
    assert texts(tmp_path / "b.txt", text="document") == ["two\nlines"]
    (tmp_path / "rows.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"is a directory, which holds .*; give one, or several as"):
        texts(tmp_path)  # nobody knows which of them is meant


def test_texts_may_be_prompts_and_the_flag_says_what_is_a_row(tmp_path):
    (tmp_path / "a.txt").write_text("why\nhow\n")
    assert load_records(tmp_path / "a.txt", Prompt, fields={"prompt": "text"}).records == [
        Prompt("why"), Prompt("how")
    ]  # fmt: skip
    data = DataConfig(path=str(tmp_path / "a.txt"), text="document", max_length=64)
    rows = read_rows(data, PromptCompletion, tokenizer=train_bpe(["why how"], 260), log=None)
    assert [record.completion for record in rows.records] == ["why\nhow"]


def test_faults_of_texts_are_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n\xff\xfftwo\n")
    with pytest.raises(UserError, match=r"a\.txt:2: invalid UTF-8 at byte 1 of the line"):
        texts(path)
    with pytest.raises(UserError, match=r"a\.txt: invalid UTF-8 at byte 5"):
        texts(path, text="document")
    for empty in (b"", b"\n\n", b"\xef\xbb\xbf"):
        path.write_bytes(empty)
        for unit in ("line", "document"):
            with pytest.raises(UserError, match="no usable row"):
                texts(path, text=unit)


ROW = {"text": "one"}
FORMS = {
    "a.jsonl": json.dumps(ROW).encode(),
    "a.json": json.dumps([ROW]).encode(),
    "a.csv": b"text\none",
    "a.tsv": b"text\none",
    "a.txt": b"one",
}


@pytest.mark.parametrize("name", FORMS)
def test_one_row_in_every_text_form_however_it_ends_and_is_packed(name, tmp_path):
    content = FORMS[name]
    for mark in (b"", b"\xef\xbb\xbf"):
        for end in (b"", b"\n", b"\r\n"):
            whole = mark + content.replace(b"\n", end or b"\n") + end
            for suffix, packed in (("", whole), (".gz", gzip.compress(whole))):
                path = tmp_path / f"{name}{suffix}"
                path.write_bytes(packed)
                assert texts(path) == ["one"]
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(gzip.compress(content)))
    with pytest.raises(UserError, match="is packed twice; unpack it with gunzip"):
        texts(path)
    path.write_bytes(gzip.compress(content)[:9])
    with pytest.raises(UserError, match="it is cut off"):
        texts(path)


def test_files_of_other_columns_are_read_together(tmp_path):
    """Those that nobody reads may differ; a row without what is needed is named."""
    first, second = [{"text": "one", "id": 1}], [{"source": "x", "text": "two"}]
    for name, rows in (("1.parquet", first), ("2.parquet", second)):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
    assert texts(tmp_path / "*.parquet") == ["one", "two"]
    table = pyarrow.Table.from_pylist([{"txt": "three"}])
    pyarrow.parquet.write_table(table, tmp_path / "3.parquet")
    with pytest.raises(UserError, match=r"3\.parquet: row 1: no 'prompt'; the row has \['txt'\]"):
        texts(tmp_path / "*.parquet")
    empty = pyarrow.Table.from_pylist([], schema=pyarrow.schema({"text": pyarrow.string()}))
    pyarrow.parquet.write_table(empty, tmp_path / "3.parquet")
    assert texts(tmp_path / "*.parquet") == ["one", "two"]
