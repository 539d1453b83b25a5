"""What a model file is, for what is measured once and kept: two files may have one name."""

from __future__ import annotations

from pathlib import Path


def file_identity(path: Path, *settings: object) -> str:
    """A model file or folder, as it is now, and the settings that it runs under."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return f"{path.resolve()} {stats} {settings}"
