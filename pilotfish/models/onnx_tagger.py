"""Token classifiers as ONNX files: which parts of a text are a name, an address, an account.

A folder holds ``model.onnx`` (a transformer that gives each token a logit for every label),
``tokenizer.json``, and ``config.json`` whose ``id2label`` names the labels: ``O`` for nothing, else
``B-KIND`` where something begins and ``I-KIND`` where it goes on (Ramshaw and Marcus 1995).

A text is read in windows of some hundred characters that overlap, so that its length has no limit and
what stands at an edge is seen whole in the next one. Each window is run alone: quantised networks round
by what else is in the batch, and what is found in a text must not depend on its neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from pilotfish.config import Config
from pilotfish.errors import ConfigError
from pilotfish.models.onnx import OnnxNetwork
from pilotfish.models.protocols import Floats
from pilotfish.models.redaction import Found
from pilotfish.models.settings import read_settings
from pilotfish.models.static import clean, model_folder, read_tokenizer

NOTHING = "O"
MAX_TOKENS = 512
SHARED_TOKENS = 64  # of two windows, where characters are more than a token each


class OnnxTaggerSettings(msgspec.Struct, kw_only=True, frozen=True):
    """What the ONNX tagger can be told.

    Attributes:
        window: Characters that are read at once. Longer ones are not better: what the catalogue's model
            learned from were single messages.
        overlap: Characters that two windows share; the longest thing that is surely found whole.
        threads: Threads per run; 0: as many as there are cores.
    """

    window: Annotated[int, msgspec.Meta(ge=16)] = 480
    overlap: Annotated[int, msgspec.Meta(ge=1)] = 80
    threads: Annotated[int, msgspec.Meta(ge=0)] = 1


class OnnxTagger:
    """Parts of texts and their labels by a token classifier. Threads may share one.

    Args:
        folder: Holds ``model.onnx``, ``tokenizer.json`` and ``config.json``.
        name: The name it goes by: the spec that loads it again.
        settings: See :class:`OnnxTaggerSettings`.

    Attributes:
        name: As given.
        labels: What it can find, without the marks of the beginning.

    Raises:
        ConfigError: A file is missing or is not of the expected form.
    """

    def __init__(
        self, folder: Path, *, name: str = "", settings: OnnxTaggerSettings | None = None
    ) -> None:
        settings = settings or OnnxTaggerSettings()
        if settings.overlap > settings.window // 2:
            raise ConfigError(
                f"Got overlap = {settings.overlap} with window = {settings.window}, but expected at most "
                "half of it."
            )
        self.name = name or f"onnx:{folder}"
        self._settings = settings
        self._tokenizer = read_tokenizer(folder / "tokenizer.json")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS, stride=SHARED_TOKENS)
        self._network = OnnxNetwork(folder / "model.onnx", settings.threads)
        names = _label_names(folder / "config.json")
        kinds = [label.partition("-")[2] or label for label in names]
        self.labels = tuple(dict.fromkeys(k for k in kinds if k != NOTHING))
        self._of = np.array([-1 if k == NOTHING else self.labels.index(k) for k in kinds])
        self._begins = np.array([label.startswith("B-") for label in names])

    @classmethod
    def from_spec(cls, rest: str, settings: Mapping[str, Any], config: Config) -> OnnxTagger:
        """Build the tagger that ``onnx:REST`` names: a catalogue name or a folder.

        Raises:
            MissingModel: A catalogue name that was not pulled.
            ConfigError: No such folder, or a setting is wrong.
        """
        checked = read_settings("onnx", OnnxTaggerSettings, settings)
        return cls(model_folder(rest, "tagger", config), name=f"onnx:{rest}", settings=checked)

    def find(self, texts: Sequence[str], min_probability: float = 0.5) -> list[list[Found]]:
        """What stands in each text: in order, none overlapping, whole words.

        Args:
            texts: Any.
            min_probability: A token counts when its labels but ``O`` have at least so much together.
        """
        return [self._find(text, min_probability) for text in texts]

    def _find(self, text: str, least: float) -> list[Found]:
        found = [
            Found(start + f.start, start + f.end, f.kind)
            for start, end in windows(text, self._settings.window, self._settings.overlap)
            for f in self._find_in_window(clean(text[start:end]), least)
        ]
        return _joined(sorted(found))

    def _find_in_window(self, text: str, least: float) -> Iterator[Found]:
        if not text.strip():
            return
        whole = self._tokenizer.encode(text)
        for part in (whole, *whole.overflowing):
            logits, _ = self._network([part.ids])
            words = part.word_ids
            yield from self._decode(text, logits[0], words, _word_spans(words, part.offsets), least)

    def _decode(
        self,
        text: str,
        logits: Floats,
        words: Sequence[int | None],
        spans: Mapping[int, tuple[int, int]],
        least: float,
    ) -> Iterator[Found]:
        """Words of one label that follow each other, as one."""
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        something = shares[:, self._of >= 0].sum(axis=1) >= least
        sums = np.stack(
            [shares[:, self._of == k].sum(axis=1) for k in range(len(self.labels))], axis=1
        )
        best = sums.argmax(axis=1)
        begins = self._begins[np.where(self._of == best[:, None], shares, 0).argmax(axis=1)]
        current: Found | None = None
        for i in np.flatnonzero(something).tolist():
            word = words[i]
            if word is None:  # a special token
                continue
            start, end = spans[word]
            kind = self.labels[best[i]]
            if current and current.kind == kind and _goes_on(text, current, start, begins[i]):
                current = Found(current.start, max(current.end, end), kind)
                continue
            if current:
                yield current
            current = Found(start, end, kind)
        if current:
            yield current


def windows(text: str, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Where windows of at most ``size`` characters begin and end, at blanks where there are any.

    >>> [("ab cd ef gh"[a:b]) for a, b in windows("ab cd ef gh", 6, 2)]
    ['ab cd ', 'cd ef ', 'ef gh']
    """
    start = 0
    while True:
        end = min(start + size, len(text))
        yield start, end
        if end == len(text):
            return
        shared = end - overlap
        blank = text.rfind(" ", max(start + 1, shared - overlap), shared)
        start = shared if blank < 0 else blank + 1


def _goes_on(text: str, before: Found, start: int, begins: np.bool_) -> bool:
    """Whether a word belongs to what was found before it: it is in it, or next and begins nothing new."""
    between = text[before.end : start]
    return start <= before.end if begins else not between.strip()


def _word_spans(
    words: Sequence[int | None], offsets: Sequence[tuple[int, int]]
) -> dict[int, tuple[int, int]]:
    """Where each word of the tokenizer stands: a classifier may see only a part of one."""
    spans: dict[int, tuple[int, int]] = {}
    for word, (start, end) in zip(words, offsets, strict=True):
        if word is not None:
            spans[word] = (min(start, spans.get(word, (start,))[0]), end)
    return spans


def _joined(found: Sequence[Found]) -> list[Found]:
    """Finds that overlap, which two windows or two parts of a word gave, as one of the longer's kind."""
    joined: list[Found] = []
    for one in found:
        if not joined or one.start >= joined[-1].end:
            joined.append(one)
            continue
        last = joined[-1]
        kind = last.kind if last.end - last.start >= one.end - one.start else one.kind
        joined[-1] = Found(last.start, max(last.end, one.end), kind)
    return joined


def _label_names(path: Path) -> list[str]:
    try:
        names: dict[str, str] = json.loads(path.read_text("utf-8"))["id2label"]
        labels = [names[str(i)] for i in range(len(names))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} has no labels: {error!r}.", remedy='Expected "id2label": {"0": "O", ...}'
        ) from error
    if NOTHING not in labels or len(labels) < 2:
        raise ConfigError(
            f"{path} has the labels {', '.join(labels)}, but expected {NOTHING} and more."
        )
    return labels
