"""Cache on disk of the reference's log-probabilities, so that a sweep computes them once."""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from jaxalign.config.dpo import DPOConfig
from jaxalign.config.kto import KTOConfig
from jaxalign.data.chat import TokenRow
from jaxalign.errors import UserError
from jaxalign.models.transformer import unrolled
from jaxalign.pretrained.safetensors_file import metadata, open_safetensors
from jaxalign.recipes.inputs import weights_digest
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import response_logps
from jaxalign.recipes.text_models import TextModel
from jaxalign.system.console import tell
from jaxalign.system.files import exists, make_directory, short_path, write_atomically

ARRAY = "logps"


def cached_response_logps(folder: str, *, model: str, data: str) -> Callable[..., np.ndarray]:
    """`response_logps` with a cache in a folder.

    A file holds the sums of one list of rows and is named by the hash of all that decides them.

    Args:
      folder: made if needed; empty: nothing is kept.
      model, data: where they come from, for whoever looks into a file.
    """
    if not folder:
        return response_logps
    try:
        make_directory(folder)
    except UserError as error:
        raise UserError(f"reference_logps: {error}") from None
    weights = _Remembered()

    def cached(
        run: Run, policy: TextModel, rows: Sequence[TokenRow], *, temperature: float = 1.0
    ) -> np.ndarray:
        platform = run.layout.devices[0].platform
        key = digest(weights.of(policy), platform, rows, temperature=temperature)
        path = Path(folder) / f"{key}.safetensors"
        if exists(path):
            tell(f"reference: {len(rows):,} log-probabilities from {path}")
            return read(path, len(rows))
        logps = response_logps(run, policy, rows, temperature=temperature)
        fields = {"model": model, "data": data, "temperature": repr(float(temperature))}
        write(path, logps, fields)
        tell(f"reference: {len(rows):,} log-probabilities kept in {path}")
        return logps

    return cached


def once_for_rows(score: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """The same function of one model at one temperature, which scores every row only once."""
    known: dict[bytes, np.float32] = {}

    def scored(run: Run, policy: TextModel, rows: Sequence[TokenRow], **options: float):
        keys = [_key_of(row) for row in rows]
        missing = [number for number, key in enumerate(keys) if key not in known]
        if missing:
            parts = rows if len(missing) == len(rows) else [rows[number] for number in missing]
            logps = score(run, policy, parts, **options)
            known.update(zip((keys[number] for number in missing), logps, strict=True))
        return np.array([known[key] for key in keys], np.float32)

    return scored


def _key_of(row: TokenRow) -> bytes:
    found = hashlib.sha256()
    _update(found, [row])
    return found.digest()


def cached_logps_of(config: DPOConfig | KTOConfig) -> Callable[..., np.ndarray]:
    """`response_logps` with the cache of a configuration; without one where it names none."""
    model = f"{config.policy} with adapter {config.adapter}" if config.adapter else config.policy
    return cached_response_logps(config.reference_logps, model=model, data=config.data.source)


def digest(weights: str, platform: str, rows: Sequence[TokenRow], *, temperature: float) -> str:
    """SHA-256 of all that determines the log-probabilities, in hexadecimal.

    That is the model, the rows in their order, the temperature, the version of this library, and
    the kind of device with the precision of its products.

    Args:
      weights: `weights_digest` of the model.
      platform: "cpu", "gpu" or "tpu".
      rows: which tokens are given, and which are counted.
      temperature: of the distribution.
    """
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    settings = [weights, platform, precision, float(temperature), _version()]
    found = hashlib.sha256(json.dumps(settings).encode())
    _update(found, rows)
    return found.hexdigest()


def _update(found: "hashlib._Hash", rows: Sequence[TokenRow]) -> None:
    """Add rows to a hash: which tokens are given, and which are counted."""
    found.update(np.array([len(row) for row in rows], np.int64).tobytes())
    for row in rows:
        found.update(np.asarray(row.tokens, np.int32).tobytes())
        found.update(np.asarray(row.is_response, bool).tobytes())


def write(path: Path, logps: np.ndarray, fields: dict[str, str]) -> None:
    """Write a cache file atomically, also where several runs write it at once."""
    from safetensors.numpy import save

    array = np.ascontiguousarray(logps)
    fields |= {"rows": str(len(array)), "jaxalign": _version(), "sha256": _sum_of(array)}
    write_atomically(path, save({ARRAY: array}, metadata=fields))


def read(path: Path, rows: int) -> np.ndarray:
    """Log-probabilities `[rows]` of a cache file.

    Raises:
      UserError: the file is damaged, or holds another number of rows.
    """
    again = "remove it, and it is computed again"
    try:
        with open_safetensors([path], short_path(path)) as weights:
            fields, array = metadata(path), weights.rows(ARRAY, slice(None))
    except UserError as error:
        raise UserError(f"{path} is damaged ({error}); {again}") from None
    except KeyError:
        raise UserError(f"{path} is damaged (no {ARRAY} in it); {again}") from None
    if array.shape != (rows,):
        raise UserError(
            f"{path} holds log-probabilities of shape {array.shape}, the data have {rows} rows; "
            f"{again}"
        )
    if fields.get("sha256") != _sum_of(array):
        raise UserError(f"{path} is damaged (the checksum differs); {again}")
    return array


class _Remembered:
    """Digests of models by identity, so that a large one is hashed once."""

    def __init__(self):
        self.known: list[tuple[TextModel, str]] = []

    def of(self, policy: TextModel) -> str:
        for known, sha256 in self.known:
            if known is policy:
                return sha256
        model, params = unrolled(policy.model, policy.params)  # a loop is the same policy
        one_by_one = dataclasses.replace(policy, model=model, params=params)
        self.known.append((policy, weights_digest(one_by_one)))
        return self.known[-1][1]


def _sum_of(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def _version() -> str:
    return importlib.metadata.version("jaxalign")
