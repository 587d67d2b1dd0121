"""Section of the page on what was run: device, versions, time, configuration."""

from collections.abc import Mapping
from typing import Any

from jaxalign.evaluation.tables import DASH, number
from jaxalign.report.html import Markup, join, tag
from jaxalign.report.run import RunFiles


def facts(run: RunFiles) -> Markup | None:
    """Device, versions, seed and duration of the run."""
    timing = run.results.get("timing") or {"all": run.results.get("seconds")}
    seconds = sum(number(value) or 0 for value in timing.values())
    known = {str(key).lower(): value for key, value in run.versions.items()}
    pairs = {
        "device": known.get("device") or known.get("devices") or known.get("platform"),
        "time": duration(seconds) if seconds else None,
        "seed": run.config.get("seed"),
        "jaxalign": known.get("jaxalign"),
        "jax": known.get("jax"),
    }
    present = {name: value for name, value in pairs.items() if value is not None}
    if not present:
        return None
    cells = (tag("div", tag("dt", name), tag("dd", plain(present[name]))) for name in present)
    return tag("dl", *cells, class_="facts")


def settings(run: RunFiles) -> Markup | None:
    """Time per stage, the resolved configuration and the versions."""
    timing = {
        str(name): number(value)
        for name, value in (run.results.get("timing") or {}).items()
        if number(value) is not None
    }
    blocks = [
        tag("details", tag("summary", name), _listing(content))
        for name, content in (("Configuration", run.config), ("Versions", run.versions))
        if content
    ]
    if not blocks and not timing:
        return None
    return join(_bars(timing), *blocks)


def duration(seconds: float) -> str:
    """Duration in words: seconds, minutes, hours.

    >>> duration(8.25), duration(95), duration(7380)
    ('8.2 s', '1 min 35 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def plain(value: object) -> str:
    """A configuration value as text."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return DASH if value is None else str(value)


def _bars(timing: Mapping[str, float | None]) -> Markup | None:
    """Time per stage as bars."""
    longest = max((seconds or 0 for seconds in timing.values()), default=0) or 1
    cells = []
    for name, seconds in timing.items():
        width = f"width:{100 * (seconds or 0) / longest:.1f}%"
        cells += [tag("span", name), tag("div", tag("i", style=width)), duration(seconds or 0)]
    parts = [part if isinstance(part, Markup) else tag("span", part) for part in cells]
    return tag("div", *parts, class_="bars") if parts else None


def _listing(content: Mapping[str, Any]) -> Markup:
    """Nested settings as one flat table with dotted names."""
    rows = (
        tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in _flat(content)
    )
    return tag("div", tag("table", tag("tbody", *rows), class_="settings"), class_="scroll")


def _flat(content: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """(dotted name, text) of every leaf."""
    leaves = []
    for name, value in content.items():
        full = f"{before}{name}"
        leaves += _flat(value, f"{full}.") if isinstance(value, dict) else [(full, plain(value))]
    return leaves
