"""What a trained model started from: its name, and its licence where its own files say one."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError
from jaxalign.pretrained.gguf.file import metadata, open_gguf
from jaxalign.pretrained.sources import HUB_ID, MODELS_IN_WHEELS, local_model
from jaxalign.system.files import exists, read_json, read_text

ORIGINS = ("policy", "init")  # of a run's configuration: what it started from
LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{1,60}")  # as the hub writes their names
DEEPEST = 20  # runs that go on from one another
LARGEST_README = 2**20  # bytes


def origins(config: Mapping[str, Any]) -> list[str]:
    """Sources of models that a configuration names."""
    return [config[name] for name in ORIGINS if isinstance(config.get(name), str) and config[name]]


def base_of(source: str) -> str:
    """The published model that a source goes back to: of a run what it began with, and so on."""
    for _ in range(DEEPEST):
        folder = Path(source).parent if Path(source).name == "model" else Path(source)
        if not (exists(folder / "versions.json") and exists(folder / "config.json")):
            break
        before = origins(read_json(folder / "config.json"))
        if not before:
            break
        source = before[0]
    return source


def hub_name(source: str) -> str:
    """The source if it is an id of the Hugging Face hub; empty otherwise."""
    return source if HUB_ID.fullmatch(source) and not exists(source) else ""


def licence_of(source: str) -> str:
    """Licence that the files of a model on this machine state; `unknown` where none does."""
    found = ""
    try:
        if readme := _readme(source):
            found = _licence_in(read_text(readme, largest=LARGEST_README))
        elif source in MODELS_IN_WHEELS or source.endswith(".gguf"):
            found = str(metadata(open_gguf(local_model(source))[0]).get("general.license", ""))
    except UserError:
        pass
    return found if LICENCE.fullmatch(found) else "unknown"


def _readme(source: str) -> Path | None:
    """`README.md` of a model's folder, or of a model in the hub's cache."""
    if hub_name(source):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(source, "README.md")
        return Path(cached) if isinstance(cached, str) else None
    path = Path(source) / "README.md"
    return path if exists(path) else None


def _licence_in(text: str) -> str:
    """The licence in the front matter of a model card; empty where there is none.

    >>> _licence_in("---\\nlicense: mit\\n---\\n# Model")
    'mit'
    """
    front = re.match(r"---\s*\n(.*?)\n---\s*\n", text, re.DOTALL)
    line = re.search(r"^license:\s*[\"']?([^\s\"'#]+)", front[1], re.MULTILINE) if front else None
    return line[1] if line else ""
