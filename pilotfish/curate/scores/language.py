"""Which language a text is in, and how sure that is; keep some languages.

Three things are added up, as logarithms: py3langid's naive Bayes model
(:mod:`pilotfish.curate.scores.byte_bayes`), a little of how much of the web is in each language
(:mod:`pilotfish.curate.scores.web_languages`), and the vote of CLD2
(:mod:`pilotfish.curate.scores.cld2`). The vote is asked for only where it can change the answer: where
the best two are closer than what it weighs, one short text in twenty.

The two weights were chosen on messages of one half of a system's programs, and hold on those of the other
half and on two sets of other origin (``benchmarks/languages.py``). A vote that decides where the model is
unsure, in place of being weighed, was measured too: it gains 0.1% at best.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pilotfish.curate.rules.arrow import to_arrow
from pilotfish.curate.scores import cld2
from pilotfish.curate.scores.byte_bayes import ByteNaiveBayes, Floats, load
from pilotfish.curate.scores.web_languages import log_shares
from pilotfish.curate.step import TEXT, Verdict
from pilotfish.errors import ConfigError, UnknownName

SHARE_WEIGHT = 0.05  # of the logarithm of a language's share of the web
VOTE_WEIGHT = 0.5  # of a vote for all of a text
LEAST = 1e-30  # a probability below that of a single-precision number
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
        expect: ``"web"``: of two neighbours the one that the web has more of is a little more likely.
            ``"any"``: all languages are equally likely before a text is read.
        second_opinion: Ask CLD2 too where the best two languages are close.
        tag: Keep all rows.

    Raises:
        ConfigError: A number is out of range.
        UnknownName: A language that the model does not know, or an expectation that is none of the two.
        MissingExtra: py3langid or pycld2 is not installed.
    """

    name = "language"

    def __init__(
        self,
        keep: tuple[str, ...] = (),
        min_confidence: float = 0.0,
        among: tuple[str, ...] = (),
        max_chars: int = 1000,
        expect: Literal["web", "any"] = "web",
        second_opinion: bool = True,
        tag: bool = False,
    ) -> None:
        if not 0 <= min_confidence <= 1 or max_chars < 1:
            raise ConfigError(
                f"The step 'language': got min_confidence = {min_confidence} and max_chars = "
                f"{max_chars}, but expected 0 to 1 and at least 1."
            )
        if expect not in ("web", "any"):
            raise UnknownName("expect of the step 'language':", expect, ("web", "any"))
        known = sorted(set(load().classes))
        for code in (*keep, *among):
            if code not in known:
                raise UnknownName("language", code, known)
        if among and not set(keep) <= set(among):
            raise ConfigError(
                f"The step 'language': got keep = {list(keep)}, but expected some of among = "
                f"{list(among)}."
            )
        if second_opinion:
            cld2.load()
        self.keep = tuple(keep)
        self.min_confidence = min_confidence
        self.among = tuple(among)
        self.max_chars = max_chars
        self.expect = expect
        self.second_opinion = second_opinion
        self.tag = tag

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Identify; the margin is the distance of the confidence from ``min_confidence``."""
        model = _among(self.among)
        texts = pc.utf8_slice_codeunits(batch.column(TEXT), 0, self.max_chars).to_pylist()
        probabilities, known = self.probabilities(model, texts)
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

    def probabilities(
        self, model: ByteNaiveBayes, texts: Sequence[str]
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """As :meth:`ByteNaiveBayes.probabilities`, with what is expected and the second opinion."""
        found, known = model.probabilities(texts)
        if self.expect == "any" and not self.second_opinion:
            return found, known
        scores = np.log(np.maximum(found, LEAST))
        if self.expect == "web":
            scores += SHARE_WEIGHT * log_shares(model.classes)
        if self.second_opinion and len(model.classes) > 1:
            place = {code: i for i, code in reversed(list(enumerate(model.classes)))}
            best = np.partition(scores, -2, axis=1)[:, -2:]
            for i in np.flatnonzero(known & (best[:, 1] - best[:, 0] < VOTE_WEIGHT)).tolist():
                code, share = cld2.vote(texts[i])
                if code in place:
                    scores[i, place[code]] += VOTE_WEIGHT * share
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores, known


@functools.lru_cache(maxsize=4)
def _among(languages: Sequence[str]) -> ByteNaiveBayes:
    return load().only(languages) if languages else load()
