"""`--config` files that do not run, hold no configuration, or one that cannot be."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.hostile.base import Base, command
from benchmarks.hostile.judge import refused, worked
from benchmarks.hostile.probes import in_place_of
from benchmarks.hostile.trial import Room, Trial

KIND = "config_files"
HEAD = "from jaxalign.config import *\nfrom jaxalign.config import DPOConfig, SFTConfig\n"


def returning(text: str) -> str:
    """A file whose `get_config()` returns that."""
    return f"{HEAD}def get_config():\n    return {text}\n"


CONTENTS: dict[str, str | bytes] = {
    "empty": "",
    "syntax": "def get_config(:\n",
    "indentation": "def get_config():\nreturn 1\n",
    "zero_byte": "x = 1\0",
    "latin1": b"# \xe4\n",
    "utf16": returning("DPOConfig()").encode("utf-16"),
    "import": "import no_such_module\n",
    "import_name": "from jaxalign.config import NoSuchConfig\n",
    "raises": "raise ValueError('no')\n",
    "raises_lines": "raise ValueError('a\\nb\\nc')\n",
    "exits": "raise SystemExit\n",
    "exits_text": "raise SystemExit('bye')\n",
    "no_function": "config = 3\n",
    "number": "get_config = 3\n",
    "needs_argument": "def get_config(name):\n    return name\n",
    "returns_none": returning("None"),
    "returns_dict": returning("{'seed': 1}"),
    "returns_class": returning("DPOConfig"),
    "returns_text": returning("'dpo'"),
    "of_another_command": returning("SFTConfig()"),
    "unknown_field": returning("DPOConfig(sede=1)"),
    "unknown_nested": returning("DPOConfig(dpo=DPOSettings(bta=1))"),
    "positional": returning("DPOConfig(1)"),
    "wrong_type": returning("DPOConfig(seed='one')"),
    "wrong_nested": returning("DPOConfig(data='file.jsonl')"),
    "wrong_dict": returning("DPOConfig(dpo={'beta': 0.1})"),
    "wrong_choice": returning("DPOConfig(dpo=DPOSettings(loss='no_such'))"),
    "wrong_number": returning("DPOConfig(dpo=DPOSettings(fit=FitConfig(steps=1.5)))"),
    "text_number": returning("DPOConfig(temperature='1.0')"),
    "nan": returning("DPOConfig(temperature=float('nan'))"),
    "none": returning("DPOConfig(seed=None)"),
    "bool": returning("DPOConfig(data=DataConfig(max_length=True))"),
    "list": returning("DPOConfig(lora=LoraConfig(rank=2, targets=['x', 3]))"),
    "out_of_range": returning("DPOConfig(temperature=-1.0)"),
    "raises_inside": "def get_config():\n    return 1 / 0\n",
    "recursion": "def get_config():\n    return get_config()\n",
    "own_class": "class DPOConfig:\n    pass\ndef get_config():\n    return DPOConfig()\n",
    "generator": "def get_config():\n    yield 1\n",
    "async": "async def get_config():\n    return 1\n",
}


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Contents, kinds of files, and one that is right."""
    for name, content in CONTENTS.items():
        yield _trial(name, bad, content=content)
    for what in ("missing", "directory", "fifo", "loop", "endless"):
        yield _trial(f"file_{what}", no_file, what=what)
    for name, source in {"nothing": "", "zero": "a\0.py", "long": "x" * 5000}.items():
        yield _trial(f"name_{name}", named, source=source)
    yield _trial("right", right)


def _trial(name: str, act: Callable[..., str], /, **settings: Any) -> Trial:
    return Trial(kind=KIND, name=name, act=functools.partial(act, **settings))


def bad(room: Room, *, content: str | bytes) -> str:
    """The file with data and models on the command line: all else is right."""
    file = room.write("config.py", content)
    arguments = command("dpo", room.base)
    cut = arguments.index("--dpo.fit.steps")
    kept = arguments[:cut] if b"fit" in content_bytes(content) else arguments
    return refused(room.call(*kept, "--config", file), "config.py", "temperature")


def content_bytes(content: str | bytes) -> bytes:
    """The bytes of a text or of bytes."""
    return content if isinstance(content, bytes) else content.encode()


def no_file(room: Room, *, what: str) -> str:
    """Something else than a file."""
    in_place_of(room.path / "config.py", what)
    return refused(room.call("dpo", "--config", str(room.path / "config.py")), "config.py")


def named(room: Room, *, source: str) -> str:
    """A name of no file."""
    return refused(room.call("dpo", "--config", source), "config")


def right(room: Room) -> str:
    """A configuration that is one."""
    file = room.write("config.py", returning("DPOConfig(seed=3)"))
    return worked(room.call(*command("dpo", room.base), "--config", file))
