"""Somebody else's files: no code of theirs may run, no markup of theirs may get into ours."""

import functools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.hostile.base import Base
from benchmarks.hostile.judge import Ending, Fault, whole
from benchmarks.hostile.trial import Room, Trial

KIND = "foreign"
CODE = (
    "open({!r}, 'w').write('run')\n"
    "def reward(prompts, responses, **c):\n    return [1.0] * len(responses)\n"
)
SPAN = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)")  # code in Markdown, where nothing works
MARKUP = {
    "script": "<script>alert(1)</script>",
    "image": '"><img src=x onerror=alert(1)>',
    "link": "[click](javascript:alert(1))",
    "front_matter": "a\n---\nlicense: mit\n---\n",
    "heading": "a\n# Injected\n",
    "backticks": "a`\n```\n<b>x</b>",
    "entity": "&lt;script&gt;",
    "pipe": "a | b | <script>x</script>",
    "escape": "\x1b[31m\x07",
}


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Reward functions in foreign runs, and markup in every text that goes into a page."""
    for kind in ("grpo", "ppo"):
        for where in ("relative", "absolute", "parent", "rewards"):
            yield _trial(f"explain_{kind}_{where}", explained, method=kind, where=where)
    yield _trial("config_beside_the_model", beside_model)
    yield _trial("auto_map", auto_map)
    yield _trial("conftest_in_the_directory", shadowing)
    for name, text in MARKUP.items():
        for field in ("method", "note", "path", "version", "setting", "init", "scorer"):
            yield _trial(f"card_{field}_{name}", carded, field=field, text=text)
        for field in ("method", "note", "version", "sample", "prompt", "title"):
            yield _trial(f"page_{field}_{name}", paged, field=field, text=text)


def _trial(name: str, act: Callable[..., str], /, **settings: Any) -> Trial:
    return Trial(kind=KIND, name=name, act=functools.partial(act, **settings))


def not_run(room: Room, ending: Ending) -> str:
    """It ended well or in a line, and no code ran.

    Raises:
      Fault: it did.
    """
    if (room.path / "marker").exists():
        raise Fault("silent", f"code of a stranger was run (status {ending.status})")
    whole(ending)
    return "line" if ending.status else "right"


def explained(room: Room, *, method: str, where: str) -> str:
    """`explain --run THEIR_RUN` whose configuration names a reward file."""
    import dataclasses

    from jaxalign.config.grpo import GRPOConfig
    from jaxalign.config.ppo import TextPPOConfig

    marker = str(room.path / "marker")
    room.write("run/rewards.py", CODE.format(marker))
    room.write("rewards.py", CODE.format(marker))
    source = {"relative": "run/rewards.py", "absolute": str(room.path / "rewards.py"),
              "parent": "run/../rewards.py:reward", "rewards": "rewards.py"}[where]  # fmt: skip
    fields = dataclasses.asdict({"ppo": TextPPOConfig, "grpo": GRPOConfig}[method]())
    fields |= {"policy": room.base.policy, "max_new_tokens": 4}
    fields["data"] |= {"path": room.base.prompts}
    fields |= {"rewards": {source: 1.0}} if where == "rewards" else {"reward": source}
    room.write("run/config.json", json.dumps(fields))
    shutil.copytree(f"{room.base.policy}/model", room.path / "run" / "model")
    return not_run(room, room.call("explain", "--run", "run", "--rows", "2"))


def beside_model(room: Room) -> str:
    """Python files in a model's folder."""
    shutil.copytree(room.base.published("llama"), room.path / "model")
    marker = str(room.path / "marker")
    for name in ("modeling_llama.py", "config.py", "__init__.py", "conftest.py", "rewards.py"):
        room.write(f"model/{name}", CODE.format(marker))
    return not_run(room, room.call("generate", "--model", "model", "--prompt", "a"))


def auto_map(room: Room) -> str:
    """A model that asks for code of its own."""
    shutil.copytree(room.base.published("llama"), room.path / "model")
    fields = json.loads((room.path / "model" / "config.json").read_text())
    auto = {"AutoModelForCausalLM": "modeling_mine.Mine", "AutoConfig": "modeling_mine.Config"}
    room.write("model/config.json", fields | {"auto_map": auto})
    room.write("model/modeling_mine.py", CODE.format(str(room.path / "marker")))
    return not_run(room, room.call("generate", "--model", "model", "--prompt", "a"))


def shadowing(room: Room) -> str:
    """Modules of the working directory named as those that the program imports."""
    for name in ("tokenizers.py", "jinja2.py", "conftest.py", "sitecustomize.py", "rewards.py"):
        room.write(name, CODE.format(str(room.path / "marker")))
    ending = room.call("generate", "--model", room.base.policy, "--prompt", "a")
    return not_run(room, ending)


def copy_of(room: Room) -> None:
    """A copy of the policy's run."""
    shutil.copytree(room.base.policy, room.path / "run")


def change(room: Room, file: str, function: Callable[[Any], Any]) -> None:
    """Another content of a JSON file of the run."""
    path = room.path / "run" / file
    path.write_text(json.dumps(function(json.loads(path.read_text()))))


def harm(room: Room, field: str, text: str) -> None:
    """The text in that place of the run."""
    row = {"method": text if field == "method" else "SFT", "perplexity": 3.0}
    scorer = [{"scorer": text if field == "scorer" else "a", "pair_accuracy": 0.5}]
    notes = [text] if field == "note" else ["a note"]
    title = text if field == "title" else "a run"
    results = {"title": title, "rows": [row], "reward_model": scorer, "notes": notes}
    change(room, "results.json", lambda old: results)
    if field == "version":
        change(room, "versions.json", lambda old: old | {text: text, "device": text})
    if field == "path":
        change(room, "config.json", lambda old: old | {"data": old["data"] | {"path": text}})
    if field == "init":
        change(room, "config.json", lambda old: old | {"init": text})
    if field == "setting":
        change(room, "config.json", lambda old: old | {text: text})
    prompt, sample = (text if field == name else "a" for name in ("prompt", "sample"))
    samples = [{"prompt": prompt, "responses": {"SFT": {"text": sample}}}]
    room.write("run/samples.json", json.dumps(samples))


def carded(room: Room, *, field: str, text: str) -> str:
    """The card of an exported model has the text as a text, or it was refused."""
    copy_of(room)
    harm(room, field, text)
    ending = room.call("export", "--model", "run", "--output", "out")
    if ending.status == 0 and not ending.error:
        card = (room.path / "out" / "README.md").read_text()
        check(card, text, front_matter=True)
    return not_run(room, ending)


def paged(room: Room, *, field: str, text: str) -> str:
    """The same for the report."""
    copy_of(room)
    harm(room, field, text)
    ending = room.call("report", "run")
    if ending.status == 0 and not ending.error:
        check((room.path / "run" / "report.html").read_text(), text)
    return not_run(room, ending)


def check(page: str, text: str, *, front_matter: bool = False) -> None:
    """Nothing of the text works as markup.

    Raises:
      Fault: something does.
    """
    shown = SPAN.sub("", page) if front_matter else page
    if any(word in shown for word in ("<script>alert", "<script>x", "<img src=x", "<b>x</b>")):
        raise Fault("silent", f"markup goes into the page unescaped: {text!r}")
    lines = page.splitlines()
    if front_matter and (lines.count("---") != 2 or "# Injected" in lines or "```" in lines):
        raise Fault("silent", f"the text makes lines of its own in the card: {text!r}")
    if front_matter and re.search(r"(?<!\\)\]\(javascript:", shown):
        raise Fault("silent", f"the text makes a link: {text!r}")
    if front_matter and "\x1b" in page:
        raise Fault("silent", "an escape character goes into the page")
