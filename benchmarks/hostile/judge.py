"""What came of a call of the program, and whether that is what should have come of it."""

import dataclasses
import re
from collections.abc import Callable

# In the order of the table. The first two are good; those of BAR may never occur.
OUTCOMES = {
    "right": "works as it should",
    "line": "one clear line, exit status 2",
    "unclear": "refused, but not in one clear line that names what is at fault",
    "refused": "refused, where it should have worked",
    "traceback": "a traceback, or a crash",
    "hang": "no end within the limit",
    "memory": "more memory than the bound",
    "silent": "accepted, and wrong",
    "lost": "lost or mixed work",
    "broken": "the trial itself failed",
}
BAR = ("traceback", "hang", "memory", "silent", "lost", "broken")
LONGEST = 600  # characters of a clear line
TRACEBACK = "Traceback (most recent call last)"
ROOM = re.compile(r"/\S*/(trial-\d+-\w+|base)/")  # where trials are made, long and of no interest
# Lines beside the error: rows that were left out, and where the trial's own process was stopped.
BESIDE = re.compile(r".*: skipped \d+ bad rows.*|  .*|SIG[A-Z]+ .*")


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a call of the program ended.

    status: of its exit. out, err: what it wrote. error: the traceback of what left it, or "".
    """

    status: int
    out: str = ""
    err: str = ""
    error: str = ""


class Fault(Exception):
    """An outcome that should not be; the second argument says what was seen."""

    def __init__(self, outcome: str, detail: str):
        super().__init__(outcome, detail)
        self.outcome, self.detail = outcome, detail


def refused(ending: Ending, *names: str) -> str:
    """One clear line that has one of these names in it, whatever their case.

    Raises:
      Fault: it is something else.
    """
    whole(ending)
    if ending.status == 0:
        raise Fault("silent", f"accepted: {tail(ending.out)}")
    if complaint := unclear(ending, names):
        raise Fault("unclear", f"{complaint}: status {ending.status}, {tail(ending.err)!r}")
    return "line"


def worked(ending: Ending, check: Callable[[], object] | None = None) -> str:
    """Success, with the right result: `check` raises a Fault where it is wrong."""
    whole(ending)
    if ending.status != 0:
        raise Fault("refused", f"status {ending.status}: {tail(ending.err)!r}")
    if check is not None:
        check()
    return "right"


def either(ending: Ending, check: Callable[[], object], *names: str) -> str:
    """A clear line, or success with the right result."""
    return worked(ending, check) if ending.status == 0 else refused(ending, *names)


def whole(ending: Ending) -> None:
    """It ended by itself.

    Raises:
      Fault: a traceback, in the main thread or in another one, or a signal.
    """
    found = ending.error or (ending.err if TRACEBACK in ending.err + ending.out else "")
    if found:
        kind = "memory" if "MemoryError" in found.rpartition("\n  File")[2] else "traceback"
        raise Fault(kind, last_frames(found or ending.out))
    if ending.status < 0:
        raise Fault("traceback", f"killed by signal {-ending.status}: {tail(ending.err)}")


def unclear(ending: Ending, names: tuple[str, ...]) -> str:
    """What makes it no clear line; "" where it is one."""
    lines = [line for line in ending.err.splitlines() if line.strip()]
    firsts = [line for line in lines if line.startswith("jaxalign: ")]
    if ending.status != 2:
        return "another exit status"
    if len(firsts) != 1:
        return "no line" if not firsts else "several lines"
    if any(line not in firsts and not BESIDE.fullmatch(line) for line in lines):
        return "more than a line"
    length = len(ROOM.sub("", firsts[0]))
    if length > LONGEST:
        return f"{length} characters"
    if not all(line.isprintable() for line in lines):
        return "not printable"
    text = " ".join(lines).lower()
    if names and not any(name.lower() in text for name in names):
        return f"names none of {', '.join(names)}"
    return ""


def last_frames(error: str) -> str:
    """The innermost places of a traceback and its message, in a line."""
    places = re.findall(r'File "([^"]+)", line (\d+)', error)
    ours = [f"{file.rpartition('/jaxalign/')[2]}:{line}" for file, line in places
            if "/jaxalign/" in file and "site-packages" not in file]  # fmt: skip
    said = re.findall(r"(?m)^[\w.]+(?:Error|Exception|Interrupt|Warning|Exit)\b.*", error)
    message = said[-1] if said else tail(error)
    return f"{' > '.join(ours[-3:])}: {message[:240]}"


def tail(text: str) -> str:
    """The end of what was written, in a line."""
    return " ".join(text.split())[-400:]
