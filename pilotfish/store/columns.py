"""Column types that give the same values back on both databases."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from pilotfish.store.encoding import escape, unescape


class Text(sa.types.TypeDecorator[str]):
    """Text in which NUL and lone surrogates survive (see :mod:`pilotfish.store.encoding`)."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Escape on the way in."""
        return None if value is None else escape(value)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Unescape on the way out."""
        return None if value is None else unescape(value)


class Time(sa.types.TypeDecorator[datetime]):
    """A moment in UTC; SQLite, which knows no time zones, holds it as readable UTC text."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """To UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """From UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite numbers rows by itself only in a column declared exactly INTEGER PRIMARY KEY.
Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
