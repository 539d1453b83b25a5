"""py3langid's naive Bayes over byte n-grams, for many texts at once.

py3langid (Barbaresi's fork of langid.py, Lui and Baldwin 2012) walks an automaton over the bytes of a
text, counts the n-grams that it meets, and adds their log-likelihoods under 142 classes. It does so text
by text in Python. Here all texts of a chunk take their next byte together, and the scores of all are one
product of a sparse matrix; the answers are the same to rounding.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pilotfish.errors import MissingExtra

Floats = NDArray[np.float32]

CHUNK = (
    1000  # texts; the states of 1,000 texts stay in the processor's cache, those of 4,000 do not
)
_CELLS = 1 << 20  # and bytes, counted as if all of a chunk's texts were as long as its longest


@dataclass(frozen=True)
class ByteNaiveBayes:
    """The automaton and the log-likelihoods.

    Attributes:
        classes: Language codes, ISO 639-1 where there is one, else 639-3.
        rows: Where the transitions of each state begin, ``[states]``.
        transitions: The next state, at ``rows[state] + byte``.
        features: The n-gram that is complete in each state, ``[states]``; -1 for none.
        likelihoods: Of each n-gram in each language, logarithms, ``[n-grams, classes]``.
        priors: Of each language, logarithms, ``[classes]``.
        doubles: Pairs of classes (a language in two scripts) that are one language.
    """

    classes: tuple[str, ...]
    rows: NDArray[np.int64]
    transitions: NDArray[np.int32]
    features: NDArray[np.int32]
    likelihoods: Floats
    priors: Floats
    doubles: tuple[tuple[int, int], ...]

    def only(self, languages: Sequence[str]) -> ByteNaiveBayes:
        """The same among fewer languages."""
        at = [i for i, code in enumerate(self.classes) if code in set(languages)]
        place = {i: j for j, i in enumerate(at)}
        return ByteNaiveBayes(
            tuple(self.classes[i] for i in at),
            self.rows,
            self.transitions,
            self.features,
            np.ascontiguousarray(self.likelihoods[:, at]),
            self.priors[at],
            tuple((place[i], place[j]) for i, j in self.doubles if i in place),
        )

    def probabilities(self, texts: Sequence[str]) -> tuple[Floats, NDArray[np.bool_]]:
        """Of each language for each of ``n`` texts.

        Returns:
            Probabilities ``[n, classes]``, rows sum to 1; and which texts have any known n-gram.
        """
        data = [_encode(text) for text in texts]
        lengths = np.fromiter(map(len, data), np.int64, len(data))
        order = np.argsort(-lengths, kind="stable")
        found = np.empty((len(data), len(self.classes)), np.float32)
        known = np.empty(len(data), np.bool_)
        first = 0
        while first < len(data):
            longest = max(int(lengths[order[first]]), 1)
            part = order[first : first + max(1, min(CHUNK, _CELLS // longest))]
            found[part], known[part] = self._score([data[i] for i in part], lengths[part])
            first += len(part)
        return found, known

    def _score(
        self, data: list[bytes], lengths: NDArray[np.int64]
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """The same for one chunk, whose texts are in descending order of length."""
        n, width = len(data), len(self.likelihoods)
        visits = self._walk(data, lengths)
        where = np.flatnonzero(visits >= 0)
        keys = visits.ravel()[where] + where % n * width
        keys.sort()
        new = np.ones(len(keys), np.bool_)
        np.not_equal(keys[1:], keys[:-1], out=new[1:])
        at = np.flatnonzero(new)
        counts = np.diff(np.append(at, len(keys)))
        keys = keys[at]
        owner = keys // width
        starts = np.searchsorted(owner, np.arange(n + 1))
        weights = np.log1p(counts.astype(np.float32))
        seen = sp.csr_array((weights, keys - owner * width, starts), shape=(n, width))
        scores: Floats = seen @ self.likelihoods + self.priors
        known: NDArray[np.bool_] = np.diff(starts) > 0
        scores[~known] = 0
        # The square root of the bytes keeps probabilities calibrated at every length (py3langid).
        scores /= np.sqrt(np.maximum(lengths, 1)).astype(np.float32)[:, None]
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        for i, j in self.doubles:
            scores[:, i] += scores[:, j]
            scores[:, j] = 0
        return scores, known

    def _walk(self, data: list[bytes], lengths: NDArray[np.int64]) -> NDArray[np.int32]:
        """The n-gram that ends at each byte of each text, or -1: ``[longest, n]``."""
        longest = int(lengths[0])
        codes = np.frombuffer(b"".join(data), np.uint8)
        place = np.cumsum(lengths) - lengths
        reading = np.searchsorted(-lengths, -np.arange(1, longest + 1), side="right")
        visits = np.full((longest, len(data)), -1, np.int32)
        states = np.zeros(len(data), np.int32)
        for i, k in enumerate(reading.tolist()):
            states = self.transitions[self.rows[states[:k]] + codes[place[:k] + i]]
            visits[i, :k] = self.features[states]
        return visits


def _encode(text: str) -> bytes:
    if text.isupper():
        text = text.lower()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return text.encode("utf-8", "surrogatepass")


@functools.cache
def load() -> ByteNaiveBayes:
    """py3langid's model, read once per process: 0.7 s and 100 MB.

    Raises:
        MissingExtra: py3langid is not installed.
    """
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise MissingExtra("The step 'language'", "curate") from None
    model: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    kind = model.tk_nextmove.typecode
    return ByteNaiveBayes(
        tuple(model.nb_classes),
        np.asarray(model.tk_row, np.int64) << 8,
        np.frombuffer(model.tk_nextmove, kind).astype(np.int32),
        np.asarray(model.tk_output, np.int32),
        model.nb_ptc.astype(np.float32),
        model.nb_pc.astype(np.float32),
        tuple(model._alias_pairs),
    )
