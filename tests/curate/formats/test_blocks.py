"""Blocks of lines, against splitting the whole file at once."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from pilotfish.curate.formats.blocks import BOM, blocks

LINES = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=12)
TOO_LONG = object()


def read(data: bytes, start: int, end: int, longest: int, size: int) -> list[object]:
    found: list[object] = []
    for block in blocks(io.BytesIO(data), start, end, longest, size):
        found += [TOO_LONG] if block.too_long else block.data.split(b"\n")[:-1]
    return found


def split(data: bytes) -> list[bytes]:
    data = data.removeprefix(BOM)
    return data.removesuffix(b"\n").split(b"\n") if data else []


@given(LINES, st.booleans(), st.integers(1, 40), st.integers(1, 50), st.integers(1, 64))
def test_ranges_together_give_every_line_once(
    lines: list[bytes], ended: bool, step: int, longest: int, size: int
) -> None:
    data = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    found: list[object] = []
    for start in range(0, len(data), step):
        found += read(data, start, min(start + step, len(data)), longest, size)
    wanted = split(data)
    assert len(found) == len(wanted)
    for got, line in zip(found, wanted, strict=True):
        assert got == line or (got is TOO_LONG and len(line) >= longest)


@given(LINES, st.integers(1, 50), st.integers(1, 64))
def test_a_whole_file_and_a_mark_at_its_beginning(
    lines: list[bytes], longest: int, size: int
) -> None:
    data = b"\n".join(lines)
    for marked in (data, BOM + data):
        if marked.startswith(BOM) and size < 3:
            continue  # real blocks hold megabytes
        found = read(marked, 0, -1, longest, size)
        assert len(found) == len(split(marked))


def test_a_long_line_is_never_held() -> None:
    class Endless(io.RawIOBase):
        """A line of 1 GB that does not exist, then a short one."""

        left = 1 << 30
        largest = 0

        def read(self, size: int = -1) -> bytes:
            self.largest = max(self.largest, size)
            if self.left <= 0:
                last, self.last = self.last, b""
                return last
            self.left -= size
            return b"x" * size

        last = b"\nshort\n"

    stream = Endless()
    found = list(blocks(stream, 0, -1, 1 << 20))  # type: ignore[arg-type]
    assert [block.too_long for block in found] == [True, False]
    assert len(found[0].data) == 1024
    assert found[1].data == b"short\n"
    assert stream.largest <= 8 << 20
