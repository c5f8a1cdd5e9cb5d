"""Lines on a file that cannot take them whole: what is lost is counted, and spoils nothing."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.runtime.text.lines import Lines
from tests.full_disk import room_for

PATIENCE = 120.0


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_WRONLY | os.O_APPEND | os.O_CREAT) -> Iterator[int]:
    file = os.open(path, flags, 0o600)
    try:
        yield file
    finally:
        os.close(file)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines"


@pytest.mark.parametrize("room", range(len("one\ntwo\nthree\n") + 1))
def test_after_a_full_disk_the_next_line_is_whole_and_what_was_lost_is_counted(path: Path, room: int) -> None:
    with opened(path) as file:
        lines = Lines(file)
        with room_for(room):
            lost = lines.write(b"one\ntwo\nthree\n")
        assert lines.write(b"four\n") == 0
    written = path.read_bytes().splitlines()

    assert written[-1] == b"four"
    assert len([line for line in written if line in (b"one", b"two", b"three")]) == 3 - lost
    assert b"" not in written


def test_line_break_that_has_no_room_is_no_lost_line(path: Path) -> None:
    with opened(path) as file:
        lines = Lines(file)
        with room_for(2):
            assert [lines.write(b"one\n"), lines.write(b"two\n"), lines.write(), lines.write()] == [1, 1, 0, 0]
        assert lines.is_torn
        assert lines.write() == 0
        assert not lines.is_torn

    assert path.read_bytes() == b"on\n"


def test_line_that_another_process_has_left_without_an_end_spoils_no_other(path: Path) -> None:
    path.write_bytes(b'{"event": "dec')
    with opened(path) as file:
        assert Lines(file).write(b"whole\n") == 0

    assert path.read_bytes() == b'{"event": "dec\nwhole\n'


def test_line_that_another_process_has_ended_meanwhile_is_not_ended_again(path: Path) -> None:
    with opened(path) as file:
        ours, theirs = Lines(file), Lines(file)
        with room_for(2):
            assert (ours.write(b"one\n"), theirs.write(b"two\n")) == (1, 1)
        assert (ours.write(b"three\n"), theirs.write(b"four\n")) == (0, 0)

    assert path.read_bytes() == b"on\nthree\nfour\n"


@pytest.mark.parametrize("before", [b"", b"whole\n"])
def test_file_that_is_as_it_should_be_gets_lines_only(path: Path, before: bytes) -> None:
    path.write_bytes(before)
    with opened(path) as file:
        Lines(file).write(b"one\n")

    assert path.read_bytes() == before + b"one\n"


def test_device_without_room_loses_every_line() -> None:
    with opened(Path("/dev/full"), os.O_WRONLY) as file:
        lines = Lines(file)

        assert [lines.write(b"one\ntwo\n"), lines.write(b"three\n")] == [2, 1]


def test_pipe_that_does_not_wait_is_waited_for() -> None:
    """Another program that shares the pipe has made it non-blocking; a reader that is briefly slow loses nothing."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    line, lost = b"x" * 1000 + b"\n", []
    lines = Lines(writing)
    # More than a pipe holds.
    work = threading.Thread(target=lambda: lost.extend(lines.write(4 * line) for _ in range(100)))
    work.start()
    with os.fdopen(reading, "rb") as reader:
        assert reader.read(400 * len(line)) == 400 * line
        work.join(PATIENCE)
    os.close(writing)

    assert lost == [0] * 100


def test_line_that_a_pipe_took_in_part_is_ended() -> None:
    """How a pipe ends cannot be read, so it is remembered."""
    reading, writing = os.pipe()
    lines = Lines(writing)
    lines.is_torn = True
    lines.write(b"whole\n")
    os.close(writing)
    with os.fdopen(reading, "rb") as reader:
        assert reader.read() == b"\nwhole\n"
