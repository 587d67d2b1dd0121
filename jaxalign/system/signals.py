"""Signals that end a program: in a line, at once, or when what is being done is saved.

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

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Receiver:
    """The signals that a program has had, and whether something waits for the first of them."""

    def __init__(self):
        self.received: list[int] = []
        self.is_deferring = False

    def __call__(self, number: int) -> None:
        self.received.append(number)
        if not self.is_deferring or len(self.received) > 1:
            if len(self.received) == 1:
                say(f"jaxalign: {name_of(number)}: stopped; run the same command again to go on")
            _exit(self.received[0])


_receivers: list[_Receiver] = []  # that of the program, if it has one


def name_of(number: int) -> str:
    """`SIGTERM` for 15."""
    return signal.Signals(number).name


def say(line: str) -> None:
    """A line on standard error, wherever the program stands, even if nobody reads it."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Within it a signal that ends programs does so in one line, with status 128 + its number.

    Signals that are ignored when it begins (as by `nohup`) stay so. Not the main thread, or within
    another one: nothing changes.
    """
    if _receivers or threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, (reader, writer) = _Receiver(), os.pipe()
    os.set_blocking(writer, False)
    thread = threading.Thread(target=_wait, args=(reader, receiver), daemon=True)
    before = {number: signal.getsignal(number) for number in STOPPING}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in heard:
        signal.signal(number, _nothing)
    _receivers.append(receiver)
    thread.start()
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])
        signal.set_wakeup_fd(old)
        _receivers.remove(receiver)
        os.close(writer)
        thread.join()
        os.close(reader)


@contextlib.contextmanager
def deferred() -> Iterator[list[int]]:
    """Collects the first signal that would end the program; the next one ends it at once.

    Outside of `ending` (in a notebook, say) the next one has its usual effect.
    """
    if _receivers:
        receiver = _receivers[0]
        receiver.is_deferring = True
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
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def restore():
        for number in heard:
            signal.signal(number, before[number])

    def receive(number, frame):
        received.append(number)
        restore()

    for number in heard:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        restore()


def ignore() -> None:
    """From here on no signal ends the program, which is about to end."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _wait(reader: int, receiver: _Receiver) -> None:
    """Pass signals on until the other end of the pipe is closed."""
    while numbers := os.read(reader, 16):
        for number in numbers:
            if number in STOPPING:
                receiver(number)


def _nothing(number: int, frame: object) -> None:
    """Python writes the number into the pipe before it calls this."""


def _exit(number: int) -> None:
    """End the process as a signal does, what was printed before written out if somebody reads."""
    flush = threading.Thread(target=_flush, daemon=True)
    flush.start()
    flush.join(timeout=0.5)
    os._exit(128 + number)


def _flush() -> None:
    with contextlib.suppress(Exception):
        sys.stdout.flush()


def _end_at_import() -> None:
    """Until `ending` begins: the imports of the program take a second, and are no place to stop."""
    as_module = sys.argv[:1] == ["-m"] and "jaxalign" in sys.orig_argv
    if as_module or os.path.basename(sys.argv[0] if sys.argv else "") == "jaxalign":
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda number, frame: _Receiver()(number))


_end_at_import()
