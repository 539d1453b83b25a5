"""Find the recurring tasks in recorded traffic, and what each costs.

Requests that were made from one template are one task (:mod:`pilotfish.loop.recover`); what has no
template is put together by the meaning of its text. Templates are recovered from a sample and then
matched against every request, so the cost is linear in the traffic. A task is worth what the large
model costs for it; how much of that a small model could take over is estimated by cross-fitting a quick
student on the answers that are there, which asks nobody anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pilotfish.loop.answers import Kind, kind_of
from pilotfish.loop.recover import group, literal_parts, recover
from pilotfish.loop.task import Task
from pilotfish.loop.template import Template
from pilotfish.models.protocols import Encoder
from pilotfish.records import Request
from pilotfish.store.traffic import Recorded

FEWEST = 20  # requests of a task
MINED = 20_000  # requests that templates are recovered from
SHORTER_RUN = 4  # tokens: for what is left after the first look
ESTIMATED_ON = 300  # inputs that the quick student is tried on
ANSWERS_SEEN = 2_000  # that tell the kind
SEPARATOR = "\x1e"  # between the system prompt and the user's
CLOSE = 0.55  # cosine to the centre of a cluster of static embeddings
MOST_CLUSTERS = 100
_CONTENT = re.compile(r"[A-Za-z][A-Za-z0-9]+")
_EMPTY = frozenset(
    [
        "the",
        "and",
        "for",
        "with",
        "this",
        "that",
        "from",
        "are",
        "you",
        "your",
        "above",
        "following",
        "below",
        "answer",
        "text",
        "one",
        "only",
        "please",
        "word",
        "must",
        "will",
        "should",
        "what",
    ]
)


@dataclass(frozen=True)
class FoundTask:
    """A recurring task.

    Attributes:
        name: Short, of words of its prompt.
        prompt: The template of the user's message; "" when the texts have none in common.
        system: The system prompt.
        kind: ``"label"``, ``"rating"``, ``"extraction"`` or ``"text"``.
        labels: The closed set of a label or rating.
        range: Of a rating without a closed set.
        keys: Of an extraction.
        requests: How many.
        cost: US dollars that the large model costs for them, where known.
        unpriced: Requests of unknown cost.
        small: How many a small model has answered.
        servable: Share that a small model could answer at an agreement of 0.95, estimated; None when
            that could not be told.
        note: Why it cannot be learned, "" where it can or where that was not tried.
        examples: A few request ids.
        models: Who was asked, by the name in the request.
    """

    name: str
    prompt: str
    system: str
    kind: str
    labels: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    keys: tuple[str, ...] = ()
    requests: int = 0
    cost: float = 0.0
    unpriced: int = 0
    small: int = 0
    servable: float | None = None
    examples: tuple[str, ...] = ()
    models: Mapping[str, int] = field(default_factory=dict)
    note: str = ""

    @property
    def saving(self) -> float | None:
        """US dollars of these requests that a small model could save, before it is learned."""
        return None if self.servable is None else self.servable * self.cost

    def task(self) -> Task:
        """As the learning stages take it; for closed answers.

        Raises:
            InputError: The prompt has no place, or the labels cannot be told apart.
        """
        return Task(self.prompt, self.kind, self.labels, range=self.range, system=self.system)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"saving": self.saving}


def flat(request: Request | None) -> str | None:
    """System prompt and user message as one text; None for conversations and what is no plain text."""
    if request is None:
        return None
    roles = [message.get("role") for message in request.messages]
    if roles not in (["user"], ["system", "user"], ["developer", "user"]) or request.params.get(
        "tools"
    ):
        return None
    contents = [message.get("content") for message in request.messages]
    texts = [text for text in contents if isinstance(text, str)]
    if len(texts) < len(contents):
        return None
    return SEPARATOR.join(["", *texts] if len(texts) == 1 else texts)


class Matcher:
    """Tells to which known task a request belongs; a microsecond or two for each task.

    Args:
        tasks: Name to system prompt and template.
    """

    def __init__(self, tasks: Mapping[str, tuple[str, str]]) -> None:
        self._by_system: dict[str, list[tuple[str, Template, str, str]]] = {}
        for name, (system, prompt) in tasks.items():
            template = Template(prompt)
            parts = literal_parts(template)
            self._by_system.setdefault(system, []).append((name, template, parts[0], parts[-1]))
        for rows in self._by_system.values():  # the most specific first
            rows.sort(key=lambda row: -sum(map(len, literal_parts(row[1]))))

    def match(self, request: Request) -> tuple[str, dict[str, str]] | None:
        """The task's name and the values of its places, or None."""
        text = flat(request)
        return None if text is None else self.match_text(text)

    def match_text(self, text: str) -> tuple[str, dict[str, str]] | None:
        """The same for a text that :func:`flat` made."""
        system, _, user = text.partition(SEPARATOR)
        for name, template, start, end in self._by_system.get(system, ()):
            if user.startswith(start) and user.endswith(end):
                values = template.match(user)
                if values is not None:
                    return name, values
        return None


def find_tasks(
    traffic: Iterable[Recorded],
    *,
    encoder: Encoder | None = None,
    fewest: int = FEWEST,
    known: Mapping[str, tuple[str, str]] | None = None,
    estimate: bool = True,
    mined: int = MINED,
) -> list[FoundTask]:
    """The tasks of recorded traffic, the most expensive first.

    Args:
        traffic: Requests with their answers; those without texts are passed over.
        encoder: For what has no template and for the estimate; None leaves both out.
        fewest: Requests of a task.
        known: Tasks that have a name already: name to system prompt and template.
        estimate: Try a quick student on each closed task.
        mined: Requests that templates are recovered from.
    """
    rows = [
        (row, text) for row in traffic if usable(row) and (text := flat(row.request)) is not None
    ]
    texts = [text for _, text in rows]
    names = dict(known or {})
    step = max(1, len(texts) // mined)
    for system, prompt in templates(texts[::step], max(2, fewest // step), Matcher(names)):
        names[_name(system, prompt, names)] = (system, prompt)
    matcher = Matcher(names)
    members: dict[str, list[int]] = {}
    values: list[dict[str, str] | None] = []
    loose: list[int] = []
    for i, text in enumerate(texts):
        found = matcher.match_text(text)
        values.append(found[1] if found else None)
        (loose if found is None else members.setdefault(found[0], [])).append(i)
    tasks = []
    for name, at in members.items():
        if len(at) >= fewest:
            system, prompt = names[name]
            inputs = [Template(prompt).input_text(values[i] or {}) for i in at]
            tasks.append(
                _task(name, prompt, system, [rows[i][0] for i in at], inputs, encoder, estimate)
            )
    if encoder is not None and len(loose) >= fewest:
        for cluster in clusters([texts[i] for i in loose], encoder, fewest):
            at = [loose[j] for j in cluster]
            system = _shared_system([texts[i] for i in at])
            name = _name(
                "", " ".join(texts[i].partition(SEPARATOR)[2][:200] for i in at[:20]), names
            )
            names[name] = (system, "{text}")
            inputs = [texts[i].partition(SEPARATOR)[2] for i in at]
            tasks.append(_task(name, "", system, [rows[i][0] for i in at], inputs, encoder, False))
    return sorted(tasks, key=lambda task: (-task.cost, -task.requests, task.name))


def usable(row: Recorded) -> bool:
    """Whether a recorded request can be learned from: a chat with its texts and a whole answer."""
    return (
        row.endpoint == "chat"
        and row.status == 200
        and row.request is not None
        and row.completion is not None
        and not row.completion.tool_calls
    )


def templates(
    texts: Sequence[str], fewest: int, known: Matcher | None = None
) -> list[tuple[str, str]]:
    """System prompt and template of each group of texts that were made from one, largest first."""
    left = [text for text in texts if known is None or known.match_text(text) is None]
    found: list[tuple[str, str]] = []
    for run in (None, SHORTER_RUN):
        groups = group(left, fewest) if run is None else group(left, fewest, run)
        taken: set[int] = set()
        for at in groups:
            template = recover([left[i] for i in at])
            if template is None:
                continue
            system, separator, prompt = template.prompt.partition(SEPARATOR)
            fixed = system.replace("{{", "").replace("}}", "")
            if not separator or "{" in fixed or "{" not in prompt.replace("{{", ""):
                continue  # it is the system prompt that varies, or nothing does
            found.append((system.replace("{{", "{").replace("}}", "}"), prompt))
            taken.update(at)
        left = [text for i, text in enumerate(left) if i not in taken]
    return found


def clusters(texts: Sequence[str], encoder: Encoder, fewest: int) -> list[list[int]]:
    """Texts by meaning: each joins the nearest centre, or founds one; the largest first, in one pass."""
    vectors = encoder.encode([text.partition(SEPARATOR)[2][:2000] for text in texts])
    sums = np.zeros((MOST_CLUSTERS, vectors.shape[1]), np.float32)
    units = np.zeros_like(sums)
    members: list[list[int]] = []
    for i, vector in enumerate(vectors):
        near = units[: len(members)] @ vector
        best = int(near.argmax()) if len(near) else -1
        if best < 0 or (near[best] < CLOSE and len(members) < MOST_CLUSTERS):
            members.append([])
            best = len(members) - 1
        members[best].append(i)
        sums[best] += vector
        units[best] = sums[best] / max(float(np.linalg.norm(sums[best])), 1e-9)
    return sorted((m for m in members if len(m) >= fewest), key=lambda m: (-len(m), m[0]))


def price_of(row: Recorded) -> float | None:
    """What the large model costs for a request: its baseline, or its own cost where there is none."""
    return row.cost if row.baseline is None else row.baseline


def _task(
    name: str,
    prompt: str,
    system: str,
    rows: Sequence[Recorded],
    inputs: Sequence[str],
    encoder: Encoder | None,
    estimate: bool,
) -> FoundTask:
    answers = [row.completion.text if row.completion else "" for row in rows]
    kind = kind_of(answers[-ANSWERS_SEEN:])
    prices = [price_of(row) for row in rows]
    asked: dict[str, int] = {}
    for row in rows:
        asked[row.asked] = asked.get(row.asked, 0) + 1
    share: float | None = repeated(inputs)
    note = ""
    if estimate and encoder is not None and kind.closed:
        share = try_closed(kind, prompt, inputs, answers, encoder)
    elif estimate and encoder is not None and kind.kind == "extraction":
        share, note = try_objects(kind, inputs, answers, encoder)
    return FoundTask(
        name=name,
        prompt=prompt,
        system=system,
        kind=kind.kind,
        labels=kind.labels,
        range=kind.range,
        keys=kind.keys,
        requests=len(rows),
        cost=sum(price for price in prices if price is not None),
        unpriced=sum(price is None for price in prices),
        small=sum("@" in row.model for row in rows),
        servable=share,
        examples=tuple(row.id for row in rows[:3]),
        models=asked,
        note=note,
    )


def repeated(inputs: Sequence[str]) -> float:
    """Share of the requests whose input came before, word for word: what a look-up could answer."""
    return 1.0 - len(set(inputs)) / len(inputs) if inputs else 0.0


def try_closed(
    kind: Kind, prompt: str, inputs: Sequence[str], answers: Sequence[str], encoder: Encoder
) -> float | None:
    """Share that a quick student could answer at 0.95, cross-fitted on what is recorded."""
    from pilotfish.infer.certify import Constraint
    from pilotfish.loop.race import Learnt, try_student
    from pilotfish.loop.targets import encode
    from pilotfish.loop.teach import QUICK_STUDENT
    from pilotfish.records import Inputs

    kept = _parsed(kind, inputs, answers)
    labels = [label for _, label in kept]
    if len(kept) < FEWEST or len(set(labels)) < 2:
        return None
    task = Task(prompt or "{text}", kind.kind, kind.labels, range=kind.range)
    learnt = Learnt(
        Inputs([text for text, _ in kept], {}), labels, encode(task, labels), np.ones(len(kept))
    )
    outcome = try_student(QUICK_STUDENT, task, learnt, Constraint("agree", 0.95), encoder, seed=0)
    return outcome.servable


def try_objects(
    kind: Kind, inputs: Sequence[str], answers: Sequence[str], encoder: Encoder
) -> tuple[float | None, str]:
    """The same for extraction; where there is no share, the reason."""
    from pilotfish.loop.extraction import try_extraction

    kept = _parsed(kind, inputs, answers)
    if len(kept) < FEWEST:
        return None, ""
    return try_extraction([text for text, _ in kept], [answer for _, answer in kept], encoder)


def _parsed(kind: Kind, inputs: Sequence[str], answers: Sequence[str]) -> list[tuple[str, str]]:
    """A sample of the different inputs, with their answers as the kind reads them."""
    pairs = {text: kind.parse(answer) for text, answer in zip(inputs, answers, strict=True)}
    kept = [(text, answer) for text, answer in pairs.items() if answer is not None]
    return kept[:: max(1, len(kept) // ESTIMATED_ON)][:ESTIMATED_ON]


def _shared_system(texts: Sequence[str]) -> str:
    systems = {text.partition(SEPARATOR)[0] for text in texts}
    return systems.pop() if len(systems) == 1 else ""


def _name(system: str, prompt: str, taken: Mapping[str, object]) -> str:
    literal = re.sub(r"(?<!\{)\{[^{}]*\}(?!\})", " ", prompt)
    words: list[str] = []
    for source in (literal, system):
        for word in _CONTENT.findall(source):
            low = word.casefold()
            if len(low) > 2 and low not in _EMPTY and low not in words:
                words.append(low)
    base = "-".join(words[:3])[:40] or "task"
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    return name
