"""What may lie in an artifact's folder, and whether each file is what its name says.

Only formats that hold data and no code are let in, by name and by their first bytes: a pickle runs code
when it is read, so a file that is one is refused whatever it is called. Names are plain relative paths;
links and special files are refused, since they can lead out of the folder or never end.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from pilotfish.errors import ArtifactError, UnsafeArtifact

SUFFIXES = frozenset(
    (".json", ".safetensors", ".onnx", ".gguf", ".skops", ".html", ".md", ".jsonl", ".parquet")
)
# Not on the card, yet harmless: notes that people add, and what file managers leave behind.
_TOLERATED = frozenset((".json", ".html", ".md", ".jsonl", ".txt", ".csv", ".log"))
_LITTER = frozenset((".DS_Store", "Thumbs.db", ".gitignore", ".gitattributes"))
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*")
_MAGIC = {".gguf": b"GGUF", ".parquet": b"PAR1", ".skops": b"PK\x03\x04"}
_PROGRAMS = (b"\x7fELF", b"MZ", b"#!", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
SAFE_FORMATS = (
    "Save arrays as safetensors, scikit-learn models with skops, settings as JSON; then save the "
    "artifact again with pilotfish."
)


def check_name(name: str) -> None:
    """Refuse a name that is no plain relative path, or whose format is not on the list.

    Raises:
        UnsafeArtifact: Says which name and why.
    """
    if len(name) > 200 or not all(_PART.fullmatch(part) for part in name.split("/")):
        raise UnsafeArtifact(
            f"Got the file name {name!r}, but expected a plain path inside the folder.",
            remedy="Names are letters, digits and ._+=- with / between folders; no '..', no root.",
        )
    if Path(name).suffix.lower() not in SUFFIXES:
        raise UnsafeArtifact(
            f"The file {name!r} is of a kind that could run code, or that is not known to be safe; "
            f"expected one of {', '.join(sorted(SUFFIXES))}.",
            remedy=SAFE_FORMATS,
        )


def check_unlisted(name: str) -> None:
    """Refuse a file that the card does not list, unless it is a harmless note.

    Raises:
        UnsafeArtifact: It is of a kind that something could load.
    """
    path = Path(name)
    if path.name not in _LITTER and path.suffix.lower() not in _TOLERATED:
        raise UnsafeArtifact(
            f"The file {name!r} is in the folder, but not on the card.",
            remedy="Do not load it. If it is not yours, delete the artifact and get it again.",
        )


def check_start(name: str, head: bytes, size: int) -> None:
    """Refuse a file whose first 16 bytes are not of the format that its name says.

    Raises:
        UnsafeArtifact: It is a pickle, an archive or a program under another name.
        ArtifactError: It is damaged.
    """
    suffix = Path(name).suffix.lower()
    if head[:1] == b"\x80" and len(head) > 1 and head[1] in range(2, 6):
        looks = "a pickle, which could run code"
    elif head.startswith(_PROGRAMS):
        looks = "a program"
    elif head.startswith(b"PK\x03\x04") and suffix != ".skops":
        looks = "an archive (PyTorch and joblib keep pickles in those)"
    elif head.startswith(b"\x93NUMPY"):
        looks = "a NumPy file, which may hold pickled objects"
    else:
        looks = ""
    if suffix == ".safetensors" and not looks:
        # Eight bytes of header length, then the header, which is a JSON object.
        length = int.from_bytes(head[:8], "little")
        if size < 10 or length > size - 8 or head[8:9] != b"{":
            looks = "no safetensors file"
    if looks:
        raise UnsafeArtifact(f"The file {name!r} is {looks}; not loaded.", remedy=SAFE_FORMATS)
    if not head.startswith(_MAGIC.get(suffix, b"")):
        raise ArtifactError(f"The file {name!r} is not in the format that its name says.")


def fingerprint(path: Path) -> tuple[str, int, bytes]:
    """SHA-256 (hex), size in bytes, and the first 16 bytes of a file."""
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, file.tell(), head


def list_files(root: Path) -> set[str]:
    """Every file under a folder, as relative names with ``/``.

    Raises:
        UnsafeArtifact: There is a link, device, pipe or socket.
    """
    names: set[str] = set()
    folders = [root]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                name = Path(entry.path).relative_to(root).as_posix()
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    folders.append(Path(entry.path))
                elif stat.S_ISREG(mode):
                    names.add(name)
                else:
                    what = "link" if stat.S_ISLNK(mode) else "special file"
                    raise UnsafeArtifact(
                        f"{name!r} is a {what}, but expected plain files only.",
                        remedy=f"Copy the artifact with its contents: cp -rL {root} COPY",
                    )
    return names
