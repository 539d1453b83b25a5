"""Meters: what a key has used in its period, counted once for all gateways that share the store.

A gateway takes a lease of some units before it uses them, so the sum of all that is granted in a period
never exceeds the limit, on however many machines. What a gateway takes and does not use is lost to the
others until it gives it back or the period ends. Time is the database's, the one clock they share.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from pilotfish.store.database import Database
from pilotfish.store.gateway_schema import METERS
from pilotfish.store.keys import Limit


@dataclass(frozen=True, slots=True)
class Lease:
    """What was granted.

    Attributes:
        granted: Units that may be used, 0 when the period's are used up.
        ends: The period's end, seconds since 1970 by the database's clock; units are void after it.
        remains: Seconds until then.
    """

    granted: float
    ends: float
    remains: float


class Meters:
    """The meters of a store; ``Store.meters`` is one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, name: str, limit: Limit, wanted: float, *, owed: float = 0.0) -> Lease:
        """Take units from a meter.

        Args:
            name: The meter's; it exists from its first use.
            limit: What it grants in each period.
            wanted: Units; fewer are granted when fewer are left.
            owed: Units that were used beyond earlier leases; counted whatever the limit.

        Raises:
            StoreError: The store failed; nothing was taken.
        """
        with self._database.write() as connection:
            now = self._database.now(connection).timestamp()
            end = limit.end(now)
            fresh = self._database.insert(METERS).values(name=name, ends=end, used=0.0)
            connection.execute(fresh.on_conflict_do_nothing(index_elements=["name"]))
            row = sa.select(METERS.c.ends, METERS.c.used).where(METERS.c.name == name)
            ends, used = connection.execute(row.with_for_update()).one()
            # A clock that was set back must not open a period again.
            used = used if ends >= end else 0.0
            end = max(end, ends)
            granted = min(wanted, max(0.0, limit.amount - used - owed))
            change = sa.update(METERS).where(METERS.c.name == name)
            connection.execute(change.values(ends=end, used=used + owed + granted))
        return Lease(granted, end, end - now)

    def give_back(self, name: str, ends: float, units: float) -> None:
        """Return what was not used of the period that ends then; void when that period is over."""
        change = sa.update(METERS).where(METERS.c.name == name, METERS.c.ends == ends)
        with self._database.write() as connection:
            connection.execute(change.values(used=METERS.c.used - units))

    def used(self, name: str, limit: Limit) -> float:
        """Units of the current period that are used or leased."""
        with self._database.read() as connection:
            end = limit.end(self._database.now(connection).timestamp())
            row = sa.select(METERS.c.used).where(METERS.c.name == name, METERS.c.ends >= end)
            return float(connection.execute(row).scalar() or 0.0)
