"""Personal data: what is found of what is known to be there, and that pseudonyms are undone exactly."""

from __future__ import annotations

import json
import os
import pickle
import re
import stat
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotfish.curate import Pipeline
from pilotfish.curate.personal.data import PersonalData
from pilotfish.curate.personal.pseudonyms import (
    SHAPE,
    Pseudonyms,
    Replace,
    keyed_digits,
    read_mapping,
    restore,
)
from pilotfish.curate.step import ROW, TEXT
from pilotfish.errors import ConfigError, InputError, UnknownName
from pilotfish.models.redaction import find_personal
from tests.curate.personal.personal_texts import CLEAN, labelled


def batch(texts: list[str]) -> pa.RecordBatch:
    rows = pa.array(range(len(texts)), pa.uint64())
    return pa.RecordBatch.from_pydict({ROW: rows, TEXT: pa.array(texts, pa.string())})


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_bytes(bytes(range(40)))
    return str(path)


def fit(step: Pseudonyms, texts: list[str], tmp_path: Path) -> Replace:
    states = [step.map(batch(texts[i : i + 50])) for i in range(0, len(texts), 50)]
    return step.reduce(states, tmp_path)


def capitals(text: str) -> list[tuple[int, int, str]]:
    """A finder: names in capitals."""
    at = text.find("ANNA")
    return [(at, at + 4, "person")] if at >= 0 else []


def whole(text: str) -> list[tuple[int, int, str]]:
    return [(0, len(text), "person")]


def nonsense(text: str) -> list[tuple[int, int, str]]:
    return [(0, len(text) + 1, "person")]


def test_what_is_there_is_found_and_what_only_looks_like_it_is_not() -> None:
    known = found = seen = right = 0
    for text, labels in labelled(600, seed=1):
        places = find_personal(text)
        assert all(a.end <= b.start for a, b in pairwise(places))
        known, seen = known + len(labels), seen + len(places)
        found += sum(any(f.start <= s and f.end >= e for f in places) for s, e, _ in labels)
        right += sum(any(f.start < e and f.end > s for s, e, _ in labels) for f in places)
    assert found / known > 0.99
    assert (
        right / seen > 0.9
    )  # the rest are a section and an invoice that look like a host and a phone
    for text in CLEAN:
        assert find_personal(text) == []


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("GB82 WEST 1234 5698 7654 32", ["iban"]),
        ("GB82WEST12345698765432 BIC", ["iban"]),
        ("DE89370400440532013000", ["iban"]),
        ("DE89370400440532013001", []),
        ("NO9386011117947", ["iban"]),
        ("078-05-1120", ["ssn"]),
        ("900-05-1120, 078-00-1120", []),
        ("255.255.255.0 and 256.1.1.1", ["ip"]),
        ("2001:db8::8a2e:370:7334", ["ip"]),
        ("fe80:0:0:0:1:2:3:4", ["ip"]),
        ("12:30:05, a::b, ::", []),
    ],
)
def test_kinds_that_only_curation_looks_for(text: str, kinds: list[str]) -> None:
    assert [found.kind for found in find_personal(text)] == kinds


def test_actions() -> None:
    texts = ["Mail jo@example.org, ANNA, or jo@example.org.", "nothing", "host 10.0.0.7"]
    redact = PersonalData(finder="tests.curate.personal.test_personal_data:capitals").apply(
        batch(texts)
    )
    assert redact.columns[TEXT].to_pylist() == [
        "Mail [email], [person], or [email].",
        "nothing",
        "host [ip]",
    ]
    assert redact.columns["personal_data"].to_pylist() == ["email,person", None, "ip"]
    drop = PersonalData("drop", kinds=["email"]).apply(batch(texts))
    assert drop.reasons is not None
    assert drop.reasons.to_pylist() == ["personal_data.email", None, None]
    tag = PersonalData("tag").apply(batch(texts))
    assert TEXT not in tag.columns
    assert tag.reasons is None


@pytest.fixture
def tagger(tmp_path: Path) -> str:
    """A model that takes words with capitals for names and digits for numbers."""
    for library in ("onnx", "onnxruntime"):
        pytest.importorskip(library, reason=f'needs {library}: pip install "pilotfish[test]"')
    from tests.models.tiny_onnx import write_tagger

    folder = tmp_path / "tagger"
    folder.mkdir()
    return f"onnx:{write_tagger(folder)}"


def test_a_model_finds_what_has_no_form(tagger: str) -> None:
    texts = ["mail jo@example.org, Anna Smith-Nowak, or 4711", "nothing", "Bob@example.org", "x 12"]
    found = PersonalData(model=tagger).apply(batch(texts))
    assert found.columns[TEXT].to_pylist() == [
        "mail [email], [name], or [number]",
        "nothing",
        "[email]",
        "x [number]",
    ]
    assert found.columns["personal_data"].to_pylist() == [
        "email,name,number",
        None,
        "email",
        "number",
    ]
    names = PersonalData("drop", model=tagger, kinds=["name"]).apply(batch(texts))
    assert names.reasons is not None
    assert names.reasons.to_pylist() == ["personal_data.name", None, "personal_data.name", None]
    sure = PersonalData(model=tagger, min_confidence=0.99).apply(batch(texts[:1]))
    assert sure.columns["personal_data"].to_pylist() == ["email"], "patterns are always sure"
    with pytest.raises(UnknownName, match="rampart"):
        PersonalData(kinds=["name"])
    with pytest.raises(ConfigError, match="min_confidence"):
        PersonalData(model=tagger, min_confidence=0)


def test_what_overlaps_is_cut_and_not_left_open() -> None:
    """A finder's place that holds an address of its own form: the rest of it counts too."""
    step = PersonalData(finder="tests.curate.personal.test_personal_data:whole")
    found = step.apply(batch(["Anna <anna@example.org>, Leeds", "anna@example.org"]))
    assert found.columns[TEXT].to_pylist() == ["[person] <[email]>, [person]", "[email]"]


def test_pseudonyms_of_what_a_model_finds(tmp_path: Path, key: str, tagger: str) -> None:
    texts = ["Anna met Bob", "Bob met nobody", "write to bob@example.org"]
    step = fit(Pseudonyms(key, str(tmp_path / "map"), model=tagger), texts, tmp_path)
    new = [step.replaced(text) for text in texts]
    assert re.fullmatch(r"\[name-\d{12}\] met \[name-\d{12}\]", new[0])
    assert new[0].split()[-1] == new[1].split()[0]
    assert [restore(text, read_mapping(tmp_path / "map")) for text in new] == texts


def test_settings_that_make_no_sense_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(UnknownName, match="email"):
        PersonalData(kinds=["emial"])
    with pytest.raises(ConfigError, match="finds nothing"):
        PersonalData(kinds=[])
    PersonalData(kinds=[], finder="tests.curate.personal.test_personal_data:whole")
    with pytest.raises(UnknownName, match="Did you mean 'redact'"):
        PersonalData("redcat")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot be loaded"):
        PersonalData(finder="nowhere:nothing")
    with pytest.raises(ConfigError, match=r"no such folder.*\n.*mkdir"):
        Pseudonyms(key, str(tmp_path / "none" / "mapping"))
    with pytest.raises(ConfigError, match="expected places"):
        PersonalData(finder="builtins:len").apply(batch(["x"]))
    with pytest.raises(ConfigError, match="found 'person' at 0 to 2"):
        PersonalData(finder="tests.curate.personal.test_personal_data:nonsense").apply(batch(["x"]))
    with pytest.raises(ConfigError, match="urandom"):
        Pseudonyms(str(tmp_path / "none"), "mapping")
    (tmp_path / "short").write_bytes(b"secret")
    with pytest.raises(ConfigError, match="32"):
        Pseudonyms(str(tmp_path / "short"), "mapping")
    (tmp_path / "bad").write_text("no mapping\n")
    for path in (tmp_path / "bad", tmp_path / "none"):
        with pytest.raises(InputError, match="mapping"):
            read_mapping(path)
    (tmp_path / "gone").mkdir()
    step = Pseudonyms(key, str(tmp_path / "gone" / "mapping"))
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match="Cannot write the mapping"):
        fit(step, ["a@example.org"], tmp_path)


@pytest.mark.parametrize("natural", [True, False])
def test_pseudonyms_are_undone_exactly(tmp_path: Path, key: str, natural: bool) -> None:
    texts = [text for text, _ in labelled(400, seed=2)]
    step = fit(Pseudonyms(key, str(tmp_path / "map"), natural=natural), texts, tmp_path)
    new = pickle.loads(pickle.dumps(step)).apply(batch(texts)).columns[TEXT].to_pylist()
    mapping = read_mapping(tmp_path / "map")
    assert [restore(text, mapping) for text in new] == texts
    assert len(set(mapping.values())) == len(mapping)
    values = {text[f.start : f.end] for text in texts for f in find_personal(text)}
    assert values == set(mapping.values())
    assert not any(value in text for text in new for value in values if len(value) > 8)
    assert stat.S_IMODE((tmp_path / "map").stat().st_mode) == 0o600
    # The same value has the same pseudonym, also in another run with another corpus.
    again = fit(Pseudonyms(key, str(tmp_path / "m2"), natural=natural), texts[:9], tmp_path)
    assert [again.replaced(text) for text in texts[:9]] == new[:9]


def test_a_rehearsal_reads_the_mapping_and_leaves_it_alone(tmp_path: Path, key: str) -> None:
    path = tmp_path / "map"
    fit(Pseudonyms(key, str(path)), ["a@example.org"], tmp_path)
    before = path.read_bytes()
    step = Pseudonyms(key, str(path))
    folder = tmp_path / "fit"
    folder.mkdir()
    texts = batch(["a@example.org", "b@example.org"])
    ready, note = step.rehearse([step.map(texts)], folder, 0.5, ask=False)
    assert path.read_bytes() == before
    assert not note
    new = ready.apply(texts).columns[TEXT].to_pylist()
    assert all(text.endswith("@pseudonym.invalid") for text in new)
    (digits,) = read_mapping(path)
    assert digits in new[0]


def test_the_users_folder_may_be_named_for_what_stays_secret(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    fit(Pseudonyms(f"~/{Path(key).name}", "~/map"), ["a@example.org"], tmp_path)
    assert list(read_mapping("~/map").values()) == ["a@example.org"]


def test_what_stays_secret_does_not_lie_in_the_output(tmp_path: Path, key: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "write to a@example.org"}\n')
    (tmp_path / "out").mkdir()
    step = Pseudonyms(key, str(tmp_path / "out" / "map"))
    with pytest.raises(ConfigError, match=r"out/map', which must stay secret, lies in the output"):
        Pipeline([step]).run(tmp_path / "in.jsonl", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    result = Pipeline([step]).run(tmp_path / "in.jsonl", tmp_path / "other")
    assert result.rows_kept == 1


EVIL = [
    *(
        "jo@example.org",
        "+1 555 010 9999",
        "[email-123456789012]",
        "u123456789012@pseudonym.invalid",
    ),
    *(
        "+999123456789012",
        "[",
        "]",
        "u",
        "5",
        "+999",
        "@pseudonym.invalid",
        "[email-",
        "12345678901",
    ),
    *("4111111111111111", "10.0.0.7", " ", ".", "\n", "é", "078-05-1120", "u12", "invalid"),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(EVIL), max_size=9).map("".join), st.booleans())
def test_texts_that_play_with_pseudonyms_are_undone_too(text: str, natural: bool) -> None:
    """Also where a text has what the step writes, or stands so beside it that it may be misread."""
    kept = os.path.join(_folder(), "map")
    if os.path.exists(kept):
        os.unlink(kept)
    step = Pseudonyms(_folder("key"), kept, natural=natural)
    ready = step.reduce([step.map(batch([text]))], Path(_folder()))
    assert restore(ready.replaced(text), read_mapping(kept)) == text


_made: dict[str, str] = {}


def _folder(name: str = "") -> str:
    if not _made:
        _made["folder"] = tempfile.mkdtemp(prefix="pilotfish-evil-")
        Path(_made["folder"], "key").write_bytes(bytes(range(32)))
    return os.path.join(_made["folder"], name)


def test_equal_hashes_get_different_pseudonyms(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve digits collide among millions of values; here one digit, among thirty."""
    from pilotfish.curate.personal import pseudonyms

    def short(key: bytes, kind: str, value: str, tries: int = 0) -> str:
        return f"{int(keyed_digits(key, kind, value, tries)) % 40:012d}"

    monkeypatch.setattr(pseudonyms, "keyed_digits", short)
    texts = [f"a{i}@example.org" for i in range(30)]
    step = fit(Pseudonyms(key, str(tmp_path / "map")), texts, tmp_path)
    new = [step.replaced(text) for text in texts]
    assert len(set(new)) == 30
    mapping = read_mapping(tmp_path / "map")
    assert [restore(text, mapping) for text in new] == texts
    # A second run adds to the mapping, and changes nothing of the first.
    more = fit(Pseudonyms(key, str(tmp_path / "map")), ["b@example.org", *texts[5:]], tmp_path)
    assert [more.replaced(text) for text in texts[5:]] == new[5:]
    assert read_mapping(tmp_path / "map").items() >= mapping.items()


def test_a_run_writes_no_personal_data_but_to_the_mapping(tmp_path: Path, key: str) -> None:
    texts = [text for text, labels in labelled(200, seed=3) if labels]
    lines = [json.dumps({"text": text, "n": i}) for i, text in enumerate(texts)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    for name, step in {
        "pseudonyms": Pseudonyms(key, str(tmp_path / "map")),
        "redacted": PersonalData(),
        "dropped": PersonalData("drop"),
    }.items():
        out = tmp_path / name
        Pipeline([step]).run(tmp_path / "in.jsonl", out)
        written = "".join(p.read_text() for p in out.rglob("*") if p.is_file())
        values = {t[f.start : f.end] for t in texts for f in find_personal(t) if f.kind == "email"}
        assert values
        assert not [value for value in values if value in written]
        if name == "pseudonyms":
            rows: list[dict[str, Any]] = [
                json.loads(line)
                for part in sorted(out.glob("part-*"))
                for line in part.read_text().splitlines()
            ]
            mapping = read_mapping(tmp_path / "map")
            assert [restore(row["text"], mapping) for row in rows] == texts
            assert SHAPE.search(rows[0]["text"])
