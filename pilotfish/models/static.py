"""Static embeddings: a text's vector is the mean of its tokens' vectors.

No network runs, so a core encodes tens of thousands of short texts per second, and for telling topics
or intents apart that is often enough. The default weights are WordLlama's (Miller 2024): token vectors
of a large language model's input layer, projected to 256 dimensions; they come inside the ``wordllama``
wheel and are read from there as files, since importing that package costs more than reading them.
Folders in the model2vec form (Tulkens and van Dongen 2024; ``model.safetensors`` with
``tokenizer.json``, int8 or float) work too.

Known differences: a text is cut at ``max_chars`` characters, where WordLlama reads all of it and
model2vec stops after 512 tokens. Tokens are pooled with one sparse product per batch instead of padding
to the longest text: 12 times as fast, and equal within float32 rounding (the tests compare with
WordLlama).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from scipy.sparse import csr_matrix
from tokenizers import Tokenizer

from pilotfish.config import Config
from pilotfish.errors import ConfigError, MissingModel
from pilotfish.models.catalogue import CATALOGUE, locate
from pilotfish.models.protocols import Floats

MAX_CHARS = 16_384
BATCH = 2_048  # texts; bounds memory to a few megabytes of tokens

WORDLLAMA_WEIGHTS = "weights/l2_supercat_256.safetensors"
WORDLLAMA_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"

_MATRIX_NAMES = ("embedding.weight", "embeddings")


class StaticEncoder:
    """Mean of token vectors, as unit rows.

    It holds no state that changes, so threads may share one.

    Args:
        weights: A safetensors file with the matrix ``embedding.weight`` or ``embeddings``
            ``[rows, dim]``, and optionally ``weights`` (one per token) and ``mapping`` (token to row),
            as model2vec writes them.
        tokenizer: A ``tokenizer.json``.
        name: The name it goes by: the spec that loads it again.
        max_chars: Characters of a text that are read; the rest does not count. At the default a text of a
            megabyte costs about 6 ms; reading all of it would cost about 0.6 s.
        skip_unknown: Leave the tokenizer's unknown token out of the mean, as model2vec does.

    Attributes:
        name: As given.
        dim: Length of a row.

    Raises:
        ConfigError: The files are not of that form, or ``max_chars`` is less than 1.
    """

    def __init__(
        self,
        weights: Path,
        tokenizer: Path,
        *,
        name: str = "static",
        max_chars: int = MAX_CHARS,
        skip_unknown: bool = False,
    ) -> None:
        if max_chars < 1:
            raise ConfigError(f"Got max_chars={max_chars}, but expected at least 1.")
        self.name = name
        self.max_chars = max_chars
        self._files = (Path(weights), Path(tokenizer))
        self._matrix, self._token_weights, self._mapping = _read_weights(Path(weights))
        self._tokenizer = read_tokenizer(Path(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.dim: int = self._matrix.shape[1]
        tokens = len(self._matrix) if self._mapping is None else len(self._mapping)
        if self._tokenizer.get_vocab_size() > tokens:
            raise ConfigError(
                f"{tokenizer} has {self._tokenizer.get_vocab_size()} tokens, but {weights} only {tokens} "
                "vectors: they do not belong together."
            )
        unknown = getattr(self._tokenizer.model, "unk_token", None) if skip_unknown else None
        found = None if unknown is None else self._tokenizer.token_to_id(unknown)
        self._unknown: int = -1 if found is None else found

    @classmethod
    def from_spec(cls, rest: str, settings: Mapping[str, Any], config: Config) -> StaticEncoder:
        """Build the encoder that ``static`` or ``static:REST`` names.

        Args:
            rest: "" for the packaged default, a folder, or a catalogue name.
            settings: ``max_chars`` or nothing.
            config: Says where pulled files are.

        Raises:
            MissingModel: A catalogue name that was not pulled.
            ConfigError: The files are not there or not of the expected form.
        """
        unknown = set(settings) - {"max_chars"}
        if unknown:
            raise ConfigError(
                f"The static encoder has no setting {', '.join(sorted(unknown))}.",
                remedy="Known: max_chars",
            )
        if not rest:
            folder = _wordllama_folder()
            return cls(folder / WORDLLAMA_WEIGHTS, folder / WORDLLAMA_TOKENIZER, **settings)
        folder = model_folder(rest, "encoder", config)
        return cls(
            folder / "model.safetensors",
            folder / "tokenizer.json",
            name=f"static:{rest}",
            skip_unknown=True,
            **settings,
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over everything a vector depends on: equal prints give equal vectors."""
        return fingerprint(self._files, f"static {self.max_chars} {self._unknown}")

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit rows ``[n, dim]``, float32; a text without any known token is a zero row.

        Args:
            texts: Any texts; only the first ``max_chars`` characters of each count.
        """
        rows = np.zeros((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            rows[start : start + len(batch)] = self._encode_batch(batch)
        return rows

    def _encode_batch(self, texts: Sequence[str]) -> Floats:
        cut = [clean(text[: self.max_chars]) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(cut, add_special_tokens=False)
        tokens = [encoding.ids for encoding in encodings]
        counts = np.fromiter(map(len, tokens), np.int64, len(tokens))
        flat = np.fromiter(chain.from_iterable(tokens), np.int64, int(counts.sum()))
        ends = np.concatenate([[0], np.cumsum(counts)])
        weight = np.ones(len(flat), np.float32)
        if self._token_weights is not None:
            weight = self._token_weights[flat]
        if self._unknown >= 0:
            weight = np.where(flat == self._unknown, np.float32(0), weight)
        columns = flat if self._mapping is None else self._mapping[flat]
        if len(texts) == 1:  # half the time of building a sparse matrix first
            return unit_rows((weight @ self._matrix.take(columns, axis=0))[None])
        bag = csr_matrix((weight, columns, ends), shape=(len(texts), len(self._matrix)))
        # The mean and the sum point the same way, and only the direction is kept.
        return unit_rows(np.asarray(bag @ self._matrix, np.float32))


def unit_rows(rows: Floats) -> Floats:
    """Rows divided by their length; zero rows stay zero."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, length, out=np.zeros_like(rows), where=length > 0))


def clean(text: str) -> str:
    """The text with lone surrogates replaced: they are no characters and no tokenizer takes them."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def fingerprint(files: Sequence[Path], settings: str) -> str:
    """SHA-256 (hex) of some files' contents and a line of settings; names and places do not count."""
    digest = hashlib.sha256(settings.encode())
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def model_folder(name: str, kind: str, config: Config) -> Path:
    """The folder of a catalogue name or of a path.

    Args:
        name: Either.
        kind: Of the catalogue's entries, such as ``"encoder"``.
        config: Says where pulled files are.

    Raises:
        MissingModel: In the catalogue, but not pulled.
        ConfigError: Neither in the catalogue nor a folder.
    """
    if name in CATALOGUE and CATALOGUE[name].kind == kind:
        return locate(name, config)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        known = ", ".join(e.name for e in CATALOGUE.values() if e.kind == kind)
        raise ConfigError(
            f"Got the {kind} {name!r}, but expected a folder or one of the catalogue's {kind}s.",
            remedy=f"Known: {known}",
        )
    return folder


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a ``tokenizer.json``.

    Raises:
        ConfigError: It is not there or is no tokenizer.
    """
    try:
        text = path.read_text("utf-8")
        is_tokenizer = "model" in json.loads(text)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"The tokenizer {path} cannot be read: {error}.") from error
    if not is_tokenizer:
        raise ConfigError(f"{path} is no tokenizer file: it has no 'model'.")
    return Tokenizer.from_str(text)


def _read_weights(
    path: Path,
) -> tuple[Floats, Floats | None, NDArray[np.int64] | None]:
    try:
        with safe_open(path, framework="numpy") as tensors:
            found = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"The weights {path} cannot be read: {error}.") from error
    name = next((n for n in _MATRIX_NAMES if n in found), None)
    if name is None or found[name].ndim != 2:
        raise ConfigError(
            f"{path} has the tensors {', '.join(sorted(found))}, but expected a matrix named "
            f"{' or '.join(_MATRIX_NAMES)}."
        )
    matrix = np.ascontiguousarray(found[name], np.float32)
    weights = found.get("weights")
    mapping = found.get("mapping")
    return (
        matrix,
        None if weights is None else np.asarray(weights, np.float32).ravel(),
        None if mapping is None else np.asarray(mapping, np.int64).ravel(),
    )


def _wordllama_folder() -> Path:
    """Where the ``wordllama`` package lies, found without importing it."""
    spec = importlib.util.find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise MissingModel("static")
    folder = Path(spec.origin).parent
    if not (folder / WORDLLAMA_WEIGHTS).exists():
        raise ConfigError(
            f"The installed wordllama package has no {WORDLLAMA_WEIGHTS}.",
            remedy='pip install --force-reinstall "wordllama>=0.4.0.post1,<0.5"',
        )
    return folder
