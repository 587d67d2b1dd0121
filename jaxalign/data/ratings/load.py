"""Loading of the human ratings into NumPy columns, through a cache directory."""

import contextlib
import dataclasses
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jaxalign.data.ratings.splits import SPLITS, VERSION
from jaxalign.errors import UserError
from jaxalign.system.cache import cache_directory

CONFIGS = ("movies", "products")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratings:
    """N texts and the ratings that people gave them.

    ids: N identifiers of the published files.
    texts: N cleaned texts.
    ratings: `[N, R]` int8, -4 (extremely negative) to 4 (extremely positive), 0 beyond
      `num_ratings`. Within a movie block column r is one person; for products the columns mean
      nothing.
    num_ratings: `[N]` int32.
    block: `[N]` int32, the block of 30 movies that one set of people rated; -1 for products.
    split: `[N]` strings, one of `SPLITS`.
    """

    ids: list[str]
    texts: list[str]
    ratings: np.ndarray
    num_ratings: np.ndarray
    block: np.ndarray
    split: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def rated(self) -> np.ndarray:
        """Mask `[N, R]` of the ratings that there are."""
        return np.arange(self.ratings.shape[1]) < self.num_ratings[:, None]

    @property
    def means(self) -> np.ndarray:
        """Mean rating `[N]` of every text, float64."""
        return self.ratings.sum(1, dtype=np.int64) / self.num_ratings

    def rows(self, indices: np.ndarray) -> "Ratings":
        """The ratings of the texts at these positions."""
        return Ratings(
            ids=[self.ids[i] for i in indices],
            texts=[self.texts[i] for i in indices],
            ratings=self.ratings[indices],
            num_ratings=self.num_ratings[indices],
            block=self.block[indices],
            split=self.split[indices],
        )

    def part(self, *splits: str) -> "Ratings":
        """The ratings of the texts of one or more splits."""
        if unknown := set(splits) - set(SPLITS):
            raise UserError(f"no split {sorted(unknown)}; there are {list(SPLITS)}")
        return self.rows(np.flatnonzero(np.isin(self.split, splits)))


@contextlib.contextmanager
def quiet_tfds() -> Iterator[ModuleType]:
    """Module tensorflow-datasets, silent within this context."""
    import tensorflow_datasets as tfds
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    nowhere = io.StringIO()
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield tfds
    finally:
        logging.set_verbosity(verbosity)


def prepare_ratings(config: str, data_dir: Path) -> Path:
    """Directory of the prepared data set, which is prepared on first use.

    It is written elsewhere and renamed: a killed process leaves nothing half done, and of two that
    prepare at once either one's result stands (they are the same).
    """
    final = data_dir / "human_ratings" / config / VERSION
    if final.is_dir():
        return final
    from jaxalign.data.ratings.builder import HumanRatings

    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=".preparing-", dir=data_dir) as scratch,
            quiet_tfds(),
        ):
            builder = HumanRatings(config=config, data_dir=scratch)
            builder.download_and_prepare(file_format="array_record")
            _move(Path(builder.data_dir), final)
    except OSError as error:
        raise UserError(
            f"cannot prepare the ratings in {data_dir} ({error}); name another directory with "
            "data_dir or XDG_CACHE_HOME"
        ) from error
    return final


def _move(source: Path, target: Path) -> None:
    """Rename a directory, unless another process has just done so."""
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _columns(where: Path) -> dict[str, dict[str, list]]:
    """Columns of every split: field to values; a reader that loses examples is an error."""
    with quiet_tfds() as tfds:
        builder = tfds.builder_from_directory(where)
        sources: Any = builder.as_data_source()
        columns = {}
        for split in SPLITS:
            examples = sources[split].__getitems__(range(len(sources[split])))
            if len(examples) != (expected := builder.info.splits[split].num_examples):
                raise ValueError(f"{len(examples)} of {expected} examples of {split}")
            columns[split] = {key: [example[key] for example in examples] for key in examples[0]}
    return columns


def load_ratings(config: str = "movies", data_dir: str | Path | None = None) -> Ratings:
    """Human ratings of sentences of movie or product reviews (Hutto & Gilbert 2014).

    Args:
      config: "movies" or "products".
      data_dir: where the prepared data set is kept; the user's cache directory by default.

    Returns:
      Ratings of all splits; `.part("policy")` selects one.

    Raises:
      UserError: an unknown config or a damaged cache.
    """
    if config not in CONFIGS:
        raise UserError(f"no ratings called {config!r}; there are {list(CONFIGS)}")
    where = prepare_ratings(config, Path(data_dir) if data_dir else cache_directory())
    try:
        columns = _columns(where)
    except Exception as error:  # whatever the reader makes of a damaged file
        raise UserError(
            f"{where} is damaged ({error}); delete that directory, it is made again"
        ) from error
    parts = list(columns.values())
    return Ratings(
        ids=[key.decode() for part in parts for key in part["id"]],
        texts=[text.decode() for part in parts for text in part["text"]],
        ratings=np.concatenate([np.stack(part["ratings"]) for part in parts]),
        num_ratings=np.array([n for part in parts for n in part["num_ratings"]], np.int32),
        block=np.array([n for part in parts for n in part["block"]], np.int32),
        split=np.repeat(SPLITS, [len(part["id"]) for part in parts]),
    )
