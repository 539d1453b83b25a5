"""Router: decide who answers before anyone is asked.

A router is a model. Its chooser looks at the request and names one member, which then answers alone;
nothing is judged afterwards (for that, put a cascade among the members). Two choosers are here: rules
that a user writes, and a classifier whose classes are the members' names, such as a student that
learned from recorded answers which model is good enough. Whatever else can name a member fits behind
the same door (:class:`Chooser`).

A classifier as a router: RouteLLM (Ong et al. 2024) and its forerunners; here any
:class:`pilotfish.models.protocols.Classifier` will do.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from pilotfish.config import Config
from pilotfish.errors import ConfigError, UnknownName
from pilotfish.infer.trail import Trail
from pilotfish.models.calls import closing, stream
from pilotfish.models.load import load_classifier
from pilotfish.models.protocols import Classifier, Model
from pilotfish.models.settings import Count, read_settings
from pilotfish.records import Chunk, Completion, Request


class Rule(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One entry of a router's ``by``: a member, and what a request must be to go there.

    All conditions that are given must hold; a rule without any holds always.

    Attributes:
        model: The member's name.
        prompt: A regular expression that the last user message contains.
        max_prompt_characters: The last user message is no longer than this.
        min_prompt_characters: It is no shorter than this.
        tools: Whether the request brings tools.
        task: The request's task.
        tags: Tags of the request, each with its value.
    """

    model: str
    prompt: str | None = None
    max_prompt_characters: Count | None = None
    min_prompt_characters: Count = 0
    tools: bool | None = None
    task: str | None = None
    tags: dict[str, Any] = msgspec.field(default_factory=dict)


class RouterSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of a ``router`` in pilotfish.toml, besides ``models``.

    Attributes:
        by: Rules, of which the first that holds counts; or the folder of an artifact whose classes are
            the members' names.
        default: The member for requests that no rule fits; default the last.
        large: The model that would answer everything without the router, for the saving; default unknown.
    """

    by: list[Rule] | str
    default: str = ""
    large: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """Who answers, and why.

    Attributes:
        model: The member's position.
        reason: A stable short string, as in :class:`~pilotfish.records.Decision`.
        score: What it was decided on, or None.
    """

    model: int
    reason: str
    score: float | None = None


class Chooser(Protocol):
    """Names a member for a request; it runs on the event loop, so it must be done within 1 ms."""

    def choose(self, request: Request) -> Choice:
        """Who answers."""
        ...


class RuleChooser:
    """The first rule that holds.

    Args:
        rules: In order.
        names: The members' names.
        default: The member's position when no rule holds.

    Raises:
        ConfigError: A rule names no member, or its expression cannot be read.
    """

    def __init__(self, rules: Sequence[Rule], names: Sequence[str], default: int) -> None:
        self.default = default
        self._rules = [(rule, _position(rule.model, names), _pattern(rule)) for rule in rules]

    def choose(self, request: Request) -> Choice:
        """Who answers, with the rule's number as the reason."""
        prompt = request.prompt
        for number, (rule, position, pattern) in enumerate(self._rules, 1):
            if _holds(rule, pattern, prompt, request):
                return Choice(position, f"rule-{number}")
        return Choice(self.default, "no-rule")


class ClassifierChooser:
    """The most probable class of the last user message is the member's name.

    Args:
        classifier: Its classes are members' names; not every member need be one.
        names: The members' names.

    Raises:
        ConfigError: A class names no member.
    """

    def __init__(self, classifier: Classifier, names: Sequence[str]) -> None:
        self.classifier = classifier
        self._positions = [_position(name, names) for name in classifier.classes]

    def choose(self, request: Request) -> Choice:
        """Who answers, with the probability of its class as the score."""
        row = self.classifier.predict_proba([request.prompt])[0]
        best = int(row.argmax())
        return Choice(self._positions[best], "most-probable", float(row[best]))


class Router:
    """Models of which one is chosen for each request.

    Args:
        models: At least one.
        chooser: Chooses.
        name: The name of the composite.
    """

    def __init__(self, models: Sequence[Model], chooser: Chooser, *, name: str = "router") -> None:
        self.models = list(models)
        self.chooser = chooser
        self.name = name

    @classmethod
    def from_members(
        cls, name: str, members: Sequence[Model], settings: Mapping[str, Any], config: Config
    ) -> Router:
        """Build from ``[models.NAME]`` with ``kind = "router"``; see :class:`RouterSettings`.

        Raises:
            ConfigError: A rule or class names no member.
        """
        checked = read_settings("router", RouterSettings, settings)
        names = [member.name for member in members]
        chooser: Chooser
        if isinstance(checked.by, str):
            chooser = ClassifierChooser(load_classifier(checked.by, config), names)
        else:
            default = checked.default or names[-1]
            chooser = RuleChooser(checked.by, names, _position(default, names))
        return cls(members, chooser, name=name)

    async def complete(self, request: Request) -> Completion:
        """The chosen member's answer; the last decision says why it was chosen."""
        choice = self.chooser.choose(request)
        answer = await self.models[choice.model].complete(request)
        signed = self._signed(Chunk(completion=answer), choice).completion
        assert signed is not None
        return signed

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """The chosen member's answer, piece by piece."""
        choice = self.chooser.choose(request)
        async with closing(stream(self.models[choice.model], request)) as chunks:
            async for chunk in chunks:
                yield self._signed(chunk, choice)

    def _signed(self, chunk: Chunk, choice: Choice) -> Chunk:
        rejected = tuple(m.name for i, m in enumerate(self.models) if i != choice.model)
        trail = Trail(self.name)
        return trail.signed(chunk, choice.reason, choice.score, rejected=rejected)


def _position(name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise UnknownName("member of the router", name, names)
    return names.index(name)


def _pattern(rule: Rule) -> re.Pattern[str] | None:
    try:
        return None if rule.prompt is None else re.compile(rule.prompt)
    except re.error as error:
        raise ConfigError(
            f"The rule for {rule.model!r} has prompt = {rule.prompt!r}, but expected a regular "
            f"expression: {error}."
        ) from error


def _holds(rule: Rule, pattern: re.Pattern[str] | None, prompt: str, request: Request) -> bool:
    longest = rule.max_prompt_characters
    return (
        len(prompt) >= rule.min_prompt_characters
        and (longest is None or len(prompt) <= longest)
        and (rule.tools is None or rule.tools == bool(request.params.get("tools")))
        and (rule.task is None or rule.task == request.task)
        and all(request.tags.get(name) == value for name, value in rule.tags.items())
        and (pattern is None or pattern.search(prompt) is not None)
    )
