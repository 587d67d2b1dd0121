"""Handling of the signals that end a program: exit at once, or after the state has been saved.

A thread waits for them, since Python's own handlers run only between two lines of Python: it
answers in the middle of a compilation too, and no library can swallow what it does. This module is
imported before all others.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

CURSOR = b"\x1b[?25h"  # shows it again
CLEAR = "\r\x1b[2K"  # of a terminal: what is written on its line
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FINISHING = "finishing this step and saving (again to stop at once)"


class _Receiver:
    """Signals that a program has received, and whether the first of them is deferred."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.is_deferring, self.answer = False, FINISHING

    def __call__(self, number: int) -> None:
        """Note a signal, and exit unless it is the first one and deferred."""
        self.received.append(number)
        if self.is_deferring and len(self.received) == 1:
            acknowledge(number, self.answer)
        else:
            if len(self.received) == 1:
                say(f"jaxalign: {name_of(number)}: stopped; run the same command again to go on")
            _exit(self.received[0])


_receivers: list[_Receiver] = []  # that of the program, if it has one


def name_of(number: int) -> str:
    """Name of a signal by its number: "SIGTERM" for 15."""
    return signal.Signals(number).name


def say(line: str) -> None:
    """Write a line to standard error from any thread, even if nobody reads it.

    On a terminal it takes the place of a line that is there already: that of the progress.
    """
    with contextlib.suppress(OSError):
        os.write(2, f"{CLEAR if os.isatty(2) else ''}{line}\n".encode())


def acknowledge(number: int, answer: str) -> None:
    """Say at once that a signal has come, and what is done before it ends the program."""
    say(f"{name_of(number)}: {answer}")


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Context in which a terminating signal prints one line and exits with status 128 + its number.

    Signals that were ignored before (as by `nohup`) stay so. Outside of the main thread, and within
    another such context, nothing changes.
    """
    if _receivers or threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, (reader, writer) = _Receiver(), os.pipe()
    os.set_blocking(writer, False)
    thread = threading.Thread(target=_wait, args=(reader, receiver), daemon=True)
    before = {number: signal.getsignal(number) for number in STOPPING}
    handled = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in handled:
        signal.signal(number, _do_nothing)
    _receivers.append(receiver)
    thread.start()
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
        signal.set_wakeup_fd(old)
        _receivers.remove(receiver)
        os.close(writer)
        thread.join()
        os.close(reader)


@contextlib.contextmanager
def deferred(answer: str = FINISHING) -> Iterator[list[int]]:
    """Context that collects the first terminating signal in a list; a second one ends the program.

    The first is answered at once. Outside of `ending` (in a notebook, say) the second one has its
    usual effect.

    Args:
      answer: what is done before the signal ends the program.
    """
    if _receivers:
        receiver = _receivers[0]
        receiver.is_deferring, receiver.answer = True, answer
        try:
            yield receiver.received
        finally:
            receiver.is_deferring = False
        return
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    handled = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def restore() -> None:
        for number in handled:
            signal.signal(number, before[number])

    def receive(number: int, frame: object) -> None:
        received.append(number)
        acknowledge(number, answer)
        restore()

    for number in handled:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        restore()


def ignore() -> None:
    """Ignore terminating signals until the process, which is about to end, has ended."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _wait(reader: int, receiver: _Receiver) -> None:
    """Pass signal numbers from the pipe to the receiver until the pipe is closed."""
    while numbers := os.read(reader, 16):
        for number in numbers:
            if number in STOPPING:
                receiver(number)


def _do_nothing(number: int, frame: object) -> None:
    """Signal handler without effect: Python has written the number into the pipe already."""


def _exit(number: int) -> None:
    """Exit with status 128 + `number`, after half a second at most for buffered output."""
    flush = threading.Thread(target=_flush, daemon=True)
    flush.start()
    flush.join(timeout=0.5)
    with contextlib.suppress(OSError):
        if os.isatty(1):  # the progress hides it
            os.write(1, CURSOR)
    os._exit(128 + number)


def _flush() -> None:
    """Write buffered standard output."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()


def _exit_on_signal_during_import() -> None:
    """Exit quietly on a signal during the imports of the program, before `ending` begins."""
    as_module = sys.argv[:1] == ["-m"] and "jaxalign" in sys.orig_argv
    if as_module or os.path.basename(sys.argv[0] if sys.argv else "") == "jaxalign":
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda number, frame: _Receiver()(number))


_exit_on_signal_during_import()
