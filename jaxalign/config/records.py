"""Records of what an online method samples."""

from jaxalign.config.checks import config
from jaxalign.config.ranges import Steps


@config
class RecordFields:
    """Responses that are kept, and shown along the way."""

    samples_every: Steps | None = None
    """Iterations (steps) between those whose responses are written to `samples.jsonl`; 0: none.
    None: all, or so many that no more than 50,000 responses are written."""
    show_every: Steps | None = None
    """Iterations (steps) between tables of the best, middle and worst response; 0: none. None: of
    the first one, and of every fifth of the run."""
