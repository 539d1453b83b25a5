"""Cut citations out of lines, count their sentences, and join those that are kept.

What C4 does to a page besides judging it, for all pages of a piece at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pilotfish.curate.rules.arrow import strings, to_arrow
from pilotfish.curate.rules.documents import Documents, Positions, Spans

# Digits of other scripts are checked afterwards; none of this reaches beyond a line.
_CITATION = re.compile(rb"\[(?:[0-9\x80-\xff]*|edit|citation needed)\]")
_TERMINAL = np.isin(np.arange(256), list(b".?!"))
_CLOSING = np.isin(np.arange(256), list(b"\"')]"))
_MOST_CLOSING = 3
_WHITE = np.isin(np.arange(256), list(b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"))


def without_citations(documents: Documents, lines: Spans) -> tuple[Documents, Spans]:
    """The documents without ``[1]``, ``[]``, ``[edit]`` and ``[citation needed]``; their lines there."""
    cuts = [
        match.span()
        for match in _CITATION.finditer(documents.data)
        if match[0].isascii() or _is_number(match[0][1:-1])
    ]
    starts, ends = np.array(cuts, np.int64).reshape(-1, 2).T
    document = np.searchsorted(documents.offsets, starts, side="right") - 1
    whole = ends <= documents.offsets[document + 1]
    starts, ends = starts[whole], ends[whole]
    if not len(starts):
        return documents, lines
    change = np.zeros(len(documents.data) + 1, np.int8)
    change[starts] += 1
    np.subtract.at(change, ends, 1)
    left = np.cumsum(change[:-1], dtype=np.int8) == 0
    cut_before = np.concatenate(([0], np.cumsum(ends - starts)))

    def moved(positions: Positions) -> Positions:
        new: Positions = positions - cut_before[np.searchsorted(ends, positions, side="right")]
        return new

    data = documents.codes[: len(left)][left].tobytes()
    page = Documents(data, moved(documents.offsets))
    return page, Spans(moved(lines.starts), moved(lines.ends), lines.offsets)


def _is_number(data: bytes) -> bool:
    return data.decode("utf-8", errors="replace").isdecimal()


def count_sentences(documents: Documents, lines: Spans) -> Positions:
    """The number of sentences of each line, at least 1.

    A sentence ends with ``.``, ``?`` or ``!`` and up to three quotes or brackets that close, before white
    space or the end of the line; what is left at the end of a line is one more.
    """
    codes = documents.codes
    at = np.flatnonzero(_TERMINAL[codes])
    line = np.searchsorted(lines.starts, at, side="right") - 1
    inside = (line >= 0) & (at < lines.ends[line])
    at, line = at[inside] + 1, line[inside]
    end = lines.ends[line]
    for _ in range(_MOST_CLOSING):
        at += (at < end) & _CLOSING[codes[at]]
    last = at >= end
    stops = np.bincount(line[last | _WHITE[codes[at]]], minlength=len(lines.starts))
    finished = np.bincount(line[last], minlength=len(lines.starts)) > 0
    sentences: Positions = stops + ~finished
    return sentences


def first_of(found: NDArray[np.bool_], lines: Spans) -> Positions:
    """The number of the first line found in each document; the number of all lines if there is none."""
    where = np.append(np.flatnonzero(found), len(found))
    first = where[np.searchsorted(where, lines.offsets[:-1])]
    return np.where(first < lines.offsets[1:], first, len(found))


def join_lines(documents: Documents, lines: Spans, *, strip: bool) -> pa.LargeStringArray:
    r"""Each document's lines joined by ``\n``.

    Args:
        documents: ``n`` documents.
        lines: Lines of theirs, in order; between two of a document there is at least one other character.
        strip: Take white space off the ends of each document.
    """
    codes = documents.codes[:-1].copy()
    stops = lines.ends.copy()
    follows = np.ones(len(stops), np.bool_)
    follows[lines.offsets[1:][np.diff(lines.offsets) > 0] - 1] = False
    codes[stops[follows]] = ord("\n")  # part of what separates this line from the next
    stops[follows] += 1
    change = np.zeros(len(codes) + 1, np.int8)
    np.add.at(change, lines.starts, 1)
    np.subtract.at(change, stops, 1)
    data = codes[np.cumsum(change[:-1], dtype=np.int8).view(np.bool_)]
    lengths = np.concatenate(([0], np.cumsum(stops - lines.starts)))
    offsets = lengths[lines.offsets]
    texts = large_strings(data.tobytes(), offsets)
    if not strip:
        return texts
    # Lines have no white space at their ends but where a citation stood, or where they are empty.
    full = offsets[1:] > offsets[:-1]
    edge = np.zeros(len(full), np.bool_)
    for at in (offsets[:-1][full], offsets[1:][full] - 1):
        edge[full] |= _WHITE[data[at]] | (data[at] >= 0x80)
    if edge.any():
        where = to_arrow(edge)
        stripped = strings([text.strip() for text in texts.filter(where).to_pylist()])
        texts = pc.replace_with_mask(texts, where, stripped)
    return texts


def large_strings(data: bytes, offsets: Positions) -> pa.LargeStringArray:
    """The texts ``data[offsets[d] : offsets[d + 1]]``."""
    return pa.LargeStringArray.from_buffers(
        len(offsets) - 1, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(data)
    )


def any_of(words: Iterable[str]) -> str:
    r"""A pattern of RE2 that finds any of these words, alone; empty if there are none.

    >>> any_of(["a.b", " "])
    '(?:^|[^\\p{L}\\p{N}_])(?:a\\.b)(?:$|[^\\p{L}\\p{N}_])'
    """
    choices = "|".join(re.escape(word.strip()) for word in words if word.strip())
    around = r"[^\p{L}\p{N}_]"
    return f"(?:^|{around})(?:{choices})(?:$|{around})" if choices else ""
