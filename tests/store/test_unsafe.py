"""Hostile artifacts: whatever the card says, nothing in them runs.

Each attack would create a marker file if any of its code ran.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from pilotfish.errors import ArtifactError, UnsafeArtifact
from pilotfish.store.artifacts import Card, load_artifact, save_artifact
from tests.store.hostile import Evil
from tests.store.test_artifacts import edit_card, relist


def test_the_attack_would_work(tmp_path):
    pickle.loads(pickle.dumps(Evil(tmp_path / "proof")))
    assert (tmp_path / "proof").exists()


def _disguises(marker):
    evil = Evil(marker)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(evil))
    array = io.BytesIO()
    np.save(array, np.array([evil], dtype=object), allow_pickle=True)
    return {
        **{f"pickle {n}": pickle.dumps(evil, n) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
        "torch archive": archive.getvalue(),
        "numpy": array.getvalue(),
        "program": b"#!/bin/sh\ntouch " + os.fsencode(marker),
    }


NAMES = [
    "x.pkl",
    "x.joblib",
    "x.pt",
    "x.bin",
    "x.npy",
    "x.npz",
    "x.py",
    "x.so",
    "x.sh",
    "x",
    "x.JSON.pkl",
]


@pytest.mark.parametrize("name", NAMES)
def test_dangerous_kinds_are_refused_listed_or_not(folder, marker, name):
    (folder / name).write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(UnsafeArtifact, match=name):
        load_artifact(folder)
    relist(folder, name)
    with pytest.raises(UnsafeArtifact, match=name) as caught:
        load_artifact(folder)
    assert "safetensors" in caught.value.remedy


READERS = {"json": "json", "skops": "skops", "safetensors": "tensors"}


def _read(folder, name):
    artifact = load_artifact(folder)
    reader = READERS.get(name.rpartition(".")[2])
    if reader is None:
        raise ArtifactError("for this format there is no reader here")
    getattr(artifact, reader)(name)


@pytest.mark.parametrize(
    "suffix", ["safetensors", "skops", "onnx", "gguf", "json", "parquet", "md"]
)
def test_pickles_under_another_name(folder, marker, suffix):
    name = f"student.{suffix}"
    for kind, content in _disguises(marker).items():
        (folder / name).write_bytes(content)
        relist(folder, name)
        with pytest.raises(ArtifactError):
            _read(folder, name)
        # The first two protocols are text, and a skops file is an archive too.
        if kind not in ("pickle 0", "pickle 1", "torch archive"):
            with pytest.raises(UnsafeArtifact, match=name):
                load_artifact(folder)


@pytest.mark.parametrize(
    "name", ["y.safetensors", "y.skops", "y.onnx", "y.gguf", "sub/y.safetensors"]
)
def test_weights_that_the_card_does_not_list(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes((folder / "student.safetensors").read_bytes())
    with pytest.raises(UnsafeArtifact, match="not on the card"):
        load_artifact(folder)


@pytest.mark.parametrize(
    "name",
    ["../x.json", "/etc/x.json", "a/../../x.json", "./x.json", "a//x.json", "a\\..\\x.json", "",
     "C:/x.json", "~/x.json", "x\0.json", ".hidden.json", "a\n.json", "x.json/", "é.json", "a" * 999],
)  # fmt: skip
def test_names_that_lead_elsewhere(folder, name):
    (folder.parent / "x.json").write_text("{}")
    entry = {"sha256": "0" * 64, "bytes": 2}
    edit_card(folder, files={name: entry})
    with pytest.raises(UnsafeArtifact, match="expected a plain path"):
        load_artifact(folder)
    with pytest.raises(UnsafeArtifact, match="expected a plain path"):
        save_artifact(folder.parent / "new", Card.new(name="x", kind="k"), files={name: b"{}"})
    assert not (folder.parent / "new").exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret.json", "settings.json", "nowhere"])
def test_links_are_refused(folder, target):
    (folder.parent / "secret.json").write_text("{}")
    (folder / "link.json").symlink_to(target)
    with pytest.raises(UnsafeArtifact, match=r"'link\.json' is a link"):
        load_artifact(folder)


def test_linked_folders_and_cards_and_pipes_are_refused(folder, tmp_path):
    (folder / "sub").symlink_to("/etc")
    with pytest.raises(UnsafeArtifact, match="'sub' is a link"):
        load_artifact(folder)
    (folder / "sub").unlink()
    os.mkfifo(folder / "pipe.json")
    with pytest.raises(UnsafeArtifact, match="special file"):
        load_artifact(folder)
    (folder / "pipe.json").unlink()
    (folder / "card.json").rename(tmp_path / "card.json")
    (folder / "card.json").symlink_to(tmp_path / "card.json")
    with pytest.raises(ArtifactError):
        load_artifact(folder)


def test_a_linked_artifact_is_fine(folder, tmp_path):
    (tmp_path / "current").symlink_to(folder)
    assert load_artifact(tmp_path / "current").json("settings") == {}
