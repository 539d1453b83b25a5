"""Steering as pilotfish.toml declares it: which rule, and what each member reads.

.. code-block:: toml

    [models.calm]
    kind = "contrast"
    models = ["qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b"]

A view changes what one member reads: source contrast (Sennrich et al. 2024) gives the second one a wrong
source, language contrast a wrong target language; private decoding (CoGenesis, Zhang et al. 2024)
keeps the private part from the large one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec

from pilotfish.config import Config
from pilotfish.errors import ConfigError
from pilotfish.models.chat_template import text_of
from pilotfish.models.protocols import Model, TokenModel
from pilotfish.models.settings import read_settings
from pilotfish.reason.byte_model import ByteModel
from pilotfish.reason.rules import Mix, contrast, proxy
from pilotfish.reason.steered import Steered, View
from pilotfish.records import Request


class ViewSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    r"""What one member reads in place of the request.

    Attributes:
        find: A regular expression; all that it matches in any message's text is replaced.
        replace: By what; ``\1`` is the first group.
        system: A system message in place of the request's own, and of a developer's.
    """

    find: str = ""
    replace: str = ""
    system: str | None = None


class ContrastSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of ``kind = "contrast"``: the expert first, then the amateur.

    One model alone, with two views, contrasts itself with what it would say to another request.

    Attributes:
        form: ``"open"`` for text (Li et al. 2023), ``"reasoning"`` (O'Brien and Lewis 2023).
        strength: Of the contrast; default 1 for text, 0.5 for reasoning.
        plausible: A token counts only if the expert gives it this share of its likeliest one's
            probability.
        temperature: Divides the amateur's logits.
        views: What each member reads.
        bridge: ``"bytes"``: the members are read byte by byte, so that their vocabularies may differ;
            default: they have the same.
    """

    form: Literal["open", "reasoning"] = "open"
    strength: Annotated[float, msgspec.Meta(ge=0)] | None = None
    plausible: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    views: list[ViewSettings] = msgspec.field(default_factory=list)
    bridge: Literal["", "bytes"] = ""


class ProxyTunedSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of ``kind = "proxy-tuned"``: the large model, the tuned small one, the untuned small one.

    Attributes:
        strength: How much of the small pair's difference is added to the large one's logits.
        views: What each member reads.
        bridge: As of ``contrast``.
    """

    strength: float = 1.0
    views: list[ViewSettings] = msgspec.field(default_factory=list)
    bridge: Literal["", "bytes"] = ""


class MixedSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of ``kind = "mixed"``: see :class:`pilotfish.reason.rules.Mix`.

    Attributes:
        weights: One for each member; default: equal shares.
        space: What is added: ``"logits"``, ``"log"``, ``"linear"``; or ``"least"`` (CP-Delta).
        plausible: As of ``contrast``, by the first member.
        views: What each member reads.
        bridge: As of ``contrast``.
    """

    weights: list[float] = msgspec.field(default_factory=list)
    space: Literal["logits", "log", "linear", "least"] = "linear"
    plausible: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    views: list[ViewSettings] = msgspec.field(default_factory=list)
    bridge: Literal["", "bytes"] = ""


class Contrast(Steered):
    """``kind = "contrast"``."""

    @classmethod
    def from_members(
        cls, name: str, members: Sequence[Model], settings: Mapping[str, Any], config: Config
    ) -> Contrast:
        """Build from a table of pilotfish.toml; see :class:`ContrastSettings`."""
        checked = read_settings("contrast", ContrastSettings, settings)
        strength = checked.strength
        if strength is None:
            strength = 0.5 if checked.form == "reasoning" else 1.0
        rule = contrast(
            strength, checked.plausible, form=checked.form, temperature=checked.temperature
        )
        if len(members) == 1 and len(checked.views) == 2:
            members = [*members, *members]
        models = _token_models(name, members, 2, "an expert and an amateur (or one, and two views)")
        views = _views(name, checked.views, models)
        models = _bridged(models, checked.bridge)
        return cls(models, rule, views=views, reason="contrast", name=name)


class ProxyTuned(Steered):
    """``kind = "proxy-tuned"``."""

    @classmethod
    def from_members(
        cls, name: str, members: Sequence[Model], settings: Mapping[str, Any], config: Config
    ) -> ProxyTuned:
        """Build from a table of pilotfish.toml; see :class:`ProxyTunedSettings`."""
        checked = read_settings("proxy-tuned", ProxyTunedSettings, settings)
        models = _token_models(name, members, 3, "the large one, a tuned and an untuned small one")
        views = _views(name, checked.views, models)
        models = _bridged(models, checked.bridge)
        return cls(models, proxy(checked.strength), views=views, reason="proxy-tuned", name=name)


class Mixed(Steered):
    """``kind = "mixed"``."""

    @classmethod
    def from_members(
        cls, name: str, members: Sequence[Model], settings: Mapping[str, Any], config: Config
    ) -> Mixed:
        """Build from a table of pilotfish.toml; see :class:`MixedSettings`."""
        checked = read_settings("mixed", MixedSettings, settings)
        weights = checked.weights or [1 / len(members)] * len(members)
        models = _token_models(name, members, len(weights), "one for each weight")
        rule = Mix(tuple(weights), checked.space, checked.plausible)
        views = _views(name, checked.views, models)
        models = _bridged(models, checked.bridge)
        return cls(models, rule, views=views, reason=f"mixed-{checked.space}", name=name)


def _token_models(
    name: str, members: Sequence[Model], number: int, wanted: str
) -> list[TokenModel]:
    if len(members) != number:
        raise ConfigError(f"[models.{name}] has {len(members)} models, but expected {wanted}.")
    models: list[TokenModel] = []
    for member in members:
        if not isinstance(member, TokenModel):
            raise ConfigError(
                f"[models.{name}] cannot steer {member.name}, which gives no logits.",
                remedy="Name models that run here: a GGUF file, or one of `pilotfish models`.",
            )
        models.append(member)
    return models


def _bridged(models: Sequence[TokenModel], bridge: str) -> list[TokenModel]:
    if not bridge:
        return list(models)
    # One view of a model that is named twice: its sorted vocabulary takes seconds and megabytes.
    views = {id(model): ByteModel(model) for model in models}
    return [views[id(model)] for model in models]


def _views(
    name: str, settings: Sequence[ViewSettings], models: Sequence[TokenModel]
) -> list[View | None]:
    if settings and len(settings) != len(models):
        raise ConfigError(
            f"[models.{name}] has {len(settings)} views, but expected one for each of its "
            f"{len(models)} models.",
            remedy="{} stands for the request as it is.",
        )
    return [_view(name, view) for view in settings]


def _view(name: str, settings: ViewSettings) -> View | None:
    try:
        pattern = re.compile(settings.find) if settings.find else None
    except re.error as error:
        raise ConfigError(
            f"A view of [models.{name}] has find = {settings.find!r}, but expected a regular "
            f"expression: {error}."
        ) from error
    if pattern is None and settings.system is None:
        return None

    def look(request: Request) -> Request:
        messages = list(request.messages)
        if settings.system is not None:
            rest = [m for m in messages if m.get("role") not in ("system", "developer")]
            messages = [{"role": "system", "content": settings.system}, *rest]
        if pattern is not None:
            texts = [pattern.sub(settings.replace, text_of(message)) for message in messages]
            pairs = zip(messages, texts, strict=True)
            messages = [{**message, "content": text} for message, text in pairs]
        return replace(request, messages=tuple(messages))

    return look
