"""Refusals: every error a client of the gateway can meet, in the form OpenAI's clients parse.

A client must be able to tell its own mistake from ours and from a provider's, and whether waiting helps.
So each error of the tree has one HTTP status, one stable code and one ``type``, decided here and nowhere
else. The message is the error's own: it says what was got and expected, and never holds a secret, because
the tree's errors never do.
"""

from __future__ import annotations

import msgspec

from pilotfish.errors import (
    AccessDenied,
    BadAnswer,
    BudgetSpent,
    ConfigError,
    InputError,
    MissingModel,
    ModelError,
    PilotfishError,
    RateLimited,
    RequestRefused,
    StoreError,
    Unavailable,
    UnknownName,
)


class Refusal(PilotfishError):
    """An answer that is an error: its HTTP status, and the fields of OpenAI's error object.

    Args:
        status: HTTP status, 400 to 599.
        code: A stable short string for programs, e.g. ``"overloaded"``.
        message: What was got and what was expected.
        kind: OpenAI's ``type``; default by status.
        param: The field of the request that is wrong, or None.
        retry_after: Seconds to wait before trying again, or None.
        remedy: What mends it; appended to the message.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        kind: str = "",
        param: str | None = None,
        retry_after: float | None = None,
        remedy: str = "",
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status
        self.code = code
        self.kind = kind or _kind(status)
        self.param = param
        self.retry_after = retry_after

    def body(self) -> bytes:
        """The JSON body, as OpenAI writes errors.

        >>> Refusal(404, "model_not_found", "No such model.", param="model").body()
        b'{"error":{"message":"No such model.","type":"invalid_request_error","param":"model",\
"code":"model_not_found"}}'
        """
        words = f"{self.message} {self.remedy}" if self.remedy else self.message
        error = {"message": words, "type": self.kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


def _kind(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 403:
        return "permission_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


# The first that fits, so an error's own class comes before the one it is derived from.
_TABLE: tuple[tuple[type[PilotfishError], int, str], ...] = (
    (UnknownName, 404, "model_not_found"),
    (MissingModel, 503, "model_not_pulled"),
    (RequestRefused, 400, "refused_by_model"),
    (RateLimited, 429, "rate_limited_by_model"),
    (AccessDenied, 502, "gateway_not_authorised_by_model"),
    (BadAnswer, 502, "bad_answer_from_model"),
    (Unavailable, 503, "model_unavailable"),
    (ModelError, 502, "model_failed"),
    (BudgetSpent, 429, "budget_spent"),
    (InputError, 400, "invalid_request"),
    (ConfigError, 500, "gateway_misconfigured"),
    (StoreError, 503, "store_unavailable"),
    (PilotfishError, 500, "internal_error"),
)


def refusal_of(error: PilotfishError) -> Refusal:
    """The refusal that an error of the tree stands for."""
    if isinstance(error, Refusal):
        return error
    status, code = next((s, c) for kind, s, c in _TABLE if isinstance(error, kind))
    return Refusal(
        status,
        code,
        error.message,
        retry_after=getattr(error, "retry_after", None),
        remedy=error.remedy,
    )
