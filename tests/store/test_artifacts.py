"""Artifacts: saved as a whole, read back exactly, refused when anything was changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotfish.errors import ArtifactError, UnsafeArtifact
from pilotfish.store import swap
from pilotfish.store.artifacts import Card, load_artifact, save_artifact
from pilotfish.store.card import MAX_CARD_BYTES

ARRAYS = {
    "float": np.arange(12, dtype=np.float32).reshape(3, 4),
    "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(20, dtype=np.int16)[::3],
    "scalar": np.float64(0.25) * np.ones(()),
    "empty": np.zeros((0, 3), np.uint8),
    "flags": np.array([True, False]),
}


def card(**values) -> Card:
    return Card.new(name="topics", kind="offload", **values)


@pytest.fixture
def folder(tmp_path) -> Path:
    save_artifact(
        tmp_path / "artifact",
        card(task={"labels": ["ä", "😀"]}, certificate={"delta": 0.05}),
        tensors={"student": ARRAYS, "deep/er": {"x": np.ones(3)}},
        json_files={"settings": {"a": [1, None, "ü"]}, "result.json": [1, 2]},
        files={"report.html": b"<p>", "rows.jsonl": b"{}\n"},
    )
    return tmp_path / "artifact"


def edit_card(folder: Path, **changes) -> None:
    path = folder / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def relist(folder: Path, *names: str) -> None:
    """What an attacker does: the card is made to agree with the files."""
    from pilotfish.store.contents import fingerprint

    files = json.loads((folder / "card.json").read_text())["files"]
    for name in names:
        digest, size, _ = fingerprint(folder / name)
        files[name] = {"sha256": digest, "bytes": size}
    edit_card(folder, files=files)


def test_round_trip(folder):
    artifact = load_artifact(folder)
    assert artifact.card.task == {"labels": ["ä", "😀"]}
    assert artifact.card.versions["numpy"] == np.__version__
    loaded = artifact.tensors("student")
    assert set(loaded) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].shape == np.shape(array)
        np.testing.assert_array_equal(loaded[name], array)
    np.testing.assert_array_equal(artifact.tensors("deep/er.safetensors")["x"], np.ones(3))
    assert artifact.json("settings") == artifact.json("settings.json") == {"a": [1, None, "ü"]}
    assert artifact.json("result") == [1, 2]
    assert artifact.path("report.html").read_bytes() == b"<p>"
    with pytest.raises(ArtifactError, match=r"no file 'other'.*\n.*report.html"):
        artifact.path("other")


def test_a_copy_is_the_same_artifact(folder, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF and so on")
    before = load_artifact(folder)
    copied = save_artifact(
        tmp_path / "new" / "copy",
        before.card,
        files={
            **{name: folder / name for name in before.card.files},
            "model.gguf": tmp_path / "model.gguf",
        },
    )
    files = dict(copied.card.files)
    assert files.pop("model.gguf")["bytes"] == 14
    assert files == before.card.files
    assert load_artifact(tmp_path / "new" / "copy").card == copied.card


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=3)


@settings(max_examples=30)
@given(OBJECTS, OBJECTS, st.none() | OBJECTS, st.dictionaries(st.text("abc", min_size=7), JSON))
def test_cards_come_back(task, extra, certificate, unknown):
    before = card(task=task, extra=extra, certificate=certificate, unknown=unknown)
    assert Card.from_json(json.loads(json.dumps(before.to_json()))) == before


def test_entries_of_a_newer_minor_version_are_kept(folder, tmp_path):
    edit_card(folder, licence="MIT", nested={"a": 1})
    artifact = load_artifact(folder)
    assert artifact.card.unknown == {"licence": "MIT", "nested": {"a": 1}}
    save_artifact(tmp_path / "again", artifact.card)
    assert json.loads((tmp_path / "again/card.json").read_text())["licence"] == "MIT"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2, "pilotfish": "9.1"}, r'format 2.*\n.*"pilotfish>=9.1"'),
        ({"format": "1"}, "format '1'"),
        ({"format": None}, "format None"),
        ({"format": True}, "format True"),
        ({"name": 3}, "'name' is a int"),
        ({"files": []}, "'files' is a list"),
        ({"files": {"a.json": "x"}}, "expected sha256 and bytes"),
        ({"files": {"a.json": {"sha256": "0" * 63, "bytes": 1}}}, "expected sha256 and bytes"),
        ({"files": {"a.json": {"sha256": "0" * 64, "bytes": -1}}}, "expected sha256 and bytes"),
        ({"extra": {"padding": "x" * MAX_CARD_BYTES}}, "a card has at most"),
    ],
)
def test_cards_that_cannot_be_read(folder, changes, said):
    edit_card(folder, **changes)
    with pytest.raises(ArtifactError, match=said):
        load_artifact(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100_000, "\x80\x04", "{}"])
def test_cards_that_are_none(folder, text):
    (folder / "card.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError):
        load_artifact(folder)


def test_what_is_no_artifact(tmp_path):
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ArtifactError, match=r"expected a folder with a card\.json"):
            load_artifact(place)


def test_every_flipped_byte_is_noticed(folder):
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "card.json"):
        intact = path.read_bytes()
        for at in {0, len(intact) // 2, len(intact) - 1}:
            damaged = bytearray(intact)
            damaged[at] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(ArtifactError, match=path.name):
                load_artifact(folder)
        path.write_bytes(intact)
    load_artifact(folder)


def test_truncated_grown_missing_renamed(folder):
    path = folder / "student.safetensors"
    intact = path.read_bytes()
    for content in (intact[:-1], intact[:9], b"", intact + b"\0"):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match="student"):
            load_artifact(folder)
    path.write_bytes(intact)
    path.rename(folder / "pupil.safetensors")
    with pytest.raises(ArtifactError, match=r"'student\.safetensors': it is missing"):
        load_artifact(folder)


def test_a_file_changed_after_loading_is_noticed(folder):
    artifact = load_artifact(folder)
    (folder / "settings.json").write_text("{}")
    with pytest.raises(ArtifactError, match="SHA-256"):
        artifact.json("settings")


def test_broken_contents_with_a_true_hash(folder):
    (folder / "settings.json").write_text("{")
    (folder / "student.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0{bad}")
    relist(folder, "settings.json", "student.safetensors")
    artifact = load_artifact(folder)
    with pytest.raises(ArtifactError, match="not valid JSON"):
        artifact.json("settings")
    with pytest.raises(ArtifactError, match="cannot be read as safetensors"):
        artifact.tensors("student")


def test_notes_may_lie_beside(folder):
    (folder / "notes.txt").write_text("mine")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    load_artifact(folder)


def test_an_older_artifact_is_replaced(folder):
    save_artifact(folder, card(), json_files={"new": 1})
    assert load_artifact(folder).json("new") == 1
    assert {path.name for path in folder.iterdir()} == {"card.json", "new.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["artifact"]


def test_without_exchange_too(folder, monkeypatch):
    monkeypatch.setattr(swap, "_exchange", lambda one, other: False)
    test_an_older_artifact_is_replaced(folder)


def test_nothing_else_is_overwritten(folder, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "card.json").write_text('{"game": "poker"}')
    (folder / "thesis.md").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for place in ("file", "folder", "other", "artifact"):
        with pytest.raises(ArtifactError):
            save_artifact(tmp_path / place, card())
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    (tmp_path / "empty").mkdir()
    save_artifact(tmp_path / "empty", card())
    load_artifact(tmp_path / "empty")


@pytest.mark.parametrize(
    "wrong",
    [
        {"tensors": {"x": {"a": np.array(["text"])}}},
        {"tensors": {"x": {"a": np.array([object()])}}},
        {"json_files": {"x": object()}},
        {"json_files": {"card": 1}},
        {"files": {"x.pkl": b"x"}},
        {"files": {"../x.json": b"{}"}},
        {"files": {"x.json": Path("/does/not/exist")}},
        {"files": {"x.skops": b"PK\3\4 no archive"}},
        {"files": {"x.gguf": b"no gguf"}},
    ],
)
def test_what_cannot_be_saved_leaves_the_old_one(folder, wrong):
    before = load_artifact(folder).card
    with pytest.raises(ArtifactError):
        save_artifact(folder, card(), **wrong)
    assert load_artifact(folder).card == before
    assert [path.name for path in folder.parent.iterdir()] == ["artifact"]


def test_numbers_that_json_lacks_become_null(tmp_path):
    saved = save_artifact(tmp_path / "a", card(quality={"auc": float("nan")}))
    assert load_artifact(saved.folder).card.quality == {"auc": None}


SAVE = """
import os, sys
from pilotfish.store import swap
from pilotfish.store.artifacts import Card, save_artifact
calls = 0
def stop(event, _):
    global calls
    if event in ("open", "os.rename", "os.mkdir", "shutil.rmtree", "os.remove", "os.rmdir"):
        calls += 1
        if calls == at:
            os.kill(os.getpid(), 9)
if sys.argv[3] == "no exchange":
    swap._exchange = lambda one, other: False
at = int(sys.argv[2])
card = Card.new(name="new", kind="k")
files = {f"{i}.jsonl": b"x" * 1000 for i in range(3)}
sys.addaudithook(stop)
save_artifact(sys.argv[1], card, files=files)
"""


@pytest.mark.parametrize("how", ["exchange", "no exchange"])
def test_killed_at_any_moment(tmp_path, how):
    """Each file operation in turn is the last one: there is the old artifact or the new one."""
    folder = tmp_path / "artifact"
    save_artifact(folder, Card.new(name="old", kind="k"), json_files={"old": 1})
    seen = []
    for at in range(1, 90, 2):
        killed = subprocess.run(
            [sys.executable, "-c", SAVE, folder, str(at), how], check=False, capture_output=True
        )
        assert killed.returncode in (0, -signal.SIGKILL), killed.stderr
        seen.append(load_artifact(folder).card.name)
        if killed.returncode == 0:
            break
        if seen[-1] == "new":
            save_artifact(folder, Card.new(name="old", kind="k"), json_files={"old": 1})
    assert killed.returncode == 0, "the save was never complete"
    assert seen[0] == "old"
    assert seen[-1] == "new"
    assert seen.count("old") > 3
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"], "leftovers were removed"


def test_readers_see_the_old_or_the_new_one(tmp_path):
    folder = tmp_path / "artifact"
    save_artifact(folder, card(), json_files={"n": 0})
    code = """
import sys
from pilotfish.store.artifacts import Card, save_artifact
for n in range(1, 60):
    save_artifact(sys.argv[1], Card.new(name="x", kind="k"), json_files={"n": n})
"""
    writer = subprocess.Popen([sys.executable, "-c", code, folder])
    names = 0
    while writer.poll() is None:
        assert (folder / "card.json").is_file()
        names += 1
    assert writer.returncode == 0
    assert names > 10
    assert load_artifact(folder).json("n") == 59


def test_the_disk_is_full(folder, tmp_path):
    before = load_artifact(folder).card
    code = f"""
import resource
from pilotfish.store.artifacts import Card, save_artifact
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
save_artifact({str(folder)!r}, Card.new(name="x", kind="k"), files={{"x.jsonl": b"x" * 200_000}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ArtifactError: Cannot write" in done.stderr
    assert load_artifact(folder).card == before
    assert os.listdir(tmp_path) == ["artifact"]


def test_replacing_a_card_keeps_its_format():
    assert replace(card(), name="x").format == 1
    with pytest.raises(UnsafeArtifact):
        save_artifact("x", card(), files={"x.py": b""})
