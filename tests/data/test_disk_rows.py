"""Rows on disk: equal to those in memory, of which memory holds little."""

import json
import tracemalloc

import numpy as np
import pytest

from jaxalign.config.data import DataConfig
from jaxalign.data.chat import token_row
from jaxalign.data.disk_rows import Joined, chosen, column, disk_records, disk_tokens, joined
from jaxalign.data.formats import load_records
from jaxalign.data.records import MarginPreference, Preference, PromptCompletion, PromptRow
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.recipes.user_data import read_split

TOKENIZER = train_bpe(["the film is good"], 270)
CHAT = [{"role": "user", "content": "Wé?"}]
RECORDS = [
    PromptCompletion("why", " so"),
    PromptCompletion(CHAT, [{"role": "assistant", "content": "So."}], variables={"tools": [1]}),
    MarginPreference("q", " a", " b", 0.1),
    PromptRow("x", {"answer": [1, None, {"a": 2.5}], "image": b"\0\xff"}),
]


@pytest.mark.parametrize("record", RECORDS, ids=range(len(RECORDS)))
def test_records_come_back_as_they_were(record, tmp_path):
    kept = disk_records(tmp_path, type(record))
    for _ in range(3):
        kept.append(record)
    assert len(kept) == 3 and list(kept) == [record] * 3 and kept[-1] == kept[1:][0] == record
    with pytest.raises(IndexError):
        kept[3]
    assert not list(tmp_path.iterdir())  # the file has no name


def test_token_rows_come_back_as_they_were(tmp_path):
    rng, kept, wanted = np.random.default_rng(0), disk_tokens(tmp_path), []
    for size in (1, 2, 5):
        rows = tuple(
            token_row((rng.integers(0, 2**31, n), False), (rng.integers(0, 9, 3), True))
            for n in rng.integers(0, 7, size)
        )
        wanted.append(rows)
        kept.append(rows)
    assert list(kept) == wanted
    assert kept[0][0].tokens.dtype == np.int32 and kept[0][0].is_response.dtype == bool
    kept.append(wanted[1])  # after it was read
    assert kept[3] == wanted[1] and kept[0] == wanted[0]


def test_parts_of_sequences_are_lists_of_lists_only(tmp_path):
    kept = disk_records(tmp_path, PromptCompletion)
    items = [PromptCompletion(str(i), " so") for i in range(5)]
    for item in items:
        kept.append(item)
    index = np.array([4, 0, 0])
    assert chosen(items, index) == list(chosen(kept, index)) == [items[4], items[0], items[0]]
    assert list(chosen(kept, index)[1:]) == [items[0]] * 2
    assert joined(items, items) == list(joined(kept, items)) == items * 2
    both = Joined(kept, kept)
    assert both[-1] == items[4] and list(both[4:6]) == [items[4], items[0]]
    groups = [(1, 2), (3, 4)]
    assert column(groups, 1) == [2, 4] and list(column(tuple(groups), 0)) == [1, 3]
    with pytest.raises(UserError, match="a row cannot be kept on disk"):
        disk_records(tmp_path, PromptRow).append(PromptRow("x", {"number": 2**70}))


def write_pairs(path, count):
    rows = ({"prompt": f"q {i}", "chosen": " the film " * 8, "rejected": " no" * 9}
            for i in range(count))  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_streamed_rows_are_split_and_mixed_as_others(tmp_path):
    one, two = (write_pairs(tmp_path / f"{name}.jsonl", 12) for name in "ab")
    reading = {"tokenizer": TOKENIZER, "log": tmp_path, "seed": 3}
    for fields in ({"path": one}, {"mixture": {one: 1.0, two: 3.0}}):
        data = {"max_length": 99, "evaluation_share": 0.25, **fields}
        streamed, kept = (
            read_split(DataConfig(streaming=streaming, **data), Preference, **reading)
            for streaming in (True, False)
        )
        for on_disk, in_memory in zip(streamed, kept, strict=True):
            assert not isinstance(on_disk.records, list) and len(in_memory)
            assert list(on_disk.records) == in_memory.records
            assert list(on_disk.tokens) == in_memory.tokens


def test_memory_holds_the_positions_alone(tmp_path):
    """A few bytes a row, where rows in memory take more than a thousand."""
    path, sizes = write_pairs(tmp_path / "rows.jsonl", 3000), {}
    given = {"tokenizer": TOKENIZER, "max_length": 99}
    load_records(path, Preference, folder=tmp_path, **given)  # what it imports is not counted
    for folder in (tmp_path, None):
        tracemalloc.start()
        loaded = load_records(path, Preference, folder=folder, **given)
        for _ in loaded.tokens:
            pass
        sizes[folder] = tracemalloc.get_traced_memory()[0] / 3000
        tracemalloc.stop()
        del loaded
    assert sizes[tmp_path] < 100 < 1000 < sizes[None], sizes
