"""What a run tells its user: lines, and phases with their progress and the time left.

A terminal shows one live line, which is replaced. Elsewhere plain lines say the same: every phase's
start at once, then at most one line every few seconds. A run goes on when nobody reads any longer.
"""

import contextlib
import contextvars
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

Advance = Callable[..., None]  # `advance(done, note)`: what is done so far, and a remark
Update = Callable[[int, Callable[[], str]], None]  # of a display: what is done, and its text

PATIENCE = 5.0  # seconds between two plain lines of a phase, at least
SILENCE = 60.0  # seconds after which a phase is told of again, however little it has done
REFRESH = 0.25  # seconds between two pictures of the live line
BRIEF = 1.0  # seconds: a phase that took less leaves no line


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Telling:
    """What is told, and where.

    quiet: whether only warnings and errors are.
    stderr: whether lines go to standard error: standard output is for another program.
    live: the live line of a terminal, as long as a phase is on.
    phase: name of the innermost phase that is on, or "".
    unfinished: whether that has no count, so that a counted one may go on under its name.
    """

    quiet: bool = False
    stderr: bool = False
    live: Any = None
    phase: str = ""
    unfinished: bool = False

    @property
    def stream(self) -> TextIO:
        """Where lines go."""
        return sys.stderr if self.stderr else sys.stdout


ALOUD = _Telling()
_telling = contextvars.ContextVar("telling", default=ALOUD)


@contextlib.contextmanager
def telling(*, quiet: bool = False, stderr: bool = False) -> Iterator[None]:
    """Context that decides what is told in it, and where.

    Args:
      quiet: only warnings and errors are, and what nothing else holds.
      stderr: progress goes to standard error, for standard output belongs to the results.
    """
    with _set(quiet=quiet or _telling.get().quiet, stderr=stderr):
        yield


def tell(text: str) -> None:
    """Print lines about a run."""
    telling = _telling.get()
    if not telling.quiet:
        _print(text, telling.stream, telling.live)


def show(content: Any, *, width: int = 0) -> None:
    """Print a table or another object of `rich`, at least as wide as this many characters."""
    from rich.console import Console

    telling = _telling.get()
    if not telling.quiet:
        with contextlib.suppress(OSError, ValueError):
            console = Console(file=telling.stream)
            Console(file=telling.stream, width=max(console.width, width)).print(content)


def warn(text: str) -> None:
    """Print lines on standard error that a quiet run says too."""
    _print(text, sys.stderr, _telling.get().live)


def output(text: str, *, needed: bool = True) -> None:
    """Print what a command was asked for, on standard output.

    Args:
      text: of the result.
      needed: also by a quiet run, since no file holds it.
    """
    if needed or not _telling.get().quiet:
        print(_encodable(text, sys.stdout))


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Context of a phase of a run: its start is told at once, its time at its end.

    Args:
      name: what is done, such as "reading rows".
    """
    with _phase(name, total=None, start=0):
        yield


@contextlib.contextmanager
def counted(
    name: str,
    total: int,
    *,
    start: int = 0,
    unit: str = "",
    tokens_per_step: int | None = None,
) -> Iterator[Advance]:
    """Context of a phase whose parts are counted, with the time left from the second one on.

    The first part's time is left out of it: it compiles. Directly within a phase without a count it
    goes on under that one's name.

    Args:
      name: what is done.
      total: parts of the whole phase.
      start: parts done before.
      unit: of a part, for the rate, such as "step"; empty: no rate is told.
      tokens_per_step: of a part, for tokens per second; None: not told.

    Yields:
      `advance(done, note)`, to be called with the number of parts done so far; `note()`, a remark,
      is computed when it is shown.
    """
    rate = _Rate(total, unit, tokens_per_step)
    with _phase(name, total=total, start=start, brief=not unit) as update:

        def advance(done: int, note: Callable[[], str] = str) -> None:
            now = time.monotonic()
            rate.begin(done, now)
            update(done, lambda: ", ".join(filter(None, (rate.text(done, now), note()))))

        yield advance


def clock(seconds: float) -> str:
    """Time as hours, minutes and seconds.

    >>> clock(3723)
    '1:02:03'
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def seconds(duration: float) -> str:
    """A duration for people.

    >>> seconds(3.21), seconds(75.2)
    ('3.2 s', '0:01:15')
    """
    return f"{duration:.1f} s" if duration < 60 else clock(duration)


@contextlib.contextmanager
def _set(**changes: Any) -> Iterator[None]:
    """Context in which fields of what is told differ."""
    token = _telling.set(dataclasses.replace(_telling.get(), **changes))
    try:
        yield
    finally:
        _telling.reset(token)


@contextlib.contextmanager
def _phase(name: str, *, total: int | None, start: int, brief: bool = False) -> Iterator[Update]:
    """Context of a phase with its display: `update(done, text)`."""
    around = _telling.get()
    if around.quiet:
        yield lambda done, text: None
        return
    goes_on = around.unfinished and total is not None
    name = around.phase if goes_on else name
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        if around.stream.isatty():
            live = around.live or stack.enter_context(_live_line(around.stream))
            update = stack.enter_context(_task(live, name, total, start))
        else:
            live, update = None, _Lines(name, total, start, announced=goes_on, brief=brief)
        stack.enter_context(_set(live=live, phase=name, unfinished=total is None))
        yield update
    if not around.phase and (took := time.monotonic() - began) >= BRIEF:
        tell(f"{name}: {seconds(took)}")


class _Lines:
    """Plain lines of a phase: its start, then its progress, not too often."""

    def __init__(self, name: str, total: int | None, start: int, *, announced: bool, brief: bool):
        self.name, self.total, self.brief = name, total, brief
        self.shown, self.time, self.is_new = start, time.monotonic(), True
        if not announced:
            tell(name if total is None else f"{name}: {start}/{total}")

    def __call__(self, done: int, text: Callable[[], str]) -> None:
        total, now = self.total or 1, time.monotonic()
        waited, tenths = now - self.time, done * 10 // total - self.shown * 10 // total
        at_the_end = done == total and not self.brief
        if self.is_new and not at_the_end:  # its rate is not known yet
            self.is_new, self.time = False, now
        elif at_the_end or (waited >= PATIENCE and tenths) or waited >= SILENCE:
            self.shown, self.time = done, now
            tell(f"{self.name}: {done}/{total} {text()}".rstrip())


@contextlib.contextmanager
def _live_line(stream: TextIO) -> Iterator[Any]:
    """Live line at the bottom of a terminal; nothing is left of it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[text]}", markup=False),
        TimeElapsedColumn(),
    )
    live = Progress(
        *columns, console=Console(file=stream), refresh_per_second=1 / REFRESH, transient=True
    )
    with contextlib.suppress(OSError, ValueError):
        live.start()
    try:
        yield live
    finally:
        with contextlib.suppress(OSError, ValueError):
            live.stop()


@contextlib.contextmanager
def _task(live: Any, name: str, total: int | None, start: int) -> Iterator[Update]:
    """A phase on the live line, which takes the place of the one around it."""
    around = [task.id for task in live.tasks if task.visible]
    for task in around:
        live.update(task, visible=False)
    name = _encodable(name, live.console.file)
    counts = "" if total is None else f"{start}/{total}"
    own = live.add_task(name, total=total, completed=start, text=counts)

    shown = 0.0

    def update(done: int, text: Callable[[], str]) -> None:
        nonlocal shown
        if (now := time.monotonic()) - shown >= REFRESH or done == total:
            shown = now
            shown_text = _encodable(f"{done}/{total} {text()}", live.console.file)
            live.update(own, completed=done, text=shown_text)

    try:
        yield update
    finally:
        live.remove_task(own)
        for task in around:
            live.update(task, visible=True)


class _Rate:
    """Speed and time left, from the second part on: the first one compiles."""

    def __init__(self, total: int, unit: str, tokens_per_step: int | None):
        self.total, self.unit, self.tokens_per_step = total, unit, tokens_per_step
        self.first: tuple[int, float] | None = None

    def begin(self, done: int, now: float) -> None:
        """Measure from here on, if nothing was measured before."""
        self.first = self.first or (done, now)

    def text(self, done: int, now: float) -> str:
        """Speed and time left; empty where they are not known."""
        first, began = self.first or (done, now)
        took, parts = now - began, done - first
        if parts == 0 or took == 0:
            return ""
        texts = [f"{clock((self.total - done) * took / parts)} left"]
        if self.tokens_per_step is not None:
            texts.insert(0, f"{parts / took * self.tokens_per_step:,.0f} tokens/s")
        if self.unit:
            fast = f"{parts / took:.3g} {self.unit}s/s"
            texts.insert(0, fast if parts > took else f"{took / parts:.3g} s a {self.unit}")
        return ", ".join(texts)


def _print(text: str, stream: TextIO | None, live: Any) -> None:
    """Print text, above the live line if there is one, even if nobody reads it."""
    with contextlib.suppress(OSError, ValueError):  # a closed stream raises the second
        if live is None:
            print(_encodable(text, stream), file=stream, flush=True)
        else:  # the live line stands on the same terminal, whatever the stream
            text = _encodable(text, live.console.file)
            live.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _encodable(text: str, stream: Any) -> str:
    """The text with letters that a stream cannot write as their codes."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
