"""Artifacts: trained things as folders that can be copied, checked, and loaded without running code.

A folder holds ``card.json`` (:class:`~pilotfish.store.card.Card`) and files in safe formats. Saving
writes a folder beside the target, syncs it, and swaps it in as a whole: whoever reads, and whatever is
killed, there is the old artifact or the new one. Loading checks every file against the card first. The
hashes catch damage; that nothing can run holds whatever the card says, because only data formats are
read, and of scikit-learn models only types on a fixed list (:mod:`pilotfish.store.sklearn_files`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pilotfish.errors import ArtifactError
from pilotfish.store.card import CARD_NAME, MAX_CARD_BYTES, Card, read_json, write_json
from pilotfish.store.contents import (
    check_name,
    check_start,
    check_unlisted,
    fingerprint,
    list_files,
)
from pilotfish.store.swap import Swap, find

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Artifact", "Card", "load_artifact", "save_artifact"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified folder. It knows files, not models.

    Attributes:
        folder: Where it is.
        card: What it is.
    """

    folder: Path
    card: Card

    def path(self, name: str) -> Path:
        """The path of a file on the card.

        Raises:
            ArtifactError: The card lists no such file.
        """
        if name not in self.card.files:
            listed = ", ".join(sorted(self.card.files)) or "none"
            raise ArtifactError(
                f"The artifact {self.folder} has no file {name!r}.", remedy=f"Its files: {listed}"
            )
        return self.folder / name

    def tensors(self, stem: str) -> dict[str, NDArray[np.generic]]:
        """The arrays of ``STEM.safetensors`` by name.

        Raises:
            ArtifactError: There is no such file, or it cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self.path(_with_suffix(stem, ".safetensors"))
        try:
            arrays: dict[str, NDArray[np.generic]] = load_file(path)
        except (SafetensorError, KeyError) as error:  # KeyError: a dtype that NumPy does not have
            raise ArtifactError(f"{path} cannot be read as safetensors: {error}.") from error
        return arrays

    def json(self, name: str) -> Any:
        """The JSON values of a file; ``.json`` may be left out.

        Raises:
            ArtifactError: There is no such file, it has changed since, or it is no JSON.
        """
        name = _with_suffix(name, ".json")
        return read_json(self._read(name), str(self.folder / name))

    def skops(self, name: str) -> Any:
        """The scikit-learn model of a ``.skops`` file; the suffix may be left out.

        Raises:
            UnsafeArtifact: It holds types that are not on the fixed list; names them.
            ArtifactError: There is no such file, or it is damaged.
        """
        from pilotfish.store.sklearn_files import load_model

        name = _with_suffix(name, ".skops")
        return load_model(self._read(name), str(self.folder / name))

    def _read(self, name: str) -> bytes:
        """Read a file and check it again: it may have been changed since the artifact was loaded."""
        blob = self.path(name).read_bytes()
        if hashlib.sha256(blob).hexdigest() != self.card.files[name]["sha256"]:
            _damaged(self.folder, name, "its SHA-256 is not the card's")
        return blob


def save_artifact(
    folder: str | Path,
    card: Card,
    *,
    tensors: Mapping[str, Mapping[str, NDArray[Any]]] | None = None,
    json_files: Mapping[str, Any] | None = None,
    files: Mapping[str, Path | bytes] | None = None,
) -> Artifact:
    """Write an artifact; an older one at that place is replaced in one step.

    Args:
        folder: Where to; created, or an older artifact with nothing but its own files in it.
        card: Its ``files`` are filled in here.
        tensors: File stem to array name to array (any shape; numbers and booleans).
        json_files: File name to JSON values; ``.json`` may be left out.
        files: File name to contents or the file to copy. Other formats than those in
            :data:`pilotfish.store.contents.SUFFIXES` are refused.

    Raises:
        ArtifactError: The place is taken by something else, or something cannot be written.
        UnsafeArtifact: A file could not be loaded safely, so it is not saved either.
    """
    contents: dict[str, Path | bytes] = dict(files or {})
    for name, values in (json_files or {}).items():
        name = _with_suffix(name, ".json")
        contents[name] = write_json(values, name)
    for stem, arrays in (tensors or {}).items():
        name = _with_suffix(stem, ".safetensors")
        contents[name] = _safetensors(name, arrays)
    if CARD_NAME in contents:
        raise ArtifactError(f"Got a file called {CARD_NAME!r}, but the card takes that name.")
    for name in contents:
        check_name(name)
    target = Path(os.path.abspath(folder))
    _check_replaceable(target)
    with Swap(target) as swap:
        entries = {}
        for name, content in sorted(contents.items()):
            path = swap.write(name, content)
            entries[name] = _checked_entry(name, path)
        card = replace(card, files=entries)
        blob = write_json(card.to_json(), CARD_NAME)
        if len(blob) > MAX_CARD_BYTES:
            raise ArtifactError(
                f"The card would have {len(blob)} bytes, but at most {MAX_CARD_BYTES} are allowed.",
                remedy="Put large values into json_files.",
            )
        swap.write(CARD_NAME, blob)
        swap.commit()
    return Artifact(target, card)


def load_artifact(folder: str | Path) -> Artifact:
    """Check an artifact's folder, every file of it, and return it. Nothing in it is run.

    Raises:
        ArtifactError: There is none, it is damaged, or from a newer Pilotfish.
        UnsafeArtifact: It holds something that could run code, or that leads out of the folder.
    """
    root = find(Path(os.path.abspath(folder)))
    card = _read_card(root)
    present = list_files(root)
    for name in card.files:
        check_name(name)
        if name not in present:
            _damaged(root, name, "it is missing")
    for name in sorted(present - set(card.files) - {CARD_NAME}):
        check_unlisted(name)
    for name, entry in card.files.items():
        digest, size, head = fingerprint(root / name)
        check_start(name, head, size)
        if size != entry["bytes"]:
            _damaged(root, name, f"it has {size} bytes instead of {entry['bytes']}")
        if digest != entry["sha256"]:
            _damaged(root, name, "its SHA-256 is not the card's")
    return Artifact(root, card)


def _read_card(root: Path) -> Card:
    path = root / CARD_NAME
    if path.is_symlink() or not path.is_file():
        raise ArtifactError(
            f"Got {root}, but expected a folder with a {CARD_NAME}: an artifact.",
            remedy="pilotfish offload writes one; name the folder given as --out.",
        )
    size = path.stat().st_size
    if size > MAX_CARD_BYTES:
        raise ArtifactError(
            f"{path} has {size} bytes, but a card has at most {MAX_CARD_BYTES}.",
            remedy="Is this folder an artifact of Pilotfish?",
        )
    return Card.from_json(read_json(path.read_bytes(), str(path)), str(path))


def _checked_entry(name: str, path: Path) -> dict[str, Any]:
    digest, size, head = fingerprint(path)
    check_start(name, head, size)
    if name.lower().endswith(".skops"):
        from pilotfish.store.sklearn_files import load_model

        load_model(path.read_bytes(), name)  # what could not be loaded is better not saved
    return {"sha256": digest, "bytes": size}


def _check_replaceable(target: Path) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    elsewhere = "Choose another folder, or move that one away."
    if not target.is_dir() or not (target / CARD_NAME).is_file():
        raise ArtifactError(f"{target} is in the way, and it is no artifact.", remedy=elsewhere)
    own = {*_read_card(target).files, CARD_NAME}
    if foreign := sorted(list_files(target) - own):
        raise ArtifactError(
            f"{target} holds files that its card does not list: {', '.join(foreign[:5])}.",
            remedy=elsewhere,
        )


def _safetensors(name: str, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import save

    for key, array in arrays.items():
        if np.asarray(array).dtype.kind not in "biuf":
            raise ArtifactError(
                f"Got an array {key!r} of {np.asarray(array).dtype} for {name!r}, but expected "
                "numbers or booleans.",
                remedy="Put texts into json_files.",
            )
    try:
        blob: bytes = save({key: np.asarray(array, order="C") for key, array in arrays.items()})
    except (SafetensorError, KeyError) as error:
        raise ArtifactError(f"{name!r} cannot be written as safetensors: {error}.") from error
    return blob


def _with_suffix(name: str, suffix: str) -> str:
    return name if name.lower().endswith(suffix) else name + suffix


def _damaged(root: Path, name: str, what: str) -> NoReturn:
    raise ArtifactError(
        f"The artifact {root} is damaged: {name!r}: {what}.",
        remedy="Copy it again from where it came, or make it again.",
    )
