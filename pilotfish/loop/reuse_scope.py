"""Whose answers may be given to whom, and to which requests at all.

A recorded answer may hold what its asker told of himself, so the rule is closed unless somebody opens it:
by default an answer goes only to the user who got it (the API key together with the request's ``user``),
and a request that names no user is nobody's. A task's mark ``reuse`` sets it: ``"never"``, ``"user"``,
``"key"`` (whoever has the same API key) or ``"all"``.

Within a scope, answers are shared only between requests with the same parameters that shape an answer
(``max_tokens``, ``response_format``, ``stop``, ...). A request that wants its answer drawn is not given
an old one: ``temperature`` above 0 as the client set it, several choices, log-probabilities, tools. A
temperature that is not set is no such wish.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pilotfish.errors import InputError
from pilotfish.records import Request, canonical_json

SCOPES = ("never", "user", "key", "all")  # each allows what the one before it allows, and more
DEFAULT_SCOPE = "user"
# What says who asks, how the answer travels or how it is billed, and not what is answered.
_NO_SHAPE = frozenset(
    (
        "logprobs", "metadata", "n", "prompt_cache_key", "safety_identifier", "seed", "service_tier",
        "store", "stream_options", "temperature", "top_logprobs", "user",
    )
)  # fmt: skip


def scope_of(marks: Mapping[str, object]) -> str:
    """The scope that a task's marks set; what cannot be read allows nothing.

    >>> scope_of({}), scope_of({"reuse": "all"}), scope_of({"reuse": "?"})
    ('user', 'all', 'never')
    """
    scope = str(marks.get("reuse") or DEFAULT_SCOPE)
    return scope if scope in SCOPES else "never"


def check_scope(scope: str) -> str:
    """The scope, if it is one.

    Raises:
        InputError: It is none.
    """
    if scope not in SCOPES:
        raise InputError(
            f"Got reuse {scope!r}, but expected one of {', '.join(SCOPES)}.",
            remedy="pilotfish tasks NAME --reuse user",
        )
    return scope


def allows(scope: str, wanted: str) -> bool:
    """Whether a task with this scope lets a version answer that was made for another one.

    >>> allows("user", "all"), allows("all", "user")
    (False, True)
    """
    return SCOPES.index(wanted) <= SCOPES.index(scope) and wanted != "never"


def group_of(request: Request, caller: str, scope: str) -> tuple[str | None, str]:
    """The group of requests that may share answers with this one.

    Args:
        request: What is asked.
        caller: Id of the API key, or "".
        scope: One of :data:`SCOPES`.

    Returns:
        A name for the group that tells nothing of its members, or None; and then why:
        ``"sampled"`` or ``"not-shared"``.

    >>> a, b = Request.of("x", temperature=0), Request.of("y")
    >>> group_of(a, "", "all") == group_of(b, "", "all")
    True
    >>> group_of(a, "", "user"), group_of(Request.of("x", temperature=0.7), "", "all")
    ((None, 'not-shared'), (None, 'sampled'))
    """
    params = request.params
    if params.get("temperature") or params.get("n") not in (None, 1) or params.get("logprobs"):
        return None, "sampled"
    if params.get("tools") or params.get("functions"):
        return None, "sampled"
    named = {"user": request.user, "key": caller, "all": "everybody"}.get(scope)
    if not named:
        return None, "not-shared"
    owner = {"user": [caller, request.user], "key": [caller]}.get(scope, [])
    shape = {name: value for name, value in params.items() if name not in _NO_SHAPE}
    blob = canonical_json([scope, owner, shape]).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(blob, digest_size=16).hexdigest(), ""
