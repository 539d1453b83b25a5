"""Taggers in ONNX: a tiny one whose answers are known, in windows of any size, and the catalogue's."""

from __future__ import annotations

import json
import random
import re
from itertools import pairwise
from pathlib import Path

import pytest

from pilotfish.errors import ConfigError, UnknownName
from pilotfish.models.load import load_tagger
from pilotfish.models.redaction import Found

pytest.importorskip("onnxruntime", reason='needs ONNX Runtime: pip install "pilotfish[onnx]"')
pytest.importorskip("onnx", reason='needs onnx, to write a model: pip install "pilotfish[test]"')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from tests.models.tiny_onnx import write_tagger

    return write_tagger(tmp_path)


def expected(text: str) -> list[Found]:
    """Words with a capital or a digit; one that begins with N to Z goes on with a name before it."""
    found: list[Found] = []
    for word in re.finditer(r"\w+|[^\w\s]+", text):
        kind = "NAME" if re.search("[A-Z]", word[0]) else "NUMBER"
        if not re.search("[A-Z0-9]", word[0]):
            continue
        goes_on = kind == "NUMBER" or bool(re.match("[^A-M]*[N-Z]", word[0]))
        last = found[-1] if found else None
        if last and last.kind == kind and goes_on and not text[last.end : word.start()].strip():
            found[-1] = Found(last.start, word.end(), kind)
        else:
            found.append(Found(word.start(), word.end(), kind))
    return found


def words(n: int, seed: int) -> str:
    draw = random.Random(seed)
    some = ["fish", "Anna", "Smith", "river", "12", "4711", "naïve", "été", "mcDonald", ",", "."]
    return "".join(draw.choice(some) + draw.choice([" ", " ", "  ", "\n"]) for _ in range(n))


@pytest.mark.parametrize("window", [480, 120])
def test_it_finds_what_the_model_says_whatever_the_length(folder: Path, window: int) -> None:
    """Windows end in the middle of names and numbers; what is found is what one look would find."""
    tagger = load_tagger(f"onnx:{folder}", window=window, overlap=window // 3)
    assert tagger.labels == ("NAME", "NUMBER")
    texts = ["", " ", "no", "Anna Smith is 12.", words(40, 1), words(400, 2)]
    for text, found in zip(texts, tagger.find(texts), strict=True):
        # More than the windows share may be cut: four numbers in a row, say.
        wanted = [f for f in expected(text) if f.end - f.start < window // 4]
        assert len(wanted) >= 0.9 * len(expected(text))
        assert set(wanted) <= set(found)
        assert all(a.end <= b.start for a, b in pairwise(found))
    assert tagger.find(["Anna Smith is 12."])[0] == [Found(0, 10, "NAME"), Found(14, 16, "NUMBER")]


def test_more_tokens_than_the_network_takes(folder: Path) -> None:
    tagger = load_tagger(f"onnx:{folder}", window=5000, overlap=50)
    text = words(600, 3)
    assert len(text) > 2500
    assert {f for f in expected(text) if f.end - f.start < 30} <= set(tagger.find([text])[0])


def test_how_sure_it_must_be(folder: Path) -> None:
    tagger = load_tagger(f"onnx:{folder}")
    assert tagger.find(["Anna"], 0.92)[0]
    assert not tagger.find(["Anna"], 0.99)[0]
    assert tagger.find(["fish"], 0.05)[0], "what all labels have together counts"


def test_damaged_folders_are_refused(folder: Path) -> None:
    with pytest.raises(UnknownName, match="rampart"):
        load_tagger("ramprat")
    with pytest.raises(ConfigError, match="at most half"):
        load_tagger(f"onnx:{folder}", window=100, overlap=60)
    with pytest.raises(ConfigError, match="windou"):
        load_tagger(f"onnx:{folder}", windou=100)
    for content in ("{", "{}", '{"id2label": {"1": "O"}}', '{"id2label": {"0": "O"}}'):
        (folder / "config.json").write_text(content)
        with pytest.raises(ConfigError, match="labels"):
            load_tagger(f"onnx:{folder}")
    (folder / "model.onnx").write_bytes(b"no model")
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "O", "1": "B-X"}}))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_tagger(f"onnx:{folder}")


@pytest.mark.pulled
def test_the_catalogues_tagger_finds_names_and_addresses() -> None:
    text = "My name is Anna Smith and I live at 12 High Street, Springfield, IL 62701."
    found = {(text[f.start : f.end], f.kind) for f in load_tagger("rampart").find([text])[0]}
    assert found >= {
        ("Anna", "GIVEN_NAME"),
        ("Smith", "SURNAME"),
        ("High Street", "STREET_NAME"),
        ("62701", "ZIP_CODE"),
    }
