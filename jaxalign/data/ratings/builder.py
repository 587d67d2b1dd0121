"""tensorflow-datasets builder of the human ratings, from the files in this package.

    import tensorflow_datasets as tfds
    import jaxalign.data.ratings.builder  # registers the name
    tfds.builder("human_ratings/movies").download_and_prepare(file_format="array_record")
    tfds.data_source("human_ratings/movies", split="judge")[0]

`load_ratings` does all of this and returns columns.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from jaxalign.data.ratings.clean import clean_text, text_key
from jaxalign.data.ratings.splits import SPLITS, VERSION, group_splits

BLOCK = 30
MAX_RATINGS = {"movies": 29, "products": 20}
CITATION = """@inproceedings{hutto2014vader,
  title={VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text},
  author={Hutto, C.J. and Gilbert, Eric},
  booktitle={Proceedings of the 8th International Conference on Weblogs and Social Media (ICWSM)},
  year={2014}
}"""


def packed_records(name: str) -> list[dict]:
    """Rows `{"id", "text", "ratings"}` as published."""
    packed = Path(__file__).with_name(f"{name}.jsonl.gz").read_bytes()
    return [json.loads(line) for line in gzip.decompress(packed).decode().strip().split("\n")]


def group_of(name: str, key: str) -> int:
    """Group of a text by its id: the block of movies (ids 1-30, 31-60, ...), or the product review.

    `12_3` is of review 12.
    """
    return (int(key) - 1) // BLOCK if name == "movies" else int(key.split("_")[0]) - 1


def cleaned_records(name: str) -> Iterator[dict]:
    """Examples with cleaned texts and their splits; of equal texts only the first is kept."""
    rows = packed_records(name)
    groups = [group_of(name, row["id"]) for row in rows]
    order = {group: rank for rank, group in enumerate(sorted(set(groups)))}
    splits, seen = group_splits(name, len(order)), set()
    for row, group in zip(rows, groups, strict=True):
        text = clean_text(row["text"], lost_dashes=name == "movies")
        if text_key(text) in seen:
            continue
        seen.add(text_key(text))
        padded = np.zeros(MAX_RATINGS[name], np.int8)
        padded[: len(row["ratings"])] = row["ratings"]
        yield {
            "id": row["id"],
            "text": text,
            "ratings": padded,
            "num_ratings": len(row["ratings"]),
            "block": group if name == "movies" else -1,
            "split": splits[order[group]],
        }


class HumanRatings(tfds.core.GeneratorBasedBuilder):
    """Sentiment ratings by people, -4 to 4, of sentences from movie and product reviews."""

    VERSION = tfds.core.Version(VERSION)
    code_path = epath.Path(
        __file__
    )  # the inherited search needs a package that tfds does not declare
    BUILDER_CONFIGS = [  # noqa: RUF012  (the base class declares it so)
        tfds.core.BuilderConfig(name="movies", description="Sentences from movie reviews."),
        tfds.core.BuilderConfig(name="products", description="Sentences from product reviews."),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        """Description and features of the data set."""
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            citation=CITATION,
            homepage="https://github.com/cjhutto/vaderSentiment",
            license="MIT",
            disable_shuffling=True,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "text": tfds.features.Text(),
                    # fixed size: a Sequence of numbers decodes ten times slower
                    "ratings": tfds.features.Tensor(
                        shape=(MAX_RATINGS[str(self.builder_config_name)],), dtype=np.int8
                    ),
                    "num_ratings": tfds.features.Scalar(dtype=np.int32),
                    "block": tfds.features.Scalar(dtype=np.int32),
                }
            ),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict]]]:
        """Examples of every split."""
        del dl_manager
        rows = list(cleaned_records(str(self.builder_config_name)))
        return {split: self._generate_examples(rows, split) for split in SPLITS}

    def _generate_examples(self, rows: list[dict], split: str) -> Iterator[tuple[str, dict]]:
        """Key and features of every example of a split."""
        for row in rows:
            if row["split"] == split:
                yield row["id"], {key: value for key, value in row.items() if key != "split"}
