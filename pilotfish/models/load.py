"""From a name to a model.

A spec is, in this order of look-up: a name from ``[models.NAME]`` of pilotfish.toml; ``backend:rest``
with a registered backend (``openai:gpt-4.1-mini``, ``replay:answers.parquet``); a catalogue name that
``pilotfish pull`` brought (``qwen2.5-coder-1.5b``). A backend class is built with
``Backend.from_spec(rest, settings, config)``.
"""

from __future__ import annotations

from typing import Any

from pilotfish.config import Config, load_config
from pilotfish.errors import ConfigError, UnknownName
from pilotfish.models import BACKENDS, ENCODERS
from pilotfish.models.protocols import Encoder, Model


def load_model(spec: str, config: Config | None = None, **settings: Any) -> Model:
    """Build the model that a spec names.

    Args:
        spec: See the module's text.
        config: Default: what :func:`pilotfish.config.load_config` finds.
        settings: Passed to the backend, over what the configuration says.

    Raises:
        UnknownName: Nothing is called that.
        MissingModel: It is in the catalogue, but was not pulled.
        ConfigError: Its table in pilotfish.toml has no backend.
    """
    config = config or load_config()
    if spec in config.models:
        declared = {**config.models[spec], **settings}
        backend = declared.pop("backend", None)
        if backend is None:
            raise ConfigError(
                f"[models.{spec}] in {config.path} has no backend.",
                remedy=f"Add: backend = one of {', '.join(BACKENDS)}",
            )
        rest = str(declared.pop("model", spec))
        return _build(backend, rest, {"name": spec, **declared}, config)
    backend, colon, rest = spec.partition(":")
    if colon and backend in BACKENDS:
        return _build(backend, rest, settings, config)
    from pilotfish.models.catalogue import CATALOGUE

    language_models = [e.name for e in CATALOGUE.values() if e.kind == "language-model"]
    if spec in language_models:
        return _build("llama.cpp", spec, settings, config)
    raise UnknownName(
        "model",
        spec,
        [*config.models, *language_models, *(f"{name}:..." for name in BACKENDS)],
    )


def _build(backend: str, rest: str, settings: dict[str, Any], config: Config) -> Model:
    model: Model = BACKENDS.load(backend).from_spec(rest, settings, config)
    return model


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
    config = config or load_config()
    kind, _, rest = spec.partition(":")
    if kind not in ENCODERS:
        from pilotfish.models.catalogue import CATALOGUE

        names = {e.name: e for e in CATALOGUE.values() if e.kind == "encoder"}
        if spec not in names:
            raise UnknownName("encoder", spec, [*ENCODERS, *names])
        kind, rest = names[spec].reader, spec
    encoder: Encoder = ENCODERS.load(kind).from_spec(rest, settings, config)
    return encoder
