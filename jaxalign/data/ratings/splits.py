"""Splits of the human ratings, a fixed function of the group of a text.

A group is a block of movies that the same people rated, or one product review, so no rater's block
and no review is on two sides. Groups are stratified over their neighbours because the movies are
sorted by sentiment: of every 20 consecutive groups 10 go to "policy", 2 to "policy_validation", 5
to "judge" and 3 to "evaluation", and a hash decides which.
"""

import hashlib

VERSION = "1.0.0"  # of the builder
SPLITS = ("policy", "policy_validation", "judge", "evaluation")
STRATUM = 20
PATTERN = "PJPEPVPJPEPJPVPJPEPJ"
LETTERS = dict(zip("PVJE", SPLITS, strict=True))


def group_splits(name: str, num_groups: int) -> list[str]:
    """Split of each group 0 ... num_groups - 1 of the data set `name`."""

    def digest(group: int) -> bytes:
        return hashlib.sha256(f"human_ratings/{name}/{group}".encode()).digest()

    splits = [""] * num_groups
    for start in range(0, num_groups, STRATUM):
        stratum = range(start, min(start + STRATUM, num_groups))
        for rank, group in enumerate(sorted(stratum, key=digest)):
            splits[group] = LETTERS[PATTERN[rank]]
    return splits
