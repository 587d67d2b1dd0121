"""What the compiler did within a stretch of a program: its seconds, and programs from its cache."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax.monitoring

COMPILED = "/jax/core/compile/backend_compile_duration"  # includes a look into the cache
HIT = "/jax/compilation_cache/cache_hits"


@dataclasses.dataclass
class CompileTime:
    """Programs that were made ready, how many of them came from the cache, and the seconds."""

    programs: int = 0
    from_cache: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        """Sentence part for people; empty where nothing was compiled."""
        if not self.programs:
            return ""
        if self.from_cache == self.programs:
            return "compiled before, from the cache"
        cached = f", {self.from_cache} of {self.programs} programs from the cache"
        return f"{self.seconds:.1f} s of it compiling{cached if self.from_cache else ''}"


@contextlib.contextmanager
def compile_time() -> Iterator[CompileTime]:
    """Context that measures what is compiled in it, by any thread."""
    time = CompileTime()

    def took(event: str, duration_secs: float, **_: Any) -> None:
        if event == COMPILED:
            time.programs += 1
            time.seconds += duration_secs

    def came(event: str, **_: Any) -> None:
        time.from_cache += event == HIT

    jax.monitoring.register_event_duration_secs_listener(took)
    jax.monitoring.register_event_listener(came)
    try:
        yield time
    finally:
        jax.monitoring.unregister_event_duration_listener(took)
        jax.monitoring.unregister_event_listener(came)
