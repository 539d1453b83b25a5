"""Whether a version's answer and the large model's count as the same, for every kind of task.

Closed answers are parsed and compared, which costs nothing. Two texts are put to the judge that the
version was certified with: only then does the watch test what the certificate promises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pilotfish.infer.decide import agrees
from pilotfish.loop.answers import Kind
from pilotfish.loop.equivalence import EquivalenceJudge
from pilotfish.loop.learned import Loaded
from pilotfish.loop.reuse import ReuseModel
from pilotfish.models.load import Models
from pilotfish.models.redaction import find_redactor
from pilotfish.records import Request
from pilotfish.store.store import Store
from pilotfish.store.versions import Version


class Comparer:
    """Compares answers; keeps the judges.

    Args:
        store: Where verdicts are kept.
        models: Where judges come from.
    """

    def __init__(self, store: Store, models: Models) -> None:
        self._store = store
        self._models = models
        self._judges: dict[tuple[str, str, str], EquivalenceJudge] = {}

    async def agreed(
        self,
        loaded: Loaded,
        version: Version,
        request: Request,
        answers: tuple[str, str],
        large: str,
        marks: Mapping[str, object],
        about: Sequence[str],
    ) -> bool:
        """Whether the version's answer and the large model's are the same.

        Args:
            loaded: The version.
            version: What the store has of it.
            request: What was asked.
            answers: The version's answer, and the large model's.
            large: Spec of the large model, which judges where the version names no judge.
            marks: The task's.
            about: Ids of the requests that the texts are from.

        Raises:
            ModelError: The judge cannot be reached.
            ConfigError: The judge is not declared here.
        """
        if not isinstance(loaded.small, ReuseModel):
            return same(kind_of_version(loaded), *answers)
        judge = self._judge(
            version.task,
            str(version.settings.get("judge") or large),
            str(marks.get("redact") or ""),
        )
        return (await judge.compare(request.prompt, *answers, about)).equivalent

    def _judge(self, task: str, spec: str, redact: str) -> EquivalenceJudge:
        """One for all comparisons, so that the same pair under way twice is asked about once."""
        key = (task, spec, redact)
        if key not in self._judges:
            model = self._models.load(spec)
            self._judges[key] = EquivalenceJudge(model, self._store, task, find_redactor(redact))
        return self._judges[key]


def counts(loaded: Loaded, request_id: str, score: float) -> bool:
    """Whether a request is evidence on what a version promises.

    Closed answers: all requests are, for the promise is about all answers of the task. Reused answers:
    those that are reused, for the promise is about these; not the very requests that they are from.
    """
    if not isinstance(loaded.small, ReuseModel):
        return True
    return score >= loaded.threshold and request_id not in loaded.small.known


def is_judged(loaded: Loaded) -> bool:
    """Whether a comparison may cost a verdict."""
    return isinstance(loaded.small, ReuseModel)


def sources(loaded: Loaded, answer: str) -> tuple[str, ...]:
    """The requests that a reused answer is from; none for an answer that was made."""
    return loaded.small.sources(answer) if isinstance(loaded.small, ReuseModel) else ()


def kind_of_version(loaded: Loaded) -> Kind:
    """How answers of a version's task are read."""
    task = loaded.small.task
    return Kind(task.kind, tuple(task.labels), task.range)


def same(kind: Kind, small: str, large: str) -> bool:
    """Whether a small and a large answer count as the same."""
    canonical = kind.parse(small)
    return canonical is not None and agrees(canonical, kind.parse(large), kind.kind)
