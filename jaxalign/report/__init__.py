"""The report of a run: plots and one self-contained page."""

from pathlib import Path


def write_report(run_dir: Path, state: str = "") -> Path:
    """Writes `report.html` and `plots/*.png` for a run directory; returns the page's path.

    Parts of the run that are not there are left out, so a run of one stage has a page too.

    Args:
      run_dir: directory of the run.
      state: how far the run is, for a page that is written before its end.
    """
    from jaxalign.report.page import write_page  # matplotlib is slow to import

    return write_page(Path(run_dir), state)


__all__ = ["write_report"]
