"""Encoders run by the ``sentence-transformers`` library (Reimers and Gurevych 2019), where installed.

For models that exist only as PyTorch weights, or that need a GPU. Nothing is downloaded: the model is
a catalogue entry that was pulled, a folder, or a model that is already in the hub's own cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import huggingface_hub
import msgspec
import numpy as np
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from sentence_transformers import SentenceTransformer
from transformers.utils import logging

from pilotfish.config import Config
from pilotfish.errors import ConfigError
from pilotfish.models.catalogue import CATALOGUE
from pilotfish.models.protocols import Floats
from pilotfish.models.settings import read_settings
from pilotfish.models.static import clean, fingerprint, model_folder, unit_rows

CHARS_PER_TOKEN = 32  # cuts a megabyte of text before the tokenizer sees it


class SentenceTransformersSettings(msgspec.Struct, kw_only=True, frozen=True):
    """What the encoder can be told.

    Attributes:
        device: ``"cpu"``, ``"cuda"``, ...; "": what the library chooses.
        batch_size: Texts per run.
    """

    device: str = ""
    batch_size: Annotated[int, msgspec.Meta(ge=1)] = 32


class SentenceTransformersEncoder:
    """A sentence-transformers model as an encoder.

    Args:
        folder: The model's folder.
        name: The name it goes by: the spec that loads it again.
        settings: See :class:`SentenceTransformersSettings`.

    Attributes:
        name: As given.
        dim: Length of a row.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "",
        settings: SentenceTransformersSettings | None = None,
    ) -> None:
        self.name = name or f"sentence-transformers:{folder}"
        self._folder = folder
        self._settings = settings or SentenceTransformersSettings()
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # else a bar for each model, terminal or not
        try:
            self._model = SentenceTransformer(
                str(folder), device=self._settings.device or None, local_files_only=True
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"{folder} is no sentence-transformers model: {error}.") from error
        finally:
            if shown:
                logging.enable_progress_bar()
        self.dim = int(self._model.encode(["."], show_progress_bar=False).shape[1])

    @classmethod
    def from_spec(
        cls, rest: str, settings: Mapping[str, Any], config: Config
    ) -> SentenceTransformersEncoder:
        """Build the encoder that ``sentence-transformers:REST`` names.

        Args:
            rest: A catalogue name, a folder, or a hub name that is in the hub's cache.
            settings: See :class:`SentenceTransformersSettings`.
            config: Says where pulled files are.

        Raises:
            MissingModel: A catalogue name that was not pulled.
            ConfigError: Not on this machine, or a setting is wrong.
        """
        checked = read_settings("sentence-transformers", SentenceTransformersSettings, settings)
        if rest in CATALOGUE or Path(rest).expanduser().is_dir():
            folder = model_folder(rest, "encoder", config)
        else:
            folder = _hub_folder(rest)
        return cls(folder, name=f"sentence-transformers:{rest}", settings=checked)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the folder's weights, tokenizer and settings files."""
        files = [
            path
            for path in self._folder.rglob("*")
            if path.suffix in {".safetensors", ".json", ".txt", ".bin"} and path.is_file()
        ]
        names = sorted(path.relative_to(self._folder).as_posix() for path in files)
        return fingerprint([self._folder / name for name in names], " ".join(names))

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit rows ``[n, dim]``, float32; an empty text is a zero row."""
        limit = int(self._model.max_seq_length or 8192) * CHARS_PER_TOKEN
        rows = np.zeros((len(texts), self.dim), np.float32)
        filled = [i for i, text in enumerate(texts) if text.strip()]
        if filled:
            rows[filled] = self._model.encode(
                [clean(texts[i][:limit]) for i in filled],
                batch_size=self._settings.batch_size,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        return unit_rows(rows)


def _hub_folder(name: str) -> Path:
    try:
        return Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise ConfigError(
            f"The encoder {name!r} is neither in the catalogue, nor a folder, nor in the hub's cache.",
            remedy=f"hf download {name}",
        ) from error
