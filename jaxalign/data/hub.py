"""Data sets of the Hugging Face hub as local files: Parquet, JSON or CSV, never a script.

hf:trl-lib/ultrafeedback_binarized    hf:openai/gsm8k:main:test    trl-lib/tldr
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError, one_line
from jaxalign.system.files import exists, short_path

SOURCE = re.compile(r"(hf:)?(?P<name>[\w-][\w.-]*/[\w.-]+)(?P<parts>(:[\w.-]+){0,2})")
ENDINGS = tuple(
    f"{ending}{packed}"
    for ending, packings in (
        (".parquet", [""]),
        *((text, ["", ".gz"]) for text in (".jsonl", ".json", ".csv", ".tsv", ".txt")),
    )
    for packed in packings
)
CONVERTED = "refs/convert/parquet"  # a branch that the hub writes: CONFIG/SPLIT/0000.parquet
# files that describe a data set or a model, and hold no rows
ABOUT = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "config.json")
SPLITS = {"train": "train training", "validation": "validation valid val dev", "test": "test eval"}
Configs = dict[str, dict[str, list[str]]]  # config -> split -> files


def is_hub_source(source: str) -> bool:
    """Whether a source is a data set of the hub: `hf:OWNER/NAME`, or the bare id."""
    match = SOURCE.fullmatch(source)
    return source.startswith("hf:") or (match is not None and not source.endswith(ENDINGS))


def hub_data_set(source: str | None) -> str:
    """Id of the hub's data set that a source names; empty: none, or a file or folder is there.

    >>> hub_data_set("hf:openai/gsm8k:main:test"), hub_data_set("pairs.jsonl")
    ('openai/gsm8k', '')
    """
    match = SOURCE.fullmatch(source or "")
    if match is None or not is_hub_source(match[0]):
        return ""
    return "" if match[1] is None and exists(match[0]) else match["name"]


def hub_files(source: str) -> list[Path]:
    """Local files of `[hf:]OWNER/NAME[:CONFIG][:SPLIT]`, in order, downloaded where they are not
    in the cache of the hub; with HF_HUB_OFFLINE only what is there is read.

    Without a split it is "train", or the only one; without a config the default or the only one.

    Raises:
      UserError: there is no such data set, config or split, or nothing safe to read in it.
    """
    if not (match := SOURCE.fullmatch(source)):
        raise UserError(f"{short_path(source)} is not of the form hf:OWNER/NAME[:CONFIG][:SPLIT]")
    name, parts = match["name"], match["parts"].split(":")[1:]
    for revision in (None, CONVERTED):
        names = _names(name, revision, source)
        if configs := _configs(name, names, revision):
            files = _chosen(source, configs, parts)
            folder = _snapshot(name, revision, files, source)
            return [folder / file for file in files]
    raise UserError(f"{source} holds no {', '.join(ENDINGS[:5])} file; scripts are not run")


def _names(name: str, revision: str | None, source: str) -> list[str]:
    """Names of all files of a data set: on the hub, or in its cache where that is out of reach."""
    from huggingface_hub import HfApi, errors

    try:
        return sorted(HfApi().list_repo_files(name, repo_type="dataset", revision=revision))
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"no file {source}, and the hub has no such data set, or not for you"
        ) from None
    except errors.RevisionNotFoundError:
        return []
    except Exception:  # out of reach; every client of the network has errors of its own
        folder = _snapshot(name, revision, None, source)
        return sorted(
            file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()
        )


def _snapshot(name: str, revision: str | None, files: Sequence[str] | None, source: str) -> Path:
    """Folder of a data set in the hub's cache, with these files; None: with what is there."""
    import huggingface_hub
    from huggingface_hub import errors

    given: dict[str, Any] = {"repo_type": "dataset", "revision": revision}
    if files is None:
        given |= {"local_files_only": True}
    else:
        given |= {"allow_patterns": [*files]}
    try:
        folder = Path(huggingface_hub.snapshot_download(name, **given))
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        if revision == CONVERTED:
            return Path("/nonexistent")
        why = "it is not in the cache of the Hugging Face hub, which cannot be reached"
    except Exception as error:  # of the network, the disk, or the name
        why = f"the Hugging Face hub says: {one_line(error)}"
    else:
        if missing := [file for file in files or () if not (folder / file).is_file()]:
            raise UserError(f"{source}: the cache of the hub lacks {missing[0]}")
        return folder
    raise UserError(f"no file {source}, and {why}")


def _configs(name: str, names: Sequence[str], revision: str | None) -> Configs:
    """Files of every split of every config: as the data set's card says, or by their names."""
    files = [file for file in names if file.endswith(ENDINGS) and Path(file).name not in ABOUT]
    if revision == CONVERTED:
        return _by_folders(files)
    if "README.md" in names:
        readme = _snapshot(name, revision, ["README.md"], name) / "README.md"
        if configs := _of_card(readme, files):
            return configs
    return {"default": _by_names(files)} if files else {}


def _of_card(readme: Path, files: Sequence[str]) -> Configs:
    """Configs that the front matter of a card lists with their files."""
    from huggingface_hub import metadata_load

    try:
        listed = (metadata_load(readme) or {}).get("configs")
    except Exception as error:  # YAML that is none
        raise UserError(f"{short_path(readme)}: {one_line(error)}") from None
    configs: Configs = {}
    for config in listed if isinstance(listed, list) else ():
        if not isinstance(config, Mapping) or "data_files" not in config:
            continue
        splits = _splits(config["data_files"], str(config.get("data_dir", "")), files)
        config_name = str(config.get("config_name", "default"))
        if splits:
            configs[config_name] = splits
            if config.get("default") is True:  # the first is taken
                configs = {config_name: splits, **configs}
                configs.setdefault("default", splits)
    return configs


def _splits(data_files: Any, folder: str, files: Sequence[str]) -> dict[str, list[str]]:
    """Files of every split of a config, from the forms in which a card may list them."""
    if isinstance(data_files, str):
        data_files = [{"split": "train", "path": data_files}]
    splits: dict[str, list[str]] = {}
    for entry in data_files if isinstance(data_files, list) else ():
        if isinstance(entry, str):
            entry = {"split": "train", "path": entry}
        paths = entry.get("path", []) if isinstance(entry, Mapping) else []
        patterns = [
            f"{folder}/{p}".lstrip("/") for p in ([paths] if isinstance(paths, str) else paths)
        ]
        found = [file for file in files if any(fnmatch.fnmatch(file, p) for p in patterns)]
        if found:
            splits.setdefault(str(entry.get("split", "train")), []).extend(found)
    return splits


def _by_folders(files: Iterable[str]) -> Configs:
    """Files of the converted branch, whose folders are named for config and split."""
    configs: Configs = {}
    for file in files:
        config, split, *_ = file.split("/")
        split = split.removeprefix("partial-")
        configs.setdefault(config, {}).setdefault(split, []).append(file)
    return configs


def _by_names(files: Iterable[str]) -> dict[str, list[str]]:
    """Files of every split by the words of their paths; a file without one is for training."""
    splits: dict[str, list[str]] = {}
    for file in files:
        words = re.split(r"[^a-z0-9]+", file.lower())
        split = next((s for s, names in SPLITS.items() if set(names.split()) & set(words)), "train")
        splits.setdefault(split, []).append(file)
    return splits


def _chosen(source: str, configs: Configs, parts: Sequence[str]) -> list[str]:
    """Files of the config and the split that a source names."""
    if len(parts) == 1 and parts[0] not in configs:
        parts = ["", parts[0]]
    config, split = [*parts, "", ""][:2]
    if not config:
        config = "default" if "default" in configs else next(iter(configs))
        if len(configs) > 1 and "default" not in configs:
            raise UserError(
                f"{source} has the configs {_listed(configs)}; give one: {source}:{config}"
            )
    if config not in configs:
        raise UserError(f"{source}: no config {config}; there are {_listed(configs)}")
    splits = configs[config]
    if not split:
        split = "train" if "train" in splits else next(iter(splits))
        if len(splits) > 1 and "train" not in splits:
            raise UserError(
                f"{source} has the splits {_listed(splits)}; give one: {source}:{split}"
            )
    if split not in splits:
        raise UserError(f"{source}: no split {split}; there are {_listed(splits)}")
    return splits[split]


def _listed(names: Iterable[str]) -> str:
    found = [*names]
    more = f" and {len(found) - 20} more" if len(found) > 20 else ""
    return ", ".join(found[:20]) + more
