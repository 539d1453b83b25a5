"""Words, lines and paragraphs against ``re`` and ``str``; hashes against the bytes they stand for."""

from __future__ import annotations

import itertools
import re
import unicodedata

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotfish.curate.rules.characters import (
    ALPHA,
    BREAK,
    SPACE,
    TERMINAL,
    TERMINALS,
    character_bits,
    classify,
)
from pilotfish.curate.rules.documents import Documents, Spans, pieces
from pilotfish.curate.rules.hashing import hash_bytes, hash_spans
from pilotfish.curate.rules.line_edits import count_sentences
from tests.curate.rules import reference
from tests.curate.rules.texts import any_text

batches = st.lists(any_text, min_size=1, max_size=6)


def together(texts: list[str]) -> Documents:
    (documents,) = pieces(pa.array(texts), 2**30)
    return documents


def cut(documents: Documents, spans: Spans) -> list[list[str]]:
    texts = [
        documents.data[a:b].decode()
        for a, b in zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)
    ]
    bounds = spans.offsets.tolist()
    return [texts[a:b] for a, b in itertools.pairwise(bounds)]


@given(batches)
@settings(max_examples=200)
def test_cuts_are_those_of_re_and_str(texts: list[str]) -> None:
    documents = together(texts)
    assert cut(documents, documents.words) == [reference.WORD.findall(t) for t in texts]
    assert cut(documents, documents.tokens) == [t.split() for t in texts]
    assert cut(documents, documents.segments) == [t.split("\n") for t in texts]
    assert cut(documents, documents.lines) == [t.splitlines() for t in texts]
    assert cut(documents, documents.stripped) == [[t.strip()] for t in texts]
    assert cut(documents, documents.strip(documents.lines)) == [
        [line.strip() for line in t.splitlines()] for t in texts
    ]
    assert cut(documents, documents.paragraphs) == [re.split("\n{2,}", t.strip()) for t in texts]
    assert documents.length.tolist() == [len(t) for t in texts]
    assert documents.word_chars.tolist() == [
        len(w) for t in texts for w in reference.WORD.findall(t)
    ]


@given(batches)
@settings(max_examples=100)
def test_sentences_of_lines_are_those_of_plain_python(texts: list[str]) -> None:
    documents = together(texts)
    lines = documents.strip(documents.lines)
    expected = [reference.sentences(line.strip()) for t in texts for line in t.splitlines()]
    assert count_sentences(documents, lines).tolist() == expected


@given(st.lists(st.binary(max_size=40) | st.binary(min_size=250, max_size=300), max_size=20))
def test_equal_bytes_and_only_they_have_equal_hashes(parts: list[bytes]) -> None:
    parts = [*parts, *parts[::-1], b"a", b"a\0", b"\0", b""]
    ends = np.cumsum([len(part) for part in parts])
    codes = np.frombuffer(b"".join(parts) + bytes(8), np.uint8)
    hashes = hash_spans(codes, ends - [len(part) for part in parts], ends).tolist()
    assert hashes == [hash_bytes(part) for part in parts]
    assert len(set(hashes)) == len(set(parts))


def test_bits_of_every_character() -> None:
    # All of the first two planes, where almost everything is, and some of the others.
    points = [*range(0xD800), *range(0xE000, 0x20000), *range(0x20000, 0x110000, 1009)]
    text = "".join(map(chr, points))
    data = text.encode()
    bits = classify(data, np.frombuffer(data + bytes(8), np.uint8))
    at = np.flatnonzero((np.frombuffer(data, np.uint8) & 0xC0) != 0x80)
    found = bits[at]
    assert found.tolist() == [character_bits(character) for character in text]
    assert ((found & SPACE) > 0).tolist() == [c.isspace() for c in text]
    assert ((found & ALPHA) > 0).tolist() == [c.isalpha() for c in text]
    assert ((found & BREAK) > 0).tolist() == [len(f"a{c}b".splitlines()) > 1 for c in text]
    assert sum((found & TERMINAL) > 0) == len(TERMINALS) == 159
    # Every byte of a character says the same.
    assert (np.repeat(found, np.diff(np.append(at, len(data)))) == bits).all()


def test_terminals_are_marks_of_their_names() -> None:
    for mark in TERMINALS:
        assert unicodedata.category(mark) in {"Po", "Cn", "Lo", "Pd"}, hex(ord(mark))


def test_bytes_that_are_no_utf8_break_nothing() -> None:
    for data in (b"\xff\xfe abc", b"abc \xe2\x82", b"\xf4\xbf\xbf\xbf x", b"\x80\x80"):
        documents = Documents(data, np.array([0, len(data)]))
        assert len(documents.words.starts) >= 1
        assert documents.lines.ends[-1] == len(data)
