"""Which language a text is in, and how sure that is; keep some languages.

By py3langid's naive Bayes model (:mod:`pilotfish.curate.byte_bayes`). A second opinion of pycld2 was
measured and left out: where the model is least sure it adds 0.1% of right answers at best, and it takes
more away as soon as it may decide more often (``benchmarks/curate_scores.py``).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pilotfish.curate.byte_bayes import ByteNaiveBayes, load
from pilotfish.curate.rules.arrow import to_arrow
from pilotfish.curate.step import TEXT, Verdict
from pilotfish.errors import ConfigError, UnknownName

UNSURE, OTHER = "language.unsure", "language.other"
UNDETERMINED = "und"  # ISO 639-3


class Language:
    """Add the columns ``language`` and ``language_confidence``; keep what is surely in some languages.

    Texts without letters of any known language are ``und`` with confidence 0.

    Args:
        keep: Codes such as ``en`` or ``de`` (ISO 639-1 where there is one); texts in others are dropped
            as ``language.other``. Empty: keep all.
        min_confidence: Texts whose language has a lower probability are dropped as ``language.unsure``;
            0 to 1.
        among: Choose among these languages only, where it is known that the data have no others. Helps
            where neighbours are hard to tell apart: Croatian without Bosnian, Indonesian without Malay.
        max_chars: How many characters of a text are read, from its beginning.
        tag: Keep all rows.

    Raises:
        ConfigError: A number is out of range.
        UnknownName: A language that the model does not know.
        MissingExtra: py3langid is not installed.
    """

    name = "language"

    def __init__(
        self,
        keep: tuple[str, ...] = (),
        min_confidence: float = 0.0,
        among: tuple[str, ...] = (),
        max_chars: int = 1000,
        tag: bool = False,
    ) -> None:
        if not 0 <= min_confidence <= 1 or max_chars < 1:
            raise ConfigError(
                f"The step 'language': got min_confidence = {min_confidence} and max_chars = "
                f"{max_chars}, but expected 0 to 1 and at least 1."
            )
        known = sorted(set(load().classes))
        for code in (*keep, *among):
            if code not in known:
                raise UnknownName("language", code, known)
        if among and not set(keep) <= set(among):
            raise ConfigError(
                f"The step 'language': got keep = {list(keep)}, but expected some of among = "
                f"{list(among)}."
            )
        self.keep = tuple(keep)
        self.min_confidence = min_confidence
        self.among = tuple(among)
        self.max_chars = max_chars
        self.tag = tag

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Identify; the margin is the distance of the confidence from ``min_confidence``."""
        model = _among(self.among)
        texts = pc.utf8_slice_codeunits(batch.column(TEXT), 0, self.max_chars).to_pylist()
        probabilities, known = model.probabilities(texts)
        best = probabilities.argmax(axis=1)
        confidence = np.where(known, probabilities.max(axis=1), 0).astype(np.float32)
        names = [*dict.fromkeys(model.classes), UNDETERMINED]
        code_of = np.array([names.index(code) for code in model.classes], np.int32)
        codes = np.where(known, code_of[best], len(names) - 1).astype(np.int32)
        columns = {
            "language": pa.DictionaryArray.from_arrays(to_arrow(codes), pa.array(names)),
            "language_confidence": to_arrow(confidence),
        }
        if self.tag:
            return Verdict(columns)
        reasons = np.full(len(codes), -1, np.int8)
        reasons[confidence < self.min_confidence] = 0
        if self.keep:
            kept = np.array([name in self.keep for name in names])
            reasons[(reasons < 0) & ~kept[codes]] = 1
        return Verdict(
            columns,
            pa.DictionaryArray.from_arrays(
                to_arrow(reasons, reasons >= 0), pa.array([UNSURE, OTHER])
            ),
            to_arrow(np.abs(confidence - self.min_confidence)) if self.min_confidence else None,
        )


@functools.lru_cache(maxsize=4)
def _among(languages: Sequence[str]) -> ByteNaiveBayes:
    return load().only(languages) if languages else load()
