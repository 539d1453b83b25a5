"""One field of an extracted object: how it can be learned, and the student that does it.

Few values: a classifier of the whole text, one class each. Values that stand in the text: a tagger. A
field that may be both is cross-fitted as both, and the one that is right more often is kept. A field
that is neither (a summary, a computed sum, a list of objects) cannot be learned, and the reason is said.
Lists of things that stand in the text have a tagger of their own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pilotfish.distill.list_tagger import EMPTY, ListTagger, choose_items, fit_list_tagger
from pilotfish.distill.objects import Path, name_of
from pilotfish.distill.spans import choose_spans, meant
from pilotfish.distill.student import Student, fit_and_crossfit, restore_student, student_files
from pilotfish.distill.tagger import OTHER, Tagger, fit_tagger
from pilotfish.distill.tokens import Ints, Matrix, Tokens, Vocabulary
from pilotfish.errors import InputError
from pilotfish.models.protocols import Encoder
from pilotfish.records import Inputs

MOST_CLASSES = 50
CLOSED = 0.9  # share of the inputs whose value must be one of the classes
FOUND = 0.5  # share of the values that must stand in the text
FREQUENT = 0.01  # share of the inputs that makes a value that does not stand there a fixed one
MOST_FIXED = 10
GOOD_ENOUGH = 0.99  # agreement of a tagger beside which no classifier is tried

Doubles = NDArray[np.float64]
Best = tuple[str, float]  # a value as canonical JSON, and its probability
State = tuple[dict[str, Any], dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class Texts:
    """Inputs, and what taggers see of them.

    Attributes:
        inputs: ``n`` inputs.
        tokens: Their tokens ``[n]``.
        columns: Features of all tokens ``[t, 15]``.
        bags: Words of each text ``[n]``.
    """

    inputs: Inputs
    tokens: Sequence[Tokens]
    columns: Ints
    bags: Sequence[Ints]

    @classmethod
    def of(cls, inputs: Inputs, vocabulary: Vocabulary) -> Texts:
        """Read inputs."""
        tokens = [Tokens.of(text) for text in inputs.texts]
        bags = [vocabulary.bag(one) for one in tokens]
        return cls(inputs, tokens, vocabulary.columns(tokens), bags)

    def each(self) -> Iterator[tuple[Tokens, Ints, Ints]]:
        """Tokens, their features and the words of one text after the other."""
        first = 0
        for tokens, bag in zip(self.tokens, self.bags, strict=True):
            yield tokens, self.columns[first : first + len(tokens)], bag
            first += len(tokens)


@dataclass(frozen=True)
class FitField:
    """What all fields are fitted with.

    Attributes:
        texts: The inputs.
        features: Of their tokens.
        bags: Of their words.
        weights: How many inputs each stands for ``[n]``.
        fold: ``[n]``.
        encoder: For classifiers.
        seed: Of random choices.
    """

    texts: Texts
    features: Matrix
    bags: Matrix
    weights: Doubles
    fold: Ints
    encoder: Encoder | None
    seed: int


class Maker(Protocol):
    """What gives a field's values."""

    def best(self, texts: Texts) -> list[Best]:
        """The most probable value of each text, and its probability."""
        ...

    def state(self) -> State:
        """JSON settings and arrays."""
        ...


@dataclass(frozen=True)
class Closed:
    """A field of few values.

    Attributes:
        student: Its classes are canonical JSON, "" for an absent key, "?" for a rare value.
    """

    student: Student

    def best(self, texts: Texts) -> list[Best]:
        """See :class:`Maker`."""
        return best_class(self.student.predict_proba(texts.inputs), self.student.classes)

    def state(self) -> State:
        """See :class:`Maker`."""
        card, arrays, _ = student_files(self.student)
        return {"made": "classified", "student": card}, arrays


@dataclass(frozen=True)
class Tagged:
    """A field whose values stand in the text."""

    tagger: Tagger

    def best(self, texts: Texts) -> list[Best]:
        """See :class:`Maker`."""
        return [best_value(self.tagger.predict(*one)) for one in texts.each()]

    def state(self) -> State:
        """See :class:`Maker`."""
        settings, arrays = self.tagger.state()
        return {"made": "tagged", "tagger": settings}, arrays


@dataclass(frozen=True)
class Listed:
    """A field whose values are lists of things that stand in the text."""

    tagger: ListTagger

    def best(self, texts: Texts) -> list[Best]:
        """See :class:`Maker`."""
        return [self.tagger.predict(tokens, columns) for tokens, columns, _ in texts.each()]

    def state(self) -> State:
        """See :class:`Maker`."""
        settings, arrays = self.tagger.state()
        return {"made": "listed", "tagger": settings}, arrays


@dataclass(frozen=True)
class FieldStudent:
    """A fitted field.

    Attributes:
        path: Its keys.
        maker: What gives its values.
        usual: Its most frequent value: given where nothing else can be.
        decimal: Its numbers are all written with a decimal point.
    """

    path: Path
    maker: Maker
    usual: str
    decimal: bool = False

    def best(self, texts: Texts) -> list[Best]:
        """The most probable value of each text, and its probability."""
        found = self.maker.best(texts)
        return [(self.usual, p) if key == OTHER else (key, p) for key, p in found]

    def written(self, key: str) -> Any:
        """The value that a canonical one stands for."""
        value = json.loads(key)
        whole = isinstance(value, int) and not isinstance(value, bool)
        return float(value) if self.decimal and whole else value

    def state(self) -> State:
        """JSON settings and arrays that :func:`restore_field` rebuilds it from."""
        settings, arrays = self.maker.state()
        own = {"path": list(self.path), "usual": self.usual, "decimal": self.decimal}
        return own | settings, arrays


def restore_field(
    settings: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    load_encoder: Callable[[str], Encoder],
) -> FieldStudent:
    """Rebuild a field."""
    maker: Maker
    if settings["made"] == "tagged":
        maker = Tagged(Tagger.restore(settings["tagger"], arrays))
    elif settings["made"] == "listed":
        maker = Listed(ListTagger.restore(settings["tagger"], arrays))
    else:
        maker = Closed(restore_student(settings["student"], arrays, load_encoder))
    return FieldStudent(
        tuple(settings["path"]), maker, str(settings["usual"]), bool(settings["decimal"])
    )


def best_class(proba: NDArray[np.float32], classes: Sequence[str]) -> list[Best]:
    """The most probable class of each row that is a value; :data:`OTHER` has its own probability only."""
    allowed = np.array([name != OTHER for name in classes])
    at = np.where(allowed, proba, -1.0).argmax(axis=1)
    return [(classes[i], float(row[i])) for i, row in zip(at, proba, strict=True)]


def best_value(found: Mapping[str, float]) -> Best:
    """The same for a tagger's answer; :data:`OTHER` where nothing else may be."""
    key = max((k for k in found if k != OTHER), key=lambda k: found[k], default=OTHER)
    return key, 0.0 if key == OTHER else min(found[key], 1.0)


def fit_field(
    path: Path, keys: Sequence[str], values: Sequence[Any], setting: FitField
) -> tuple[FieldStudent, list[Best]]:
    """Fit a field the best way that its values allow.

    Args:
        path: Its keys.
        keys: Recorded values as canonical JSON ``[n]``, "" where absent.
        values: Those that are there, as they were recorded.
        setting: Inputs, weights, folds.

    Returns:
        The field, and its out-of-fold answers ``[n]``.

    Raises:
        InputError: It cannot be learned.
    """
    counts = Counter(keys)
    usual = counts.most_common(1)[0][0]
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    decimal = bool(numbers) and all(isinstance(v, float) for v in numbers)
    tried: list[tuple[float, Maker, list[Best]]] = []
    tagged = _fit_listed(keys, setting) or _fit_tagged(keys, setting)
    if tagged is not None:
        tried.append((_agreement(tagged[1], keys, setting), *tagged))
    if not tried or tried[0][0] < GOOD_ENOUGH:
        closed = _fit_closed(keys, setting)
        if closed is not None:
            tried.append((_agreement(closed[1], keys, setting), *closed))
    if not tried:
        raise InputError(
            _why(path, keys, counts), remedy="The large model keeps answering the task."
        )
    _, maker, held = max(tried, key=lambda row: row[0])
    return FieldStudent(path, maker, usual, decimal), held


def _agreement(held: Sequence[Best], keys: Sequence[str], setting: FitField) -> float:
    right = [best == key for (best, _), key in zip(held, keys, strict=True)]
    return float(np.average(right, weights=setting.weights))


def _fit_closed(keys: Sequence[str], setting: FitField) -> tuple[Maker, list[Best]] | None:
    counts = Counter(keys)
    least = 1 if len(counts) <= 2 else 2
    classes = [key for key, count in counts.most_common(MOST_CLASSES) if count >= least]
    if sum(counts[key] for key in classes) < CLOSED * len(keys):
        return None
    number = {key: i for i, key in enumerate(classes)}
    if len(number) < len(counts):
        classes.append(OTHER)
    targets = np.array([number.get(key, len(number)) for key in keys])
    student, proba = fit_and_crossfit(
        "tfidf-linear" if setting.encoder is None else "tfidf-embedding-linear",
        setting.texts.inputs,
        targets,
        classes=tuple(classes),
        weights=setting.weights,
        encoder=setting.encoder,
        seed=setting.seed,
    )
    return Closed(student), best_class(proba, classes)


def _fit_tagged(keys: Sequence[str], setting: FitField) -> tuple[Maker, list[Best]] | None:
    plain = [i for i, key in enumerate(keys) if _is_plain(key)]
    if len({keys[i] for i in plain}) < 3:
        return None
    tokens = setting.texts.tokens
    chosen = choose_spans([tokens[i] for i in plain], [keys[i] for i in plain])
    if chosen is None or chosen[1] < FOUND:
        return None
    spans = chosen[0]
    there = [_is_plain(k) and bool(meant(t, spans, k)) for t, k in zip(tokens, keys, strict=True)]
    fixed = _fixed([key for key, found in zip(keys, there, strict=True) if not found], len(keys))
    tagger, held = fit_tagger(
        spans, fixed, tokens, keys, setting.weights, setting.fold, setting.features, setting.bags,
    )  # fmt: skip
    return Tagged(tagger), [best_value(one) for one in held]


def _fit_listed(keys: Sequence[str], setting: FitField) -> tuple[Maker, list[Best]] | None:
    lists = sum(key.startswith("[") for key in keys)
    if lists < FOUND * len(keys) or lists + sum(key in EMPTY for key in keys) < CLOSED * len(keys):
        return None
    tokens = setting.texts.tokens
    chosen = choose_items(tokens, keys)
    if chosen is None or chosen[1] < FOUND:
        return None
    tagger, held = fit_list_tagger(
        chosen[0], tokens, keys, setting.weights, setting.fold, setting.features, setting.bags
    )
    return Listed(tagger), held


def _is_plain(key: str) -> bool:
    """Whether a canonical value is a text or a number."""
    return key[:1] == '"' or key[:1].isdigit() or key[:1] == "-"


def _fixed(missing: Sequence[str], total: int) -> list[str]:
    """Values that come often without standing in the text: null, absent, "unknown"."""
    counts = Counter(missing)
    least = max(2.0, FREQUENT * total)
    return [key for key, count in counts.most_common(MOST_FIXED) if count >= least]


def _why(path: Path, keys: Sequence[str], counts: Counter[str]) -> str:
    lists = sum(key.startswith("[") for key in keys)
    what = (
        "is a list of things that are not found in the input"
        if 2 * lists > len(keys)
        else "stands too seldom in the input, word for word or in another notation"
    )
    return (
        f"The field {name_of(path)!r} cannot be learned: it {what}, and has {len(counts)} different "
        f"values in {len(keys)} answers."
    )
