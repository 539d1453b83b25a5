"""API keys: who may use the gateway, which models, how much.

A key is ``pf-`` and 256 random bits, shown once when it is made. Only its SHA-256 is kept: of so many
random bits nobody finds the key again, so no slow hash is needed, and a look-up by the hash tells
nothing by the time that it takes. An administrator's key opens the pages that show everybody's traffic;
it asks no models, as a key that asks models opens no pages.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import sqlalchemy as sa

from pilotfish.errors import InputError
from pilotfish.store.database import Database
from pilotfish.store.gateway_schema import KEYS, MAX_LABEL

PREFIX = "pf-"

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_PERIODS = {
    **dict.fromkeys(("s", "sec", "second"), "second"),
    **dict.fromkeys(("m", "min", "minute"), "minute"),
    **dict.fromkeys(("h", "hour"), "hour"),
    **dict.fromkeys(("d", "day"), "day"),
    "month": "month",
}
_LIMIT = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*/\s*([a-z]+)\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limit:
    """So much in each period; periods begin at whole seconds, minutes, hours, days and months in UTC.

    Attributes:
        amount: Requests or US dollars, > 0.
        period: ``"second"``, ``"minute"``, ``"hour"``, ``"day"`` or ``"month"``.
    """

    amount: float
    period: str

    @classmethod
    def parse(cls, text: str, *, whole: bool = False) -> Limit:
        """Read a limit.

        Args:
            text: For example ``"60/min"``.
            whole: Refuse fractions.

        Raises:
            InputError: It is no limit.

        >>> Limit.parse("60/min"), str(Limit.parse("2.5 / day"))
        (Limit(amount=60.0, period='minute'), '2.5/day')
        """
        found = _LIMIT.fullmatch(text)
        period = _PERIODS.get(found[2]) if found else None
        amount = float(found[1]) if found else 0.0
        if period is None or amount <= 0 or (whole and amount % 1):
            raise InputError(
                f"Got the limit {text!r}, but expected {'a whole number' if whole else 'a number'} "
                "above 0 and a period.",
                remedy="For example 60/min or 5/day; periods: second, minute, hour, day, month.",
            )
        return cls(amount, period)

    def end(self, now: float) -> float:
        """When the period ends that this moment is in; seconds since 1970.

        >>> Limit(1, "month").end(datetime(2026, 12, 31, 23, tzinfo=UTC).timestamp()) == (
        ...     datetime(2027, 1, 1, tzinfo=UTC).timestamp())
        True
        """
        if self.period != "month":
            seconds = _SECONDS[self.period]
            return (now // seconds + 1) * seconds
        day = datetime.fromtimestamp(now, UTC)
        months = day.year * 12 + day.month
        return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC).timestamp()

    def __str__(self) -> str:
        return f"{self.amount:.12g}/{self.period}"


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of a key.

    Attributes:
        id: Its name in records, ``"key_"`` and eight hexadecimal digits; no secret.
        name: What its maker calls it.
        admin: It opens the pages; it asks no models.
        models: The names that it may ask, None for all.
        rate: Requests that it may make, None for any number.
        spend: US dollars that it may spend, None for any sum.
        created: Seconds since 1970.
        revoked: When it ceased to be valid, None while it is.
    """

    id: str
    name: str
    admin: bool
    models: frozenset[str] | None
    rate: Limit | None
    spend: Limit | None
    created: float
    revoked: float | None


def hash_of(key: str) -> str:
    """What the store knows a key by: its SHA-256, hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


_COLUMNS = [column for column in KEYS.c if column.name != "hash"]


class Keys:
    """The keys of a store; ``Store.keys`` is one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        name: str,
        *,
        models: Sequence[str] | None = None,
        rate: Limit | None = None,
        spend: Limit | None = None,
        admin: bool = False,
    ) -> tuple[str, Key]:
        """Make a key.

        Args:
            name: For people; unique among the valid keys.
            models: The models that it may ask; None for all.
            rate: Requests that it may make.
            spend: US dollars that it may spend.
            admin: For the pages; excludes all of the above.

        Returns:
            The key itself, which cannot be shown again, and what is kept of it.

        Raises:
            InputError: The name is empty, long or taken, or an administrator's key has limits.
            StoreError: It could not be written.
        """
        if not name.strip() or len(name) > MAX_LABEL or not name.isprintable():
            raise InputError(
                f"Got the name {name!r}, but expected 1 to {MAX_LABEL} printable characters."
            )
        if admin and (models is not None or rate or spend):
            raise InputError(
                "Got models or limits for an administrator's key, which asks no models.",
                remedy="Create one key for the pages and another for the models.",
            )
        if models is not None and not all(models):
            raise InputError("Got an empty model name.", remedy="--models small,large")
        secret = PREFIX + secrets.token_urlsafe(32)
        allowed = None if models is None else frozenset(models)
        key = Key(
            f"key_{secrets.token_hex(4)}", name, admin, allowed, rate, spend, time.time(), None
        )
        with self._database.write() as connection:
            taken = sa.select(KEYS.c.id).where(KEYS.c.name == name, KEYS.c.revoked.is_(None))
            if connection.execute(taken).first() is not None:
                raise InputError(
                    f"There is a valid key called {name!r} already.",
                    remedy=f"Choose another name, or: pilotfish keys revoke {name!r}",
                )
            connection.execute(
                sa.insert(KEYS).values(
                    id=key.id,
                    name=name,
                    hash=hash_of(secret),
                    admin=admin,
                    models=None if allowed is None else msgspec.json.encode(sorted(allowed)),
                    rate=str(rate or ""),
                    spend=str(spend or ""),
                    created=key.created,
                )
            )
        return secret, key

    def revoke(self, name: str) -> Key:
        """End a key's validity, by its id or name; gateways notice within seconds.

        Raises:
            InputError: No valid key is called so.
        """
        named = sa.or_(KEYS.c.id == name, KEYS.c.name == name)
        with self._database.write() as connection:
            found = connection.execute(
                sa.select(KEYS.c.id).where(named, KEYS.c.revoked.is_(None))
            ).scalar()
            if found is None:
                raise InputError(
                    f"No valid key is called {name!r}.", remedy="pilotfish keys list shows them."
                )
            connection.execute(
                sa.update(KEYS).where(KEYS.c.id == found).values(revoked=time.time())
            )
            row = connection.execute(sa.select(*_COLUMNS).where(KEYS.c.id == found)).one()
        return _key(row)

    def all(self) -> list[Key]:
        """Every key that was ever made, the oldest first."""
        query = sa.select(*_COLUMNS).order_by(KEYS.c.created, KEYS.c.id)
        with self._database.read() as connection:
            return [_key(row) for row in connection.execute(query)]

    def valid(self) -> tuple[dict[str, Key], bool]:
        """Hash to key of every valid key, and whether any key was ever made."""
        query = sa.select(KEYS.c.hash, *_COLUMNS)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        valid = {row[0]: _key(row) for row in rows if row.revoked is None}
        return valid, bool(rows)


def _key(row: sa.Row[*tuple[object, ...]]) -> Key:
    values = row._mapping
    models = values["models"]
    return Key(
        id=values["id"],
        name=values["name"],
        admin=values["admin"],
        models=None if models is None else frozenset(msgspec.json.decode(models)),
        rate=Limit.parse(values["rate"]) if values["rate"] else None,
        spend=Limit.parse(values["spend"]) if values["spend"] else None,
        created=values["created"],
        revoked=values["revoked"],
    )
