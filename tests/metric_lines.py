"""Lines of metrics without what a clock said, which no two runs have in common."""

from jaxalign.train.metrics import read_metrics

CLOCKED = ("time", "tokens_per_second", "utilisation", "seconds")


def lines_without_times(run) -> list[dict]:
    """All lines of a run's metrics, but for times and speeds."""
    return [
        {name: x for name, x in line.items() if name.partition("/")[0] not in CLOCKED}
        for line in read_metrics(run)
    ]
