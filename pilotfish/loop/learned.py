"""A model that learns: tasks are answered by their versions in service, all else by the large one.

It is what a client's base URL should point at. Each request is matched against the known tasks; the
task's pointer says which version answers, and the version's certificate from which score on. Pointers
are read again when they are half a second old, before the next request is answered, so a promotion, a
roll-back or an alarm holds in every worker within a second. While the store cannot be read, the large
model answers everything, because an alarm might be waiting there.

Two privacy marks of a task are kept here: what is local-only never reaches the large model, and what is
    to
be redacted is redacted before it leaves.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec

from pilotfish.config import Config
from pilotfish.errors import ArtifactError, ConfigError, RequestRefused, StoreError
from pilotfish.infer.trail import Trail
from pilotfish.loop.artifact import OffloadedModel
from pilotfish.loop.reuse_scope import scope_of
from pilotfish.loop.small import Small
from pilotfish.loop.tasks import Matcher
from pilotfish.models.calls import closing, stream
from pilotfish.models.protocols import Model
from pilotfish.models.redaction import find_redactor
from pilotfish.models.settings import read_settings
from pilotfish.records import Chunk, Completion, Request
from pilotfish.store.store import Store, open_store
from pilotfish.store.versions import Pointer, Pointers, Version

# What only the large model can give: several choices, log-probabilities.
_PLAIN: Mapping[str, tuple[Any, ...]] = {"n": (None, 1), "logprobs": (None, False)}


class LearnedSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of a ``learned`` model in pilotfish.toml, besides ``models``.

    ``models`` names the large model, and after it, if there is one, the model of this machine that
    answers local-only tasks.

    Attributes:
        large: The model that would answer everything; default the first.
    """

    large: str = ""


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A version that can answer."""

    small: Small
    threshold: float


class LearnedModel:
    """The large model, with the learned versions of its tasks before it.

    Args:
        large: Answers what no version does.
        store: Where tasks, versions and pointers are.
        local: Answers local-only tasks that no version does; None refuses them.
        name: The name of the composite.
        draw: Numbers in [0, 1) that choose the canary's share.
    """

    def __init__(
        self,
        large: Model,
        store: Store,
        *,
        local: Model | None = None,
        name: str = "learned",
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.large = large
        self.local = local
        self.name = name
        self._store = store
        self._draw = draw
        self._pointers = Pointers(store.versions)
        self._now: Mapping[str, Pointer] = {}
        self._marks: dict[str, Mapping[str, Any]] = {}
        self._tasks: dict[str, tuple[str, str]] = {}
        self._matcher = Matcher({})
        self._loaded: dict[tuple[str, int], Loaded | None] = {}
        self._lock = threading.Lock()
        self._refreshing: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, asyncio.Task[None]
        ] = weakref.WeakKeyDictionary()

    @classmethod
    def from_members(
        cls, name: str, members: Sequence[Model], settings: Mapping[str, Any], config: Config
    ) -> LearnedModel:
        """Build from ``[models.NAME]`` with ``kind = "learned"``; see :class:`LearnedSettings`.

        Raises:
            ConfigError: There are more than two models.
        """
        read_settings("learned", LearnedSettings, settings)
        if len(members) > 2:
            raise ConfigError(
                f"[models.{name}] has {len(members)} models, but expected the large one, and perhaps "
                "a local one."
            )
        local = members[1] if len(members) == 2 else None
        return cls(members[0], open_store(config.store), local=local, name=name)

    async def aclose(self) -> None:
        """Close the store; the members are closed by whoever started them."""
        await asyncio.to_thread(self._store.close)

    async def complete(self, request: Request) -> Completion:
        """Answer small where a version is sure, else large; ``decisions`` says which and why.

        Raises:
            RequestRefused: The task is local-only, and nothing here can answer it.
            ModelError: The large model did not answer.
        """
        trail, marks, left = await self._try_small(request)
        if trail.kept is None:
            model = self._other(marks)
            trail.settle(await model.complete(to_send(request, marks)), left)
        return trail.result()

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Stream the answer; a small one comes as one chunk."""
        trail, marks, left = await self._try_small(request)
        if trail.kept is not None:
            answer = trail.result()
            yield Chunk(text=answer.text, completion=answer)
            return
        async with closing(stream(self._other(marks), to_send(request, marks))) as chunks:
            async for chunk in chunks:
                yield trail.signed(chunk, left)

    async def _try_small(self, request: Request) -> tuple[Trail, Mapping[str, Any], str]:
        """The trail with a small answer if there is one, the task's marks, and else the reason."""
        trail = Trail(self.name)
        await self._refresh()
        found = self._matcher.match(request)
        if found is None:
            return trail, {}, "no-task"
        task, values = found
        marks = self._marks.get(task, {})
        if any(request.params.get(name) not in plain for name, plain in _PLAIN.items()):
            return trail, marks, "not-plain"
        version, role = self._choose(self._now.get(task))
        loaded = None if version is None else self._loaded.get((task, version))
        if loaded is None:
            return trail, marks, "no-version" if version is None else "not-loaded"
        answer = await loaded.small.complete(as_asked(request, values, marks))
        score = float(answer.extra["score"])
        # An unsure label is better than a refusal; the answer to another question is not, and neither is
        # an object that the request's schema does not allow.
        forced = marks.get("local_only") and loaded.small.task.kind != "text" and score > 0
        if score >= loaded.threshold or forced:
            reason = role if score >= loaded.threshold else "local-only"
            trail.settle(answer, reason, score, loaded.threshold, (self.large.name,))
        else:
            why = str(answer.extra.get("why") or "score<threshold")
            trail.refuse(answer, loaded.small.name, why, score, loaded.threshold)
        return trail, marks, "last"

    def _choose(self, pointer: Pointer | None) -> tuple[int | None, str]:
        if pointer is None:
            return None, ""
        if pointer.canary is not None and self._draw() < pointer.share:
            return pointer.canary, "canary"
        return pointer.serving, "score>=threshold"

    def _other(self, marks: Mapping[str, Any]) -> Model:
        if not marks.get("local_only"):
            return self.large
        if self.local is None:
            raise RequestRefused(
                "This task is marked local-only, and no model of this machine can answer it.",
                remedy="Name one as the second of its models in pilotfish.toml, or take the mark off.",
            )
        return self.local

    async def _refresh(self) -> None:
        if not self._pointers.stale:
            return
        loop = asyncio.get_running_loop()
        task = self._refreshing.get(loop)
        if task is None or task.done():
            task = self._refreshing[loop] = asyncio.create_task(asyncio.to_thread(self._read))
        await asyncio.shield(task)

    def _read(self) -> None:
        """Read the pointers; blocks. Versions that are new are loaded by a thread of their own."""
        try:
            now = self._pointers.refresh()
            tasks = self._store.versions.tasks()
        except StoreError:
            self._now = {}
            return
        known = {
            name: (str(task.definition.get("system", "")), str(task.definition.get("prompt", "")))
            for name, task in tasks.items()
            if task.definition.get("prompt")
        }
        if known != self._tasks:
            self._matcher, self._tasks = Matcher(known), known
        self._marks = {name: task.marks for name, task in tasks.items()}
        wanted = {(p.task, v) for p in now.values() for v in (p.serving, p.canary) if v is not None}
        self._now = now
        with self._lock:
            self._loaded = {key: value for key, value in self._loaded.items() if key in wanted}
            new = wanted - self._loaded.keys()
            self._loaded.update(dict.fromkeys(new))
        if new:
            threading.Thread(target=self._load, args=(sorted(new),), daemon=True).start()

    def _load(self, wanted: list[tuple[str, int]]) -> None:
        for task, number in wanted:
            try:
                loaded = load_version(self._store.versions.version(task, number))
            except (ArtifactError, StoreError, OSError):
                loaded = None
            with self._lock:
                if loaded is None:
                    self._loaded.pop((task, number), None)  # tried again at the next look
                elif (task, number) in self._loaded:
                    self._loaded[task, number] = loaded


def as_asked(
    request: Request, values: Mapping[str, str], marks: Mapping[str, Any], caller: str = ""
) -> Request:
    """A request of a task as its versions read it: with the values, who asks, and what is allowed.

    ``caller`` is the API key's id; default what the gateway has tagged the request with.
    """
    whose = caller or request.tags.get("caller", "")
    tags = {"fields": values, "caller": whose, "reuse": scope_of(marks)}
    return dataclasses.replace(request, tags={**request.tags, **tags})


def load_version(version: Version) -> Loaded:
    """A version's student, under the version's name.

    Raises:
        ArtifactError: Its folder is missing or damaged, or it promises nothing.
    """
    model = OffloadedModel.load(version.artifact)
    if model.threshold is None:
        raise ArtifactError(f"The artifact {version.artifact} has no threshold.")
    return Loaded(model.small.renamed(version.name), model.threshold)


def redacted(request: Request, redact: Callable[[str], str]) -> Request:
    """A request with its messages' texts redacted."""
    messages = []
    for message in request.messages:
        content = message.get("content")
        if isinstance(content, str):
            message = {**message, "content": redact(content)}
        elif isinstance(content, list):
            parts = [
                {**part, "text": redact(part["text"])}
                if isinstance(part.get("text"), str)
                else part
                for part in content
            ]
            message = {**message, "content": parts}
        messages.append(message)
    return dataclasses.replace(request, messages=tuple(messages))


def to_send(request: Request, marks: Mapping[str, Any]) -> Request:
    """A request as it may leave, by the marks of its task."""
    redact = find_redactor(str(marks.get("redact") or ""))
    return request if redact is None else redacted(request, redact)
