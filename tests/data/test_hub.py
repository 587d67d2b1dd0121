"""Data sets of the hub, read from a cache that the tests lay out as the hub's own client does."""

import json

import huggingface_hub
import huggingface_hub.constants
import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import errors

from jaxalign.data.formats import load_records
from jaxalign.data.hub import is_hub_source
from jaxalign.data.records import PromptCompletion
from jaxalign.errors import UserError

COMMIT = "0" * 40


def rows(word) -> list[dict]:
    return [{"prompt": f"{word} {i}", "completion": " so"} for i in range(2)]


def write(path, word):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows(word)), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows(word)))
    else:
        path.write_text(word)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Makes a data set in the cache: `cached(name, {file: word}, ref)`; the hub is out of reach."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    def made(name, files, ref="main"):
        root = tmp_path / f"datasets--{name.replace('/', '--')}"
        commit = COMMIT if ref == "main" else "1" * 40
        (root / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (root / "refs" / ref).write_text(commit)
        for file, word in files.items():
            write(root / "snapshots" / commit / file, word)

    return made


def prompts(source) -> list[str]:
    return [record.prompt for record in load_records(source, PromptCompletion).records]


def test_splits_are_known_by_the_names_of_files(cached):
    files = {"data/train-00000-of-00002.parquet": "a", "data/train-00001-of-00002.parquet": "b"}
    cached("org/plain", files | {"data/test-00000-of-00001.parquet": "c", "make.py": "raise"})
    for source in ("org/plain", "hf:org/plain", "hf:org/plain:train"):
        assert prompts(source) == ["a 0", "a 1", "b 0", "b 1"]
    assert prompts("hf:org/plain:test") == prompts("hf:org/plain:default:test") == ["c 0", "c 1"]
    with pytest.raises(UserError, match=r"no split dev; there are test, train$"):
        prompts("hf:org/plain:dev")
    with pytest.raises(UserError, match=r"no config main; there are default$"):
        prompts("hf:org/plain:main:train")


CARD = """---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/*.jsonl
  - split: test
    path: [held.jsonl]
- config_name: other
  data_dir: socratic
  data_files: "x*"
---
# A card
"""


def test_configs_are_those_of_the_card(cached):
    files = {"main/1.jsonl": "m", "held.jsonl": "h", "socratic/x.jsonl": "s", "README.md": CARD}
    cached("org/carded", files)
    assert prompts("hf:org/carded:main")[0] == "m 0"
    assert prompts("hf:org/carded:main:test")[0] == "h 0"
    assert prompts("hf:org/carded:other:train")[0] == "s 0"
    with pytest.raises(UserError, match=r"has the configs main, other; give one: hf:org/carded:m"):
        prompts("hf:org/carded")
    marked = CARD.replace("- config_name: other", "- config_name: other\n  default: true")
    cached("org/carded", {"README.md": marked})
    assert prompts("hf:org/carded")[0] == "s 0"


def test_the_converted_branch_stands_in_for_scripts(cached):
    cached("org/script", {"script.py": "raise SystemExit", "README.md": "# no front matter"})
    cached("org/script", {"default/train/0000.parquet": "p"}, ref="refs/convert/parquet")
    assert prompts("org/script")[0] == "p 0"
    cached("org/none", {"script.py": "raise SystemExit", "model.pkl": "x"})
    with pytest.raises(UserError, match=r"^org/none holds no \.parquet, .*; scripts are not run$"):
        prompts("org/none")


def test_what_cannot_be_had_is_one_line(cached, monkeypatch):
    with pytest.raises(UserError, match=r"^no file org/absent, and it is not in the cache") as no:
        prompts("org/absent")
    assert "\n" not in str(no.value)
    for odd in ("hf:absent", "hf:a/b:c:d:e", "hf:../x:y"):
        with pytest.raises(UserError, match="is not of the form hf:OWNER/NAME"):
            prompts(odd)

    def missing(*_, **__):
        response = type("Response", (), {"headers": {}, "request": None, "status_code": 404})()
        raise errors.RepositoryNotFoundError("404", response=response)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", missing)
    with pytest.raises(UserError, match="the hub has no such data set, or not for you"):
        prompts("hf:org/plain")


def test_a_hub_out_of_reach_is_one_line(tmp_path, monkeypatch):
    """Its client raises errors of its network library, which are no OSError."""

    class ConnectError(Exception):
        pass

    def unreachable(*_, **__):
        raise ConnectError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", unreachable)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(UserError, match="no file org/absent, and the Hugging Face hub says: Name"):
        prompts("org/absent")


def test_descriptions_of_a_data_set_are_no_rows(cached):
    files = {
        "data/train-0.parquet": "a",
        "dataset_infos.json": "{}",
        "data/dataset_dict.json": "{}",
    }
    cached("org/old", files)
    assert prompts("org/old") == ["a 0", "a 1"]


def test_online_only_the_files_of_the_split_are_asked_for(cached, monkeypatch):
    """The listing comes from the hub; what is downloaded is a list of data files, no script."""
    files = {"data/train-0.parquet": "a", "data/test-0.parquet": "b", "run.py": "x", "w.bin": "y"}
    cached("org/plain", files)
    asked = []
    download = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub.HfApi, "list_repo_files", lambda self, name, **given: sorted(files)
    )

    def watched(name, **given):
        asked.append(given["allow_patterns"])
        return download(name, **given)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", watched)
    assert prompts("hf:org/plain:test")[0] == "b 0"
    assert asked == [["data/test-0.parquet"]]


@pytest.mark.parametrize(
    ("source", "is_one"),
    [
        ("org/name", True),
        ("hf:org/name:config:split", True),
        ("org/name:test", True),
        ("data/rows.jsonl", False),
        ("rows.jsonl.gz", False),
        ("/a/b/c", False),
        ("tfds:gsm8k/main:train", False),
        ("../a", False),
    ],
)
def test_what_is_taken_for_a_data_set_of_the_hub(source, is_one):
    assert is_hub_source(source) == is_one
