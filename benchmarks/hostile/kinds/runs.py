"""Run directories with broken files: `report`, `explain`, resuming, evaluating and exporting."""

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.hostile.base import Base, command
from benchmarks.hostile.judge import Fault, either, refused
from benchmarks.hostile.probes import in_place_of
from benchmarks.hostile.trial import Room, Trial

KIND = "runs"
FILES = ("config.json", "versions.json", "results.json", "metrics.jsonl", "samples.json")
CONTENTS: dict[str, Any] = {
    "empty": b"",
    "null": b"null",
    "number": b"3",
    "text": b'"a"',
    "list": b"[1, 2]",
    "half": b'{"a": [1, ',
    "zeros": bytes(2000),
    "latin1": b'{"a": "\xe4"}',
    "deep": b"[" * 100_000,
    "digits": b'{"seed": ' + b"9" * 5000 + b"}",
    "twice": b'{"seed": 0, "seed": 1}',
}
CONFIGS: dict[str, Any] = {
    "seed": "zero",
    "data": None,
    "model": [1],
    "fit": {"steps": "two"},
    "no_such_field": 3,
    "policy": 3,
    "lora": "none",
    "place": {"layout": 3},
}
RESULTS: dict[str, Any] = {
    "rows_text": {"rows": "abc"},
    "rows_number": {"rows": 3},
    "rows_numbers": {"rows": [1, 2]},
    "rows_nulls": {"rows": [None]},
    "rows_nested": {"rows": [[{"method": "a"}]]},
    "row_no_method": {"rows": [{"win_rate": 0.5}]},
    "row_method_list": {"rows": [{"method": [1], "win_rate": 0.5}]},
    "row_texts": {"rows": [{"method": "a", "win_rate": "high", "kl": {}}]},
    "row_infinite": {"rows": [{"method": "a", "win_rate": float("inf"), "kl": float("nan")}]},
    "row_huge": {"rows": [{"method": "a", "win_rate": 1e308, "kl": -1e308}]},
    "row_digits": {"rows": [{"method": "a", "win_rate": 10**400}]},
    "rows_many": {"rows": [{"method": f"m{i}", "win_rate": 0.5} for i in range(300)]},
    "title_list": {"title": [1], "rows": []},
    "title_long": {"title": "x" * 100_000, "rows": []},
    "notes_text": {"notes": "abc"},
    "notes_number": {"notes": 3},
    "notes_nested": {"notes": [[1], {"a": 1}]},
    "curves_text": {"curves": "abc"},
    "curves_nulls": {"curves": [{"method": None, "step": None, "kl": None}]},
    "curves_texts": {"curves": [{"method": "a", "step": "one", "kl": "x", "reward_score": "y"}]},
    "reward_model_number": {"reward_model": 3},
    "reward_model_texts": {"reward_model": [{"scorer": 3, "pair_accuracy": "x"}]},
    "calibration": {"calibration": [{"predicted": "x"}]},
    "best_of_n": {"best_of_n": [{"n": "four"}]},
    "timing_list": {"timing": [1, 2]},
    "timing_texts": {"timing": {"sft": "long"}},
    "seeds_numbers": {"seeds": [1, 2]},
    "seeds_texts": {"seeds": [{"seed": "a", "x": "y"}], "mean_x": "z"},
}
METRICS: dict[str, str] = {
    "no_json": "abc\n",
    "list": "[1]\n",
    "number": "3\n",
    "no_stage": '{"step": 1, "loss": 1.0}\n',
    "no_step": '{"stage": "sft", "loss": 1.0}\n',
    "step_text": '{"stage": "sft", "step": "one", "loss": 1.0}\n',
    "step_huge": '{"stage": "sft", "step": ' + "9" * 400 + ', "loss": 1.0}\n',
    "step_minus": '{"stage": "sft", "step": -5, "loss": 1.0}\n',
    "loss_text": '{"stage": "sft", "step": 1, "loss": "high"}\n',
    "loss_list": '{"stage": "sft", "step": 1, "loss": [1]}\n',
    "loss_infinite": '{"stage": "sft", "step": 1, "loss": Infinity}\n',
    "loss_huge": '{"stage": "sft", "step": 1, "loss": 1e308}\n{"stage": "sft", "step": 2, '
                 '"loss": -1e308}\n',
    "stage_list": '{"stage": ["sft"], "step": 1, "loss": 1.0}\n',
    "stage_path": '{"stage": "../../x", "step": 1, "loss": 1.0}\n',
    "half_line": '{"stage": "sft", "step": 1, "loss": 1.0}\n{"stage": "s',
    "middle": '{"stage": "sft", "st\n{"stage": "sft", "step": 1, "loss": 1.0}\n',
    "zeros": "\0" * 100 + "\n",
    "name_long": '{"stage": "sft", "step": 1, "' + "x" * 5000 + '": 1.0}\n',
    "many_names": '{"stage": "sft", "step": 1'
                  + "".join(f', "n{i}": 1.0' for i in range(300)) + "}\n",
}  # fmt: skip
SAMPLES: dict[str, Any] = {
    "numbers": [1, 2],
    "no_prompt": [{"responses": {}}],
    "prompt_number": [{"prompt": 3, "responses": {"a": {"text": 3}}}],
    "responses_list": [{"prompt": "a", "responses": [1]}],
    "response_text": [{"prompt": "a", "responses": {"a": "b"}}],
    "score_text": [{"prompt": "a", "responses": {"a": {"text": "b", "judge_score": "x"}}}],
    "object": {"a": 1},
}


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Every file broken in every way, for all who read it."""
    for file in FILES:
        for name, content in CONTENTS.items():
            yield _trial(f"report_{file}_{name}", reported, file=file, content=content)
        for what in ("directory", "fifo", "endless", "loop"):
            yield _trial(f"report_{file}_{what}", no_file, file=file, what=what)
    for name, content in RESULTS.items():
        yield _trial(f"report_results_{name}", reported, file="results.json", content=content)
        yield _trial(f"card_results_{name}", carded, file="results.json", content=content)
    for name, text in METRICS.items():
        yield _trial(f"report_metrics_{name}", reported, file="metrics.jsonl", content=text)
        yield _trial(f"resume_metrics_{name}", resumed, file="metrics.jsonl", content=text)
    for name, content in SAMPLES.items():
        yield _trial(f"report_samples_{name}", reported, file="samples.json", content=content)
    for name, content in CONTENTS.items():
        yield _trial(f"explain_config_{name}", explained, content=content)
        yield _trial(f"resume_config_{name}", resumed, file="config.json", content=content)
        yield _trial(f"card_config_{name}", carded, file="config.json", content=content)
        yield _trial(f"card_versions_{name}", carded, file="versions.json", content=content)
    for field, value in CONFIGS.items():
        yield _trial(f"explain_field_{field}", explained, change={field: value})
        yield _trial(f"resume_field_{field}", resumed, file="config.json", change={field: value})
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        yield _trial(f"model_without_{name}", model_without, name=name)
    for name in ("empty", "no_model", "file", "other_project"):
        yield _trial(f"no_run_{name}", no_run, name=name)


def _trial(name: str, act: Callable[..., str], /, **settings: Any) -> Trial:
    return Trial(kind=KIND, name=name, act=functools.partial(act, **settings))


def copy_of(room: Room) -> Path:
    """A copy of the policy's run, with samples."""
    shutil.copytree(room.base.policy, room.path / "run", symlinks=True)
    room.write(
        "run/samples.json", json.dumps([{"prompt": "a", "responses": {"SFT": {"text": "b"}}}])
    )
    return room.path / "run"


def harmed(room: Room, file: str, content: Any, change: dict[str, Any] | None = None) -> None:
    """Another content, or a changed field, in a file of the copy."""
    folder = copy_of(room)
    if change is not None:
        content = json.loads((folder / file).read_text()) | change
    room.write(f"run/{file}", content if isinstance(content, str | bytes) else json.dumps(content))


def reported(room: Room, *, file: str, content: Any) -> str:
    """`report` says what is wrong with the file, or writes a page."""
    harmed(room, file, content)
    return either(room.call("report", "run"), lambda: page(room), file)


def page(room: Room) -> None:
    """The page was written, whole.

    Raises:
      Fault: it was not.
    """
    if not (room.path / "run" / "report.html").read_text().rstrip().endswith("</html>"):
        raise Fault("silent", "no whole page")


def no_file(room: Room, *, file: str, what: str) -> str:
    """Something else than a file in its place."""
    (copy_of(room) / file).unlink()
    in_place_of(room.path / "run" / file, what)
    return either(room.call("report", "run"), lambda: page(room), file)


def explained(room: Room, *, content: Any = None, change: dict[str, Any] | None = None) -> str:
    """`explain` says what is wrong with the configuration of the run."""
    harmed(room, "config.json", content, change)
    return refused(
        room.call("explain", "--run", "run", "--rows", "2"), "config.json", "--run", "run"
    )


def resumed(
    room: Room, *, file: str, content: Any = None, change: dict[str, Any] | None = None
) -> str:
    """Going on says what is wrong, or ends with the same model."""
    harmed(room, file, content, change)
    before = (room.path / "run" / "model" / "model.safetensors").read_bytes()
    ending = room.call(*command("sft", room.base))

    def same() -> None:
        if (room.path / "run" / "model" / "model.safetensors").read_bytes() != before:
            raise Fault("lost", "resumed to another model")
        if file == "config.json":
            raise Fault("silent", "went on in a run whose configuration is broken")

    return either(ending, same, file, "run")


def carded(room: Room, *, file: str, content: Any) -> str:
    """`export` says what is wrong with the file that the card is made from, or makes one."""
    harmed(room, file, content)
    ending = room.call("export", "--model", "run", "--output", "out")

    def has_card() -> None:
        assert (room.path / "out" / "README.md").read_text()

    return either(ending, has_card, file)


def model_without(room: Room, *, name: str) -> str:
    """A run whose model lacks a file."""
    (copy_of(room) / "model" / name).unlink()
    return refused(room.call("generate", "--model", "run", "--prompt", "a"), name, "model", "run")


def no_run(room: Room, *, name: str) -> str:
    """A directory that is no run."""
    folder = room.path / "run"
    if name == "file":
        folder.write_text("x")
    else:
        folder.mkdir()
    if name == "no_model":
        room.write("run/config.json", {})
    if name == "other_project":
        room.write("run/config.json", {"name": "app", "version": 3})
        room.write("run/package.json", {})
    return refused(room.call("explain", "--run", "run"), "run")
