"""From a name to a model.

A spec is, in this order of look-up: a name from ``[models.NAME]`` of pilotfish.toml; ``backend:rest``
with a registered backend (``openai:gpt-4.1-mini``, ``replay:answers.parquet``); a catalogue name that
``pilotfish pull`` brought (``qwen2.5-coder-1.5b``). A backend class is built with
``Backend.from_spec(rest, settings, config)``.

A table with ``kind`` in place of ``backend`` is a composite: its ``models`` are specs, so composites
nest, and its class is built with ``Composite.from_members(name, members, settings, config)``. Within one
:class:`Models` each spec is built once, so two cascades that escalate to the same model share its
connections, its limit of concurrent requests and its circuit breaker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from pilotfish.config import Config, load_config
from pilotfish.errors import ConfigError, UnknownName
from pilotfish.models import BACKENDS, CLASSIFIERS, COMPOSITES, ENCODERS, TAGGERS
from pilotfish.models.protocols import Classifier, Encoder, Model, Tagger
from pilotfish.registry import Registry


@runtime_checkable
class Escalating(Model, Protocol):
    """A model that starts another one by itself when it needs it, as an artifact does.

    Attributes:
        large: The other one's spec.
    """

    large: str

    def start_with(self, load: Callable[[str], Model]) -> None:
        """Take the other one from where everybody takes theirs."""
        ...


class Models:
    """Builds models, each spec once; safe to use from several threads.

    Args:
        config: Default: what :func:`pilotfish.config.load_config` finds.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or load_config()
        self._built: dict[str, Model] = {}
        self._larges: dict[str, str] = {}  # of artifacts: what they escalate to
        # One lock for each spec: a file of gigabytes that is being read must not hold up other models.
        # A composite's is held while its members' are taken, which cannot deadlock without a cycle.
        self._locks: dict[str, threading.Lock] = {}

    def load(self, spec: str) -> Model:
        """The model that a spec names; the same object each time.

        Raises:
            UnknownName: Nothing is called that.
            MissingModel: It is in the catalogue, but was not pulled.
            ConfigError: Its table in pilotfish.toml is wrong, or it is a member of itself.
        """
        check_acyclic(spec, self.config, self._larges)
        model = self._shared(spec)
        check_acyclic(spec, self.config, self._larges)  # artifacts have said what they escalate to
        return model

    def built(self) -> dict[str, Model]:
        """What was built so far, by spec."""
        return dict(self._built)

    def build(self, spec: str, settings: Mapping[str, Any]) -> Model:
        """A model of its own, with settings over what the configuration says; members are shared."""
        check_acyclic(spec, self.config, self._larges)
        return self._build(spec, settings)

    def _shared(self, spec: str) -> Model:
        if spec not in self._built:
            with self._locks.setdefault(spec, threading.Lock()):
                if spec not in self._built:
                    model = self._build(spec, {})
                    if isinstance(model, Escalating):
                        model.start_with(self.load)
                        self._larges[spec] = model.large
                    self._built[spec] = model
        return self._built[spec]

    def _build(self, spec: str, settings: Mapping[str, Any]) -> Model:
        if spec in self.config.models:
            declared = {**self.config.models[spec], **settings}
            if is_composite(spec, self.config):
                return self._compose(spec, declared)
            backend = declared.pop("backend")
            rest = str(declared.pop("model", spec))
            return self._start(backend, rest, {"name": spec, **declared})
        backend, colon, rest = spec.partition(":")
        if colon and backend in BACKENDS:
            return self._start(backend, rest, settings)
        language_models = _language_models()
        if spec in language_models:
            return self._start("llama.cpp", spec, settings)
        raise UnknownName("model", spec, _known(self.config))

    def _start(self, backend: str, rest: str, settings: Mapping[str, Any]) -> Model:
        model: Model = BACKENDS.load(backend).from_spec(rest, dict(settings), self.config)
        return model

    def _compose(self, name: str, declared: dict[str, Any]) -> Model:
        members = [self._shared(spec) for spec in member_specs(name, self.config)]
        kind = declared.pop("kind")
        del declared["models"]
        model: Model = COMPOSITES.load(kind).from_members(name, members, declared, self.config)
        return model


def load_model(spec: str, config: Config | None = None, **settings: Any) -> Model:
    """Build the model that a spec names.

    Args:
        spec: See the module's text.
        config: Default: what :func:`pilotfish.config.load_config` finds.
        settings: Passed to the backend or composite, over what the configuration says.

    Raises:
        UnknownName: Nothing is called that.
        MissingModel: It is in the catalogue, but was not pulled.
        ConfigError: Its table in pilotfish.toml is wrong, or it is a member of itself.
    """
    return Models(config).build(spec, settings)


def is_composite(name: str, config: Config) -> bool:
    """Whether ``[models.NAME]`` declares a composite; a name without a table does not.

    Raises:
        ConfigError: The table has neither ``backend`` nor ``kind``, or both.
    """
    table = config.models.get(name)
    if table is None:
        return False
    if ("kind" in table) == ("backend" in table):
        raise ConfigError(
            f"[models.{name}] in {config.path} has "
            + ("both backend and kind." if "kind" in table else "no backend."),
            remedy=f"Add: backend = one of {', '.join(BACKENDS)}; or, for a model made of models, "
            f"kind = one of {', '.join(COMPOSITES)}",
        )
    return "kind" in table


def member_specs(name: str, config: Config) -> list[str]:
    """The specs of a composite's members, in their order.

    Raises:
        ConfigError: ``models`` is missing or is no list of texts.
    """
    specs = config.models[name].get("models")
    if not isinstance(specs, list) or not specs or not all(isinstance(s, str) for s in specs):
        raise ConfigError(
            f"[models.{name}] in {config.path} has models = {specs!r}, but expected a list of names.",
            remedy='Write: models = ["small", "large"]',
        )
    return specs


def check_acyclic(spec: str, config: Config, larges: Mapping[str, str]) -> None:
    """Refuse a model that is made of itself, before any member is started.

    Args:
        spec: The model.
        config: Declares what it is made of.
        larges: Specs of artifacts, as far as they are loaded, to what they escalate to.

    Raises:
        ConfigError: There is a cycle; the message shows it.
    """
    seen: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            raise ConfigError(
                f"The model {name!r} is a member of itself: {circle}.",
                remedy=f"Take one of them out of its models in {config.path}.",
            )
        if name in seen:
            return
        for member in _needs(name, config, larges):
            visit(member, (*path, name))
        seen.add(name)

    visit(spec, ())


def check_declared(config: Config) -> None:
    """Check every ``[models.NAME]``, starting nothing: at once, and not when one is asked.

    Names are checked in all; settings where that loads no file: not those of local models and artifacts.

    Raises:
        UnknownName: A backend, kind or member that there is not.
        ConfigError: A table is wrong, or a model is a member of itself.
    """
    for name, table in config.models.items():
        if not is_composite(name, config):
            BACKENDS[str(table["backend"])]
            continue
        COMPOSITES[str(table["kind"])]
        for spec in member_specs(name, config):
            backend, colon, _ = spec.partition(":")
            known = spec in config.models or (colon and backend in BACKENDS)
            if not known and spec not in _language_models():
                raise UnknownName(f"member of [models.{name}]", spec, _known(config))
        check_acyclic(name, config, {})
    models = Models(config)
    for name in config.models:
        if _LIGHT.issuperset(_kinds(name, config)):
            try:
                models.load(name)
            except ConfigError as error:
                where = f"[models.{name}] in pilotfish.toml"
                raise ConfigError(f"{where}: {error.message}", remedy=error.remedy) from None


# To build these is to read their settings: nothing is loaded, and nobody is asked.
_LIGHT = frozenset(("openai", "litellm", "fake", "cascade", "fallback"))


def _kinds(spec: str, config: Config) -> Iterator[str]:
    """The backends and kinds that a model is made of."""
    table = config.models.get(spec)
    if table is None:
        yield spec.partition(":")[0]
    elif is_composite(spec, config):
        yield str(table["kind"])
        for member in member_specs(spec, config):
            yield from _kinds(member, config)
    else:
        yield str(table["backend"])


def _known(config: Config) -> list[str]:
    return [*config.models, *_language_models(), *(f"{name}:..." for name in BACKENDS)]


def _needs(name: str, config: Config, larges: Mapping[str, str]) -> Iterator[str]:
    """What a model asks: a composite its members, an artifact its large model."""
    if is_composite(name, config):
        yield from member_specs(name, config)
    elif name in larges:
        yield larges[name]
    elif config.models.get(name, {}).get("backend") == "artifact":
        large = config.models[name].get("large")
        if isinstance(large, str):
            yield large


def _language_models() -> list[str]:
    from pilotfish.models.catalogue import CATALOGUE

    return [entry.name for entry in CATALOGUE.values() if entry.kind == "language-model"]


def load_encoder(spec: str = "static", config: Config | None = None, **settings: Any) -> Encoder:
    """Build the encoder that a spec names.

    Args:
        spec: A registered encoder, alone (``static``) or with what it should load
            (``onnx:bge-small-en-v1.5``, ``static:FOLDER``), or an encoder of the catalogue.
        config: Default: what :func:`pilotfish.config.load_config` finds.
        settings: Passed to the encoder.

    Raises:
        UnknownName: Nothing is called that.
        MissingModel: It is in the catalogue, but was not pulled.
        MissingExtra: Its library is not installed.
    """
    loader, rest = _registered("encoder", ENCODERS, spec)
    encoder: Encoder = loader.from_spec(rest, settings, config or load_config())
    return encoder


def load_tagger(spec: str, config: Config | None = None, **settings: Any) -> Tagger:
    """Build the tagger that a spec names.

    Args:
        spec: A registered tagger with what it should load (``onnx:FOLDER``), or a tagger of the
            catalogue (``rampart``).
        config: Default: what :func:`pilotfish.config.load_config` finds.
        settings: Passed to the tagger.

    Raises:
        UnknownName: Nothing is called that.
        MissingModel: It is in the catalogue, but was not pulled.
        MissingExtra: Its library is not installed.
    """
    loader, rest = _registered("tagger", TAGGERS, spec)
    tagger: Tagger = loader.from_spec(rest, settings, config or load_config())
    return tagger


def _registered(kind: str, registry: Registry, spec: str) -> tuple[Any, str]:
    """What loads a spec, and what it should load."""
    name, _, rest = spec.partition(":")
    if name not in registry:
        from pilotfish.models.catalogue import CATALOGUE

        entries = {e.name: e for e in CATALOGUE.values() if e.kind == kind}
        if spec not in entries:
            raise UnknownName(kind, spec, [*registry, *entries])
        name, rest = entries[spec].reader, spec
    return registry.load(name), rest


def load_classifier(spec: str, config: Config | None = None, **settings: Any) -> Classifier:
    """Build the text classifier that a spec names.

    Args:
        spec: A registered kind with what it should load (``artifact:FOLDER``), or an artifact's folder.
        config: Default: what :func:`pilotfish.config.load_config` finds.
        settings: Passed to the classifier.

    Raises:
        ArtifactError: The folder is no artifact that holds one.
    """
    kind, _, rest = spec.partition(":")
    if kind not in CLASSIFIERS:
        kind, rest = "artifact", spec
    loader = CLASSIFIERS.load(kind)
    classifier: Classifier = loader.from_spec(rest, settings, config or load_config())
    return classifier
