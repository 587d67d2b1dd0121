"""Every text of a row goes through the tokenizer once: what its length was checked with is kept."""

import collections
import dataclasses
import json

import pytest

from jaxalign.config.data import DataConfig
from jaxalign.data.records import (
    GoldPreference,
    Preference,
    Prompt,
    PromptCompletion,
    PromptRow,
    Ranking,
    Stepwise,
    Unpaired,
)
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.recipes.iterations import read_prompts
from jaxalign.recipes.reward_sources import sources_of
from jaxalign.recipes.user_data import read_rows

TOKENIZER = train_bpe(["the film is good"], 270)
SO = {"prompt": "why", "completion": " so"}
ROWS = [
    (Prompt, {"prompt": "why"}),
    (PromptRow, {"prompt": "why", "answer": "so"}),
    (PromptCompletion, SO),
    (Unpaired, SO | {"label": True}),
    (Preference, {"prompt": "why", "chosen": " so", "rejected": " no"}),
    (GoldPreference, {"prompt": "why", "chosen": " so", "rejected": " no", "gold": " yes"}),
    (Ranking, {"prompt": "why", "responses": [" so", " no", " yes"]}),
    (Stepwise, {"prompt": "why", "completions": ["so", "no"], "labels": [1, 0]}),
]


def texts_of(row) -> list[str]:
    """All texts that are a model's to read."""
    parts = [part for name, part in row.items() if name not in ("answer", "labels", "label")]
    return [text for part in parts for text in (part if isinstance(part, list) else [part])]


@pytest.fixture
def calls(monkeypatch):
    """How often each text was encoded."""
    counts = collections.Counter()
    encode = Tokenizer.encode_after  # which `encode` calls

    def counted(self, text):
        counts[text] += 1
        return encode(self, text)

    monkeypatch.setattr(Tokenizer, "encode_after", counted)
    return counts


def source_of(folder, *rows) -> DataConfig:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataConfig(path=str(path), evaluation_path=str(path), max_length=64)


@pytest.mark.parametrize(("kind", "row"), ROWS, ids=[kind.__name__ for kind, _ in ROWS])
def test_every_text_is_tokenised_once(kind, row, tmp_path, calls):
    """A prompt too, however many answers it has; the held-out rows as the others."""
    data = source_of(tmp_path, row)
    for source in (None, data.evaluation_path):
        calls.clear()
        rows = read_rows(data, kind, tokenizer=TOKENIZER, log=None, source=source)
        calls.pop("\n", None)  # the end of a step
        assert calls == dict.fromkeys(texts_of(row), 1)
        assert rows.tokens == [rows.records[0].token_rows(TOKENIZER)]


def test_prompts_stay_what_the_tokenizer_made_of_them(tmp_path, calls):
    """Whether models judge the answers or functions, which get the rows too."""
    data = source_of(tmp_path, {"prompt": "why", "answer": "so"}, {"prompt": "film", "answer": ""})
    data = dataclasses.replace(data, evaluation_path="")
    wanted = [[TOKENIZER.bos_id, *TOKENIZER.encode(text)] for text in ("why", "film")]
    calls.clear()
    for judge in (lambda completions, answer: [0.0], None):
        sources = () if judge is None else sources_of(judge)
        prompts = read_prompts(data, sources, seed=0, tokenizer=TOKENIZER, log=None)[0]
        assert [ids.tolist() for ids in prompts.ids] == wanted
        assert (prompts.records is None) == (judge is None)
    assert calls == {"why": 2, "film": 2}  # once for each judge


def test_rows_and_their_tokens_are_left_out_together(tmp_path):
    rows = [{"prompt": "a", "completion": f" {i}", "label": i % 2 == 0} for i in range(4)]
    read = read_rows(source_of(tmp_path, *rows), Unpaired, tokenizer=TOKENIZER, log=None)
    good = read.where(lambda record: record.label)
    assert [record.completion for record in good.records] == [" 0", " 2"]
    assert good.tokens == [record.token_rows(TOKENIZER) for record in good.records]
