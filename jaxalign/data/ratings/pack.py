"""Conversion of the published files of Hutto & Gilbert (2014) into the two compressed files here.

    python -m jaxalign.data.ratings.pack DIRECTORY_OF_THE_ORIGINAL_FILES

Each line of `movies.jsonl.gz` and `products.jsonl.gz` is `{"id", "text", "ratings"}` with the text
exactly as published (cleaning happens when the data set is prepared: `clean.py`). The two original
files are joined by id, because 21 products stand in another order in one of them. The output is the
same on every run.
"""

import ast
import gzip
import json
import sys
from pathlib import Path

SOURCES = {"movies": "movieReviewSnippets", "products": "amazonReviewSnippets"}


def columns(path: Path) -> dict[str, list[str]]:
    """Fields of every row of a published file, by the id in its first field.

    The file is tab-separated with CRLF, sometimes with a byte order mark.
    """
    lines = path.read_bytes().decode("utf-8-sig").split("\r\n")
    rows = [line.split("\t") for line in lines if line]
    table = {row[0]: row[1:] for row in rows}
    if len(table) != len(rows):
        raise ValueError(f"{path}: {len(rows) - len(table)} ids occur twice")
    return table


def records(directory: Path, prefix: str) -> list[dict]:
    """Rows `{"id", "text", "ratings"}` in the order of the text file.

    Raises:
      ValueError: the two files disagree about ids or means.
    """
    texts = columns(directory / f"{prefix}_GroundTruth.txt")
    ratings = columns(directory / f"{prefix}_anonDataRatings.txt")
    if texts.keys() != ratings.keys():
        raise ValueError(f"{prefix}: {len(texts.keys() ^ ratings.keys())} ids are in one file only")
    rows = []
    for key, (mean, text) in texts.items():
        scores = ast.literal_eval(ratings[key][2])
        if abs(sum(scores) / len(scores) - float(mean)) > 1e-6:
            raise ValueError(f"{prefix} {key}: mean {mean} is not the mean of {scores}")
        rows.append({"id": key, "text": text, "ratings": scores})
    return rows


def main(directory: str) -> None:
    """Write both data files from the published tables in `directory`."""
    for name, prefix in SOURCES.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in records(Path(directory), prefix)]
        packed = gzip.compress("\n".join(lines).encode() + b"\n", compresslevel=9, mtime=0)
        target = Path(__file__).with_name(f"{name}.jsonl.gz")
        target.write_bytes(packed)
        print(f"{target.name}: {len(lines)} texts, {len(packed)} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
