"""The walk through the code in the documentation is the one that the programs take."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

import jaxalign
from jaxalign import cli
from jaxalign.recipes.text_models import save_text_model
from tests.folders import ROOT
from tests.tiny_models import tiny_policy

PACKAGE = f"{Path(jaxalign.__file__).parent}/"
PAGE = (ROOT / "docs" / "walkthrough.md").read_text()
ROW = re.compile(r"^\| `(.+?)` \| `(.+?)` \|", re.MULTILINE)
PAIRS = [{"prompt": "Which?", "chosen": f"one {i}", "rejected": f"two {i}"} for i in range(4)]
ROWS = "--policy policy --data.path rows.jsonl"
COMMANDS = {
    "A preference pair": f"dpo {ROWS} --steps 1 --warmup_steps 0 --batch_size 2",
    "A prompt": f"ppo {ROWS} --reward length.py:reward --max_new_tokens 3 "
    "--ppo.iterations 1 --ppo.batch_size 2 --ppo.minibatches 1",
    "A step of CartPole": "ppo --config cartpole.py --total_steps 512 --seeds 0",
}


def steps_of(title: str) -> list[tuple[str, str]]:
    """File and function of every row of the table under a title."""
    (part,) = (part for part in PAGE.split("\n## ") if part.startswith(f"{title}\n"))
    return ROW.findall(part)


def calls_of(arguments: list[str], steps: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The calls of those functions in a run of a command, in order."""
    codes: dict[CodeType, tuple[str, str]] = {}
    calls: list[tuple[str, str]] = []

    def note(frame, event, _):
        if event == "call":
            code = frame.f_code
            if code not in codes:
                file = code.co_filename.removeprefix(PACKAGE)
                codes[code] = (file, code.co_qualname.split("<locals>.")[-1])
            if codes[code] in steps:
                calls.append(codes[code])

    sys.setprofile(note)
    try:
        cli.main([*arguments, "--output", "run"])
    finally:
        sys.setprofile(None)
    return iter(calls)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Working directory with a small policy, pairs, prompts and a reward function."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "jaxalign" / "configs" / "ppo_cartpole.py", "cartpole.py")
    save_text_model(tmp_path / "policy", tiny_policy(24))
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    Path("length.py").write_text(
        "def reward(responses, **_): return [1.0 * len(r) for r in responses]"
    )


@pytest.mark.slow
@pytest.mark.parametrize("title", COMMANDS)
@pytest.mark.usefixtures("folder")
def test_every_step_is_called_in_this_order(title):
    steps = steps_of(title)
    calls = calls_of(COMMANDS[title].split(), steps)
    assert steps and [step for step in steps if step not in calls] == []  # `in` goes on from there
