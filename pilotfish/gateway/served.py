"""What the gateway serves: the models by name, started when they are first asked for.

With ``[models.NAME]`` tables in pilotfish.toml it serves what they declare, composites included; without,
the catalogue's language models that were pulled and the artifacts in the working folder. The encoders of
this machine are served either way. A model is built in a thread, once, however many requests wait for it,
so a file of gigabytes holds up neither the event loop nor the other models.

It also knows what an answer would have cost if the large model had given it: the *baseline* that the
saving is measured against. A model that gives no token counts (a student) is counted by characters, at
:data:`~pilotfish.infer.outcomes.CHARS_PER_TOKEN`, the usual rule for English (https://help.openai.com/en/articles/4936856);
such a baseline says that it is an estimate.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from pilotfish.config import Config, Price
from pilotfish.errors import ArtifactError, ConfigError, UnknownName
from pilotfish.infer.fallback import Fallback
from pilotfish.infer.outcomes import CHARS_PER_TOKEN
from pilotfish.infer.trail import answer_usage
from pilotfish.models.breaker import Breaker
from pilotfish.models.calls import closing, stream
from pilotfish.models.catalogue import CATALOGUE, is_here, location
from pilotfish.models.load import Models, check_declared, is_composite, load_encoder, member_specs
from pilotfish.models.protocols import Encoder, Model
from pilotfish.records import Chunk, Completion, Request, Usage
from pilotfish.store.card import CARD_NAME, MAX_CARD_BYTES, Card, read_json

ALWAYS_HERE = "static"  # the encoder that needs no download
ARTIFACT_KIND = "offload"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One line of ``/v1/models``.

    Attributes:
        name: What clients ask for.
        kind: A backend (``"openai"``), a kind of composite (``"cascade"``), ``"artifact"``,
            ``"language-model"`` or ``"encoder"``.
        created: Seconds since the epoch.
        owned_by: Who made it, as far as is known.
        spec: What it is loaded from.
    """

    name: str
    kind: str
    created: int
    owned_by: str
    spec: str


@dataclass(frozen=True, slots=True)
class Baseline:
    """What "always large" would have cost.

    Attributes:
        dollars: US dollars.
        estimated: Whether tokens were estimated from characters.
    """

    dollars: float
    estimated: bool = False


class Served:
    """The models that the gateway serves.

    Args:
        config: Declares them.
        default: The name for requests that name no model; "": the only one there is, if there is one.
        folder: Where artifacts are looked for when the configuration declares no models.

    Attributes:
        skipped: Folders that look like artifacts and are none, each with the reason.

    Raises:
        ConfigError: A table is neither a backend nor a composite, or the default is not served.
    """

    def __init__(self, config: Config, *, default: str = "", folder: Path | None = None) -> None:
        self.config = config
        check_declared(config)
        self.skipped: list[str] = []
        self._models = Models(config)
        self._encoders: dict[str, Encoder] = {}
        self._starting: dict[str, asyncio.Task[Any]] = {}
        self._ready: dict[str, Model] = {}
        self._waiting: dict[str, Model] = {}
        self._larges: dict[str, Model | None] = {}
        self._baselines: dict[str, tuple[bool, Price | None]] = {}
        self._served = {row.name: row for row in self._find(folder or Path())}
        self.default = default or self._only()
        if self.default and self.default not in self._served:
            raise UnknownName("default model", self.default, self._served)

    def names(self) -> list[ServedModel]:
        """Everything that is served, in the order of declaration, encoders last."""
        return list(self._served.values())

    def resolve(self, asked: str) -> str:
        """The served name that a request's ``model`` stands for.

        Raises:
            UnknownName: Nothing is served under it.
        """
        name = asked or self.default
        if name not in self._served:
            raise UnknownName("model", name, self._served)
        return name

    def model(self, name: str) -> Model:
        """The model, or one in its place that starts it when it is first asked.

        Raises:
            UnknownName: Nothing is served under that name, or it is an encoder.
        """
        model = self._ready.get(name)
        if model is None:
            self._row(name, encoder=False)
            model = self._waiting.setdefault(name, _Starting(name, self))
        return model

    async def ready(self, name: str) -> Model:
        """The model, started; those who ask while it starts share the one start.

        Raises:
            UnknownName: Nothing is served under that name.
            PilotfishError: It cannot be started; the next request tries again.
        """
        if name not in self._ready:
            row = self._row(name, encoder=False)
            self._ready[name] = await self._start(name, lambda: self._models.load(row.spec))
        return self._ready[name]

    async def large(self, name: str) -> Model | None:
        """The model that would answer everything without this composite; None when it is itself.

        Raises:
            PilotfishError: It cannot be started.
        """
        if name not in self._larges:
            await self.ready(name)
            spec = self._large(name)
            build = None if spec is None else functools.partial(self._models.load, spec)
            self._larges[name] = None if build is None else await self._start(f"{spec} ", build)
        return self._larges[name]

    async def encoder(self, name: str) -> Encoder:
        """An encoder, started.

        Raises:
            UnknownName: No encoder is served under that name.
            PilotfishError: It cannot be started.
        """
        if name not in self._encoders:
            row = self._row(name, encoder=True)
            self._encoders[name] = await self._start(
                name, lambda: load_encoder(row.spec, self.config)
            )
        return self._encoders[name]

    def started(self) -> Mapping[str, Model]:
        """Everything that was started, members of composites included, by spec; for metrics."""
        return self._models.built()

    def breakers(self) -> dict[str, Breaker]:
        """The circuit breakers of what was started: by model, those of a chain as ``CHAIN/MEMBER``."""
        found: dict[str, Breaker] = {}
        for spec, model in self._models.built().items():
            if isinstance(own := getattr(model, "breaker", None), Breaker):
                found[spec] = own
            if isinstance(model, Fallback):
                names = (f"{spec}/{member.name}" for member in model.models)
                found |= dict(zip(names, model.breakers, strict=False))
        return found

    def baseline(
        self, name: str, completion: Completion, request: Request | None = None
    ) -> float | None:
        """US dollars that the answer would have cost from the large model, None when unknown."""
        found = self.baseline_of(name, completion, request)
        return None if found is None else found.dollars

    def baseline_of(
        self, name: str, completion: Completion, request: Request | None = None
    ) -> Baseline | None:
        """What the large model would have cost for the same tokens.

        Args:
            name: The served name.
            completion: The answer.
            request: What was asked; needed where the answer carries no token counts.
        """
        if name not in self._baselines:
            self._baselines[name] = self._large_price(name)
        alone, price = self._baselines[name]
        if alone:
            return None if completion.cost is None else Baseline(completion.cost)
        if price is None:
            return None
        usage = answer_usage(completion)
        estimated = not (usage.prompt_tokens or usage.completion_tokens)
        if estimated:
            if request is None:
                return None
            usage = estimate_usage(request, completion.text)
        return Baseline(price.cost(usage), estimated)

    async def aclose(self) -> None:
        """Close what was started."""
        for task in self._starting.values():
            task.cancel()
        await asyncio.gather(*self._starting.values(), return_exceptions=True)
        for model in self._models.built().values():
            close = getattr(model, "aclose", None)
            if close is not None:
                await close()

    def _row(self, name: str, *, encoder: bool) -> ServedModel:
        row = self._served.get(name)
        if row is None or (row.kind == "encoder") != encoder:
            known = [r.name for r in self._served.values() if (r.kind == "encoder") == encoder]
            raise UnknownName("encoder" if encoder else "model", name, known)
        return row

    async def _start(self, name: str, build: Any) -> Any:
        task = self._starting.get(name)
        if task is None:
            task = self._starting[name] = asyncio.create_task(asyncio.to_thread(build))
            task.add_done_callback(lambda done: self._started(name, done))
        try:
            return await asyncio.shield(task)  # a client that leaves does not stop it for others
        except UnknownName as error:  # in the configuration; the client's own name was found
            raise ConfigError(error.message, remedy=error.remedy) from None

    def _started(self, name: str, task: asyncio.Task[Any]) -> None:
        self._starting.pop(name, None)
        if not task.cancelled():
            task.exception()  # those who wait raise it; if all have left, nobody does

    def _only(self) -> str:
        models = [row.name for row in self._served.values() if row.kind != "encoder"]
        return models[0] if len(models) == 1 else ""

    def _find(self, folder: Path) -> Iterable[ServedModel]:
        if self.config.models:
            yield from self._declared()
        else:
            yield from self._artifacts(folder)
            for entry in CATALOGUE.values():
                if entry.kind == "language-model" and is_here(entry, self.config):
                    created = _modified(location(entry, self.config))
                    yield ServedModel(entry.name, entry.kind, created, "local", entry.name)
        yield ServedModel(ALWAYS_HERE, "encoder", int(time.time()), "pilotfish", ALWAYS_HERE)
        for entry in CATALOGUE.values():
            if entry.kind == "encoder" and is_here(entry, self.config):
                created = _modified(location(entry, self.config))
                yield ServedModel(entry.name, entry.kind, created, "local", entry.name)

    def _declared(self) -> Iterable[ServedModel]:
        created = _modified(self.config.path) if self.config.path else int(time.time())
        for name, table in self.config.models.items():
            kind = str(table["kind" if is_composite(name, self.config) else "backend"])
            yield ServedModel(name, kind, created, "pilotfish", name)

    def _artifacts(self, folder: Path) -> Iterable[ServedModel]:
        for path in sorted({*folder.glob(CARD_NAME), *folder.glob(f"*/{CARD_NAME}")}):
            try:
                if path.stat().st_size > MAX_CARD_BYTES:
                    raise ArtifactError("The card is too large.")
                card = Card.from_json(read_json(path.read_bytes(), str(path)), str(path))
            except (ArtifactError, OSError) as error:
                self.skipped.append(f"{path.parent}: {error}")
                continue
            if card.kind == ARTIFACT_KIND:
                spec = f"artifact:{path.parent.resolve()}"
                created = int(datetime.fromisoformat(card.created).timestamp())
                yield ServedModel(card.name, "artifact", created, "pilotfish", spec)

    def _large_price(self, name: str) -> tuple[bool, Price | None]:
        """Whether the model is its own baseline, and else the price of its large model."""
        large = self._large(name)
        if large is None:
            kind = self._served[name].kind
            return kind not in ("artifact", "router"), None
        for _ in self.config.models:  # the large model of a composite may be one itself
            further = self._large(large)
            if further is None:
                break
            large = further
        return False, self._price(large)

    def _large(self, name: str) -> str | None:
        """What "always large" means for a model: None when it is simply itself."""
        table = self.config.models.get(name, {})
        if "large" in table:
            return str(table["large"])
        if table.get("kind") in ("cascade", "fallback"):
            return member_specs(name, self.config)[-1]
        if table.get("kind") == "learned":
            return member_specs(name, self.config)[0]
        if self._kind(name) in ("artifact", "policy"):
            spec = self._served[name].spec if name in self._served else name
            return getattr(self._models.built().get(spec), "large", None)
        return None

    def _kind(self, name: str) -> str:
        row = self._served.get(name)
        return row.kind if row is not None else name.partition(":")[0]  # a spec: its backend

    def _price(self, spec: str) -> Price | None:
        table = self.config.models.get(spec, {})
        if "price" in table:
            return msgspec.convert(dict(table["price"]), Price)
        model = str(table.get("model", spec.partition(":")[2] or spec))
        prices = self.config.prices
        found = prices.get(spec) or prices.get(model)
        return found or getattr(self._models.built().get(spec), "price", None)


class _Starting:
    """Stands in for a model until it is started."""

    def __init__(self, name: str, served: Served) -> None:
        self.name = name
        self._served = served

    async def complete(self, request: Request) -> Completion:
        """Start the model if need be, then ask it."""
        return await (await self._served.ready(self.name)).complete(request)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """As :meth:`complete`, piece by piece."""
        async with closing(stream(await self._served.ready(self.name), request)) as chunks:
            async for chunk in chunks:
                yield chunk


def estimate_usage(request: Request, answer: str) -> Usage:
    """Tokens of a question and its answer, from their characters.

    >>> estimate_usage(Request.of("Is this spam?" * 4), "spam")
    Usage(prompt_tokens=13, completion_tokens=1, cached_tokens=0)
    """
    asked = 0
    for message in request.messages:
        content = message.get("content") or ""
        parts = [content] if isinstance(content, str) else [p.get("text") or "" for p in content]
        asked += sum(map(len, parts))
    prompt, completion = (-(-n // int(CHARS_PER_TOKEN)) for n in (asked, len(answer)))
    return Usage(prompt, completion)


def _modified(path: Path) -> int:
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return int(time.time())
