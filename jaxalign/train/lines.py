"""Files of JSON lines that a run appends to, each line of a stage and a step: its metrics, and what
it sampled.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from jaxalign.system.files import (
    FileError,
    exists,
    json_of,
    read_text,
    short_path,
    write_atomically,
    writing,
)

LARGEST = 2**32  # bytes of such a file
Line = dict[str, Any]  # with "stage" and "step"; step n is the state after n updates
Check = Callable[[Line, str], None]  # `(line, where it stands)`, raises a `FileError`


class LinesWriter:
    """Writer that appends to a file of JSON lines, which is made with the first of them.

    What it has written is on disk when it returns. A line torn by a kill is dropped.

    Args:
      path: of the file.
      check: as in `read_lines`.
    """

    def __init__(self, path: Path, check: Check | None = None):
        self.path, self.check = path, check
        self._file: TextIO | None = None

    def reopen(self, keep: Callable[[Line], bool] = lambda line: True) -> None:
        """Open the file for appending, after all lines but those to keep are dropped."""
        self.close()
        kept = filter(keep, read_lines(self.path, self.check))
        lines = [json.dumps(line) + "\n" for line in kept]
        write_atomically(self.path, "".join(lines).encode())
        with writing(self.path):
            self._file = self.path.open("a")

    def resume(self, stage: str, step: int) -> None:
        """Drop the lines of `stage` after `step` (all of them for step 0): they will come again."""
        if self._file is not None or exists(self.path):
            self.reopen(lambda line: line["stage"] != stage or (step > 0 and line["step"] <= step))

    def write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append lines.

        Raises:
          FileError: they cannot be written, or the file is no longer in its place.
        """
        if self._file is None:
            self.reopen()
        assert self._file is not None
        text = "".join(json.dumps(line) + "\n" for line in lines)
        with writing(self.path):
            if not os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno())):
                raise OSError("another file has taken its place while the run went on")
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with writing(self.path):
                self._file.close()


def read_lines(path: str | os.PathLike[str], check: Check | None = None) -> list[Line]:
    """Lines of a file that a run appends to; an unfinished last one (a kill) is left out.

    Args:
      path: of the file; where there is none, there are no lines.
      check: of what else a line of that file must be.

    Raises:
      FileError: a line that is not JSON, or has no stage and step, with its number.
    """
    if not exists(path):
        return []
    whole, _, _ = read_text(path, largest=LARGEST).rpartition("\n")
    lines: list[Line] = []
    for number, text in enumerate(whole.split("\n"), start=1) if whole else ():
        where = f"{short_path(path)}:{number}"
        try:
            line = json_of(text, dict[str, Any], where)
        except FileError as error:
            raise FileError(f"{error}; remove that line") from None
        if not isinstance(line.get("stage"), str) or type(line.get("step")) is not int:
            raise FileError(f"{where} holds nothing of a step; remove that line")
        if check is not None:
            check(line, where)
        lines.append(line)
    return lines
