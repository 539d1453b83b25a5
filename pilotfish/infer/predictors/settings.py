"""What the settings of a method may be, and the check of those that a user typed.

A method's settings are the keywords of its ``fit``; their types say what is allowed, ranges included. A
name that is wrong, a text where a number belongs or a number out of its range is refused before anything
is fitted. What is no JSON value, such as a model that a Python program hands over, is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from pilotfish.errors import ConfigError

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Positives = Annotated[Sequence[Positive], msgspec.Meta(min_length=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


def keywords_of(fit: Callable[..., Any]) -> dict[str, Any]:
    """The settings of a method: keyword-only parameters of its ``fit`` with their types."""
    hints = get_type_hints(fit, include_extras=True)
    return {name: hints[name] for name in fit.__kwdefaults__ or ()}


def check_settings(owner: str, allowed: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse settings that a method does not have, or cannot work with.

    Args:
        owner: Whose they are, for the message, such as ``"The predictor 'knn'"``.
        allowed: Name to type.
        settings: Name to value.

    Raises:
        ConfigError: There is no such setting, or it cannot have this value.
    """
    if unknown := sorted(set(settings) - set(allowed)):
        raise ConfigError(
            f"{owner} has no setting {', '.join(unknown)}.",
            remedy=f"Its settings: {', '.join(allowed) or 'none'}",
        )
    for name, value in settings.items():
        if type(value) not in (str, bool, int, float, list):
            continue
        try:
            msgspec.convert(value, allowed[name])
        except msgspec.ValidationError as error:
            wanted = str(error)[0].lower() + str(error)[1:]
            if get_origin(allowed[name]) is Literal:
                wanted = f"expected one of {', '.join(get_args(allowed[name]))}"
            raise ConfigError(f"{owner} got {name} = {value!r}: {wanted}.") from None
