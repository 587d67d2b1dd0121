"""Mixtures of sources: proportions, what an epoch holds, the seed."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxalign.config.data import DataConfig
from jaxalign.data.mixture import mixed_rows
from jaxalign.data.records import Prompt
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.recipes.user_data import read_split, read_texts

TOKENIZER = train_bpe(["a b"], 260)
SOURCES = st.lists(st.tuples(st.integers(1, 60), st.floats(0.1, 10)), min_size=1, max_size=4)


@given(SOURCES, st.integers(0, 2**32 - 1))
def test_an_epoch_has_all_rows_in_number_and_the_shares_of_the_weights(sources, seed):
    sizes, weights = map(list, zip(*sources, strict=True))
    try:
        rows = mixed_rows(sizes, weights, seed)
    except UserError:
        assert min(np.array(weights) / sum(weights)) * sum(sizes) < 1
        return
    assert sum(map(len, rows)) == sum(sizes)
    for number, (size, weight) in enumerate(sources):
        assert abs(len(rows[number]) - weight / sum(weights) * sum(sizes)) < 1
        times = np.bincount(rows[number], minlength=size)
        assert len(times) == size and times.max() - times.min() <= 1  # as often as one another


def test_the_seed_draws_the_rows():
    draws = [mixed_rows([400, 400], [1, 3], seed)[0] for seed in (0, 0, 1)]
    assert draws[0].tolist() == draws[1].tolist() != draws[2].tolist()
    assert len(np.intersect1d(draws[0], draws[2])) < 150  # 100 of 200 are expected


@pytest.fixture
def data(tmp_path):
    def made(**fields):
        for name, count in (("a", 30), ("b", 10)):
            rows = [json.dumps({"prompt": f"{name} {i}"}) for i in range(count)]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
        names = {str(tmp_path / "a.jsonl"): 1.0, str(tmp_path / "b.jsonl"): 1.0}
        return DataConfig(mixture=names, max_length=32, **fields)

    return made


def counts(rows) -> tuple[int, int]:
    return tuple(sum(record.prompt.startswith(name) for record in rows.records) for name in "ab")


def test_sources_are_read_in_their_proportions(data, capsys):
    reading = {"tokenizer": TOKENIZER, "log": None}
    training, held_out = read_split(data(), Prompt, seed=0, **reading)
    assert counts(training) == (20, 20) and not len(held_out)
    assert {f"b {i}" for i in range(10)} < {record.prompt for record in training.records}
    assert training.tokens == [record.token_rows(TOKENIZER) for record in training.records]
    again = read_split(data(), Prompt, seed=0, **reading)[0]
    assert again.records == training.records
    assert read_split(data(), Prompt, seed=1, **reading)[0].records != training.records
    assert "b.jsonl: 20 of 10 rows an epoch, 50.0%" in capsys.readouterr().out


def test_what_is_held_out_of_a_mixture_stands_there_once(data):
    mixed = data(evaluation_share=0.25)
    training, held_out = read_split(mixed, Prompt, seed=0, tokenizer=TOKENIZER, log=None)
    kept, apart = ({record.prompt for record in part.records} for part in (training, held_out))
    assert len(held_out) == 10 == len(apart) and not kept & apart
    assert counts(training)[0] == counts(training)[1] == 15
    texts = {record.prompt for record in read_texts(mixed, Prompt, seed=0)}
    assert len(texts) == 30 and kept <= texts and not texts & apart


def test_mixtures_that_cannot_be():
    with pytest.raises(UserError, match=r"--data\.path x and --data\.mixture are both given"):
        DataConfig(path="x", mixture={"a": 1.0})
    with pytest.raises(UserError, match="weighs a by 0; give a number above 0"):
        DataConfig(mixture={"a": 0.0})
    with pytest.raises(UserError, match="source 2 of the mixture has a weight of less than one"):
        mixed_rows([10, 10], [1, 0.01], 0)
    with pytest.raises(UserError, match="source 2 of the mixture has no row left to train on"):
        mixed_rows([10, 0], [1, 1], 0)


def test_files_of_one_name_list_their_skipped_rows_apart(tmp_path):
    paths = [tmp_path / folder / "rows.jsonl" for folder in ("a", "b")]
    for path, prompt in zip(paths, ("a", "b"), strict=True):
        path.parent.mkdir()
        path.write_text(json.dumps({"prompt": prompt}) + f"\n{prompt}\n")
    data = DataConfig(mixture={str(path): 1.0 for path in paths}, on_bad_row="skip", max_length=16)
    log = tmp_path / "run"
    for _ in range(2):  # a run that goes on writes the same files again
        read_split(data, Prompt, seed=0, tokenizer=TOKENIZER, log=log)
        lists = sorted(path.read_text().split(":")[0] for path in log.glob("skipped_rows_*.txt"))
        assert lists == sorted(map(str, paths))
