"""The data types that cross room borders, and their Arrow schemas.

Each is a frozen dataclass, so it can be shared between threads and logged without copying; each has
an Arrow schema, so a million of them is a table (:func:`to_table`, :func:`from_table`). Open-ended
fields (messages, parameters, tags) travel as JSON text in Arrow: providers add fields faster than a
schema could follow, and nothing may be dropped on the way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a model.

    Attributes:
        messages: Chat messages as the OpenAI API writes them, e.g.
            ``({"role": "user", "content": "Hi"},)``; unknown keys are kept.
        params: Sampling and output parameters, passed on unchanged (``temperature``, ``max_tokens``,
            ``tools``, ``response_format``, ``stop``, ``seed``, ``logprobs``, ...).
        task: The recurring task this belongs to, or "".
        user: Who asked, or "".
        tags: Free labels for filtering; never sent to the model.
    """

    messages: tuple[Json, ...]
    params: Json = field(default_factory=dict)
    task: str = ""
    user: str = ""
    tags: Json = field(default_factory=dict)

    @classmethod
    def of(cls, prompt: str, *, system: str = "", task: str = "", **params: Any) -> Request:
        """Build a request from one user prompt.

        >>> Request.of("Hi", temperature=0).messages
        ({'role': 'user', 'content': 'Hi'},)
        """
        messages: list[Json] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        return cls(messages=tuple(messages), params=params, task=task)

    @property
    def prompt(self) -> str:
        """The text of the last user message ("" when there is none, text parts joined)."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                content = message.get("content") or ""
                if isinstance(content, str):
                    return content
                return "".join(part.get("text", "") for part in content)
        return ""

    def key(self, model: str) -> str:
        """Cache key: SHA-256 (hex) of model, messages and parameters; tags and user do not count.

        >>> a, b = Request.of("x", temperature=0, seed=1), Request.of("x", seed=1, temperature=0)
        >>> a.key("m") == b.key("m") != a.key("n")
        True
        """
        blob = canonical_json([model, list(self.messages), dict(self.params)])
        return hashlib.sha256(blob.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a call consumed; 0 where unknown or none."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """Why an answer came from where it came from; every composite model appends its own.

    Attributes:
        by: The composite that decided, e.g. ``"cascade"``.
        chose: The model it chose.
        score: The score it decided on, or None when there was none.
        threshold: What the score was compared with, or None.
        reason: A stable short string, e.g. ``"score>=threshold"``; never free text.
        rejected: The models it did not choose.
    """

    by: str
    chose: str
    reason: str
    score: float | None = None
    threshold: float | None = None
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer.

    Attributes:
        text: The answer's text ("" for a pure tool call).
        model: The model that really answered.
        usage: Tokens consumed by this call.
        cost: US dollars, or None when the price is unknown (never guessed as 0).
        latency: Seconds from asking to the last token; 0.0 when it was not measured.
        finish_reason: ``"stop"``, ``"length"``, ``"tool_calls"``, ... as the provider says.
        logprobs: Per-token ``{"token", "logprob", "top_logprobs"}`` when asked for and given.
        tool_calls: Tool calls as the OpenAI API writes them.
        label_probs: Probability per label when the model scored a closed label set.
        decisions: How it came about, outermost decision last.
        cached: True when the answer was paid for earlier.
        extra: What the provider sent besides (other choices, ids), unchanged.
    """

    text: str
    model: str
    usage: Usage = Usage()
    cost: float | None = None
    latency: float = 0.0
    finish_reason: str = "stop"
    logprobs: tuple[Json, ...] | None = None
    tool_calls: tuple[Json, ...] = ()
    label_probs: Mapping[str, float] | None = None
    decisions: tuple[Decision, ...] = ()
    cached: bool = False
    extra: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed answer; the last one carries the whole :class:`Completion`.

    Attributes:
        text: What the first answer gained.
        delta: The same as the OpenAI API writes it, tool calls included.
        completion: The whole answer, in the last chunk.
        event: The endpoint's event as it came, which may tell of second and later answers (``n`` > 1), or
            None where a model has none.
        model: Who is answering, where that is known before the end.
        decisions: Why, so far as that is known before the end; the completion's are the whole.
    """

    text: str = ""
    delta: Json = field(default_factory=dict)
    completion: Completion | None = None
    event: Json | None = None
    model: str = ""
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """An input with an answer that something can learn from.

    Attributes:
        input: The rendered text.
        output: The answer's text.
        label: The parsed label ("" when the task has none).
        weight: How many inputs of the user's file this one stands for (> 0).
        provenance: ``model``, ``prompt`` (hash), ``version``, ``stage`` and the like.
    """

    input: str
    output: str
    label: str = ""
    weight: float = 1.0
    provenance: Json = field(default_factory=dict)


Record = TypeVar("Record", Request, Completion, Decision, Example)

_JSON_FIELDS = {
    Request: {"messages", "params", "tags"},
    Completion: {"usage", "logprobs", "tool_calls", "label_probs", "decisions", "extra"},
    Decision: {"rejected"},
    Example: {"provenance"},
}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (Usage, Decision)):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    raise TypeError(f"Got a {type(value).__name__} in a record, but expected JSON values.")


def to_dict(record: Request | Completion | Decision | Example) -> dict[str, Any]:
    """A record as plain JSON values; :func:`from_dict` is its inverse.

    >>> from_dict(Request, to_dict(Request.of("Hi"))) == Request.of("Hi")
    True
    """
    plain: dict[str, Any] = json.loads(
        canonical_json({f.name: getattr(record, f.name) for f in fields(record)})
    )
    return plain


def from_dict(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """Build a record from :func:`to_dict`'s output; keys it does not know are ignored."""
    known = {f.name for f in fields(kind)}
    data = {k: v for k, v in values.items() if k in known}
    for name in ("messages", "tool_calls", "rejected"):
        if name in data:
            data[name] = tuple(data[name])
    if data.get("logprobs") is not None:
        data["logprobs"] = tuple(data["logprobs"])
    if "usage" in data:
        counts = data["usage"]
        data["usage"] = Usage(**{f.name: counts[f.name] for f in fields(Usage) if f.name in counts})
    if "decisions" in data:
        data["decisions"] = tuple(from_dict(Decision, d) for d in data["decisions"])
    return kind(**data)


def schema(kind: type) -> pa.Schema:
    """The Arrow schema of a record type; open-ended fields are JSON strings."""
    import pyarrow as pa

    types = {"float": pa.float64(), "float | None": pa.float64(), "bool": pa.bool_()}
    return pa.schema(
        [
            pa.field(
                f.name,
                pa.string()
                if f.name in _JSON_FIELDS[kind]
                else types.get(str(f.type), pa.string()),
            )
            for f in fields(kind)
        ]
    )


def to_table(records: Sequence[Record], kind: type[Record]) -> pa.Table:
    """Records as an Arrow table of ``len(records)`` rows."""
    import pyarrow as pa

    wide = _JSON_FIELDS[kind]
    columns = {
        f.name: [
            canonical_json(getattr(r, f.name)) if f.name in wide else getattr(r, f.name)
            for r in records
        ]
        for f in fields(kind)
    }
    return pa.table(columns, schema=schema(kind))


def from_table(table: pa.Table, kind: type[Record]) -> list[Record]:
    """The records of an Arrow table made by :func:`to_table`."""
    wide = _JSON_FIELDS[kind]
    rows: Iterable[dict[str, Any]] = table.to_pylist()
    return [
        from_dict(
            kind, {k: json.loads(v) if k in wide and v is not None else v for k, v in row.items()}
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs of one task, column-wise: what students learn from and serve.

    Attributes:
        texts: ``n`` texts: the prompt's field values, without the template around them (one field:
            its value; several: ``"name: value"`` lines).
        fields: Column name to ``n`` raw values (str, int, float, bool or None), for tabular students.
    """

    texts: Sequence[str]
    fields: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Iterable[int]) -> Inputs:
        """The inputs at these positions, in this order."""
        chosen = [int(i) for i in indices]
        return Inputs(
            [self.texts[i] for i in chosen],
            {name: [column[i] for i in chosen] for name, column in self.fields.items()},
        )
