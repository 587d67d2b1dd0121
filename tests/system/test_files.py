"""Users' files: only regular ones are read, within bounds; writing is whole, through no link."""

import dataclasses
import os
import socket
import stat

import pytest

from jaxalign.errors import UserError
from jaxalign.system.files import (
    json_of,
    make_directory,
    read_bytes,
    read_json,
    read_text,
    write_atomically,
)


def test_what_is_no_file_is_named_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name, why in (
            (".", "is a directory"),
            ("pipe", "is a pipe"),
            ("endless", "is a device"),
            ("socket", "is a socket"),
            ("one", "Too many levels of symbolic links"),
            ("x" * 5000, "File name too long"),
            ("none", "does not exist"),
            ("a\0b", "no zero character"),
        ):
            with pytest.raises(UserError, match=why) as error:
                read_bytes(f"{tmp_path}/{name}")
            assert len(str(error.value)) < 500
            assert "\n" not in str(error.value)


def test_a_file_beyond_the_bound_is_not_read(tmp_path):
    (tmp_path / "large").write_bytes(b"x" * 11)
    with pytest.raises(UserError, match="has 11 bytes; at most 10 are read"):
        read_bytes(tmp_path / "large", largest=10)
    with pytest.raises(UserError, match="more than 10 bytes"):  # its size is 0 for the system
        read_bytes("/proc/self/status", largest=10)


@dataclasses.dataclass
class Sizes:
    layers: int
    names: list[str]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff", "no UTF-8 at byte 1"),
        (b"{", "is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": 1, "a": 2}', "'a' stands there twice"),
        (b'{"layers": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"layers": "2", "names": []}', r"Expected `int`, got `str` - at `\$.layers`"),
        (b'{"layers": 2, "names": [3]}', r"Expected `str`, got `int` - at `\$.names\[0\]`"),
        (b'{"layers": 2}', "missing required field `names`"),
        (b'{"layers": 2.0, "names": []}', "Expected `int`, got `float`"),
    ],
)
def test_json_of_another_kind_is_one_line_that_says_where(tmp_path, content, why):
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=why) as error:
        read_json(file, Sizes)
    assert str(error.value).startswith(str(file))
    assert len(str(error.value).splitlines()) == 1


def test_a_byte_order_mark_is_no_content(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"layers": 2, "names": []}')
    assert read_json(tmp_path / "a.json", Sizes) == Sizes(2, [])
    assert read_text(tmp_path / "a.json").startswith("{")
    assert json_of("[1]", list[int], "here") == [1]


def test_a_failed_write_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(UserError, match=r"file could not be written: No space left .*; make room"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_follows_no_link_and_takes_the_mode_of_the_umask(tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "file").symlink_to(tmp_path / "theirs")
    (tmp_path / ".file.tmp").symlink_to(tmp_path / "theirs")
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", "ours")
    finally:
        os.umask(before)
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / "file").read_text() == "ours"
    assert stat.S_IMODE((tmp_path / "file").lstat().st_mode) == 0o640


def test_what_is_no_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")  # as /dev/stdout is a link
    (tmp_path / "folder").mkdir()
    before = sorted((path.name, path.lstat().st_mode) for path in tmp_path.iterdir())
    for name, kind in (("pipe", "a pipe"), ("null", "a device"), ("folder", "a directory")):
        with pytest.raises(UserError, match=f"{name} is {kind}; give the name of a file"):
            write_atomically(tmp_path / name, b"x")
    assert sorted((path.name, path.lstat().st_mode) for path in tmp_path.iterdir()) == before


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file; a directory is needed"):
        make_directory(tmp_path / "file")
    with pytest.raises(UserError, match="cannot be made: Not a directory"):
        make_directory(tmp_path / "file" / "below")
