"""Who may use the gateway: API keys, the models each may ask, and its limits on requests and money.

A request pays for a look into a dictionary. The keys are read again every :data:`FRESH` seconds, so a
revoked key is refused at most :data:`STALE` seconds later, and a new one is valid at once. Limits hold
over all workers and machines, because units are leased from meters in the store
(:mod:`pilotfish.store.meters`):

- *Requests* are leased in blocks of 1% of the limit, one by one below 200 a period. More than the limit
  are never admitted. Fewer can be: a worker may hold up to one block less one that it does not use.
- *Money* is known after it is spent. A worker leases 1% of the limit at a time, and admits requests while
  something is left. The limit is exceeded at most by the cost of the answers that were under way, on all
  workers, when their last lease ran out. Answers of unknown cost are not counted.

No key, and no header that may hold one, is kept, logged or told.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar, TypeVarTuple, Unpack

from pilotfish.errors import StoreError
from pilotfish.gateway.refusals import Refusal
from pilotfish.store.keys import PREFIX, Key, Limit, hash_of
from pilotfish.store.store import Store

FRESH, STALE = 2.0, 5.0  # seconds; in between, the keys are read again beside the requests
NEW = 0.25  # seconds between two looks for a key that is not known
BLOCKS = 100  # a lease is this part of a limit

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class AccessSettings(Protocol):
    """What is needed of the settings under ``[serve]``."""

    @property
    def keys(self) -> Literal["auto", "required", "off"]:
        """Whether keys are demanded."""

    @property
    def host(self) -> str:
        """Where the gateway listens."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        id: The key's id, "" without a key.
        name: The key's name, "" without a key.
        models: Names that may be asked, None for all.
        admin: May see the pages. With a key, it then asks no models; without, this machine's user does
            both.
        rate: Limit on requests, or None.
        spend: Limit on US dollars, or None.
    """

    id: str = ""
    name: str = ""
    models: frozenset[str] | None = None
    admin: bool = False
    rate: Limit | None = None
    spend: Limit | None = None

    def may_use(self, model: str) -> bool:
        """Whether this caller may ask the model."""
        if self.admin and self.id:
            return False
        return self.models is None or model in self.models


@dataclass(slots=True)
class _Tank:
    """What this worker holds of one limit of one key."""

    meter: str
    limit: Limit
    left: float = 0.0
    ends: float = 0.0
    until: float = 0.0  # by this worker's monotonic clock
    empty: bool = False  # the period's units are used up
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Access:
    """Decides who may. Its methods are called on one event loop.

    Args:
        store: Where keys and meters are.
        settings: ``keys`` says whether keys are demanded; ``"auto"``: when any was ever made (so that
            revoking the last one does not open the gateway), or others than this machine can reach it.

    Attributes:
        denied: Requests refused for want of a valid key; they are not recorded.
    """

    def __init__(self, store: Store, settings: AccessSettings) -> None:
        self.denied = 0
        self._store = store
        self._mode = settings.keys
        self._local = is_loopback(settings.host)
        self._callers: dict[str, Caller] = {}
        self._any = False
        self._read = -math.inf
        self._tried = -math.inf
        self._reading: asyncio.Task[None] | None = None
        self._tanks: dict[str, _Tank] = {}
        self._settling: set[asyncio.Task[None]] = set()
        # Its own: in the common pool, models that compute may keep every thread for minutes.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="pilotfish-access")
        # Without keys nobody is told apart: whoever is on this machine may all.
        self._anybody = Caller(admin=self._local)

    async def admit(self, authorization: str | None) -> Caller:
        """The caller that the header's key stands for.

        Args:
            authorization: The header's value, ``"Bearer KEY"``, or None.

        Raises:
            Refusal: 401: no key where one is demanded, or one that is not valid.
            StoreError: The keys cannot be read.
        """
        await self._refresh()
        key = _bearer(authorization)
        if key.startswith(PREFIX):
            hashed = hash_of(key)
            caller = self._callers.get(hashed)
            if caller is None and time.monotonic() - self._tried > NEW:
                await self._load()
                caller = self._callers.get(hashed)
            if caller is not None:
                return caller
        if not self.demanded:
            return self._anybody  # clients send some key even to servers that want none
        self.denied += 1
        if not key:
            raise Refusal(
                401,
                "missing_api_key",
                "Got no API key.",
                remedy="Send the header Authorization: Bearer KEY; pilotfish keys create makes one.",
            )
        raise Refusal(
            401,
            "invalid_api_key",
            "The API key is not valid here.",
            remedy="It may have been revoked; pilotfish keys create makes another.",
        )

    async def charge(self, caller: Caller) -> None:
        """Count a request before it is worked on.

        Raises:
            Refusal: 429: a limit of the caller is reached; says when to try again.
            StoreError: The limit cannot be read.
        """
        if caller.spend is not None:
            tank = self._tank(caller, "spend", caller.spend)
            if not self._holds(tank):
                await self._fill(tank, caller.spend.amount / BLOCKS)
            if tank.left <= 0:
                raise self._refusal(caller, tank, "insufficient_quota", "US dollars")
        if caller.rate is not None:
            tank = self._tank(caller, "rate", caller.rate)
            block = max(1, int(caller.rate.amount // BLOCKS))
            while not self._holds(tank):  # again when others took all while this one waited
                await self._fill(tank, block)
                if tank.left < 1 and tank.empty:
                    raise self._refusal(caller, tank, "rate_limit_exceeded", "requests")
            tank.left -= 1

    def spent(self, caller: Caller, cost: float | None) -> None:
        """Count what an answer cost, once it is known; never waits."""
        if caller.spend is None or not cost or not math.isfinite(cost):
            return
        tank = self._tank(caller, "spend", caller.spend)
        tank.left -= cost
        if (
            tank.left < 0
        ):  # the other workers must know of it, whether or not more requests come here
            task = asyncio.get_running_loop().create_task(self._fill(tank, 0.0))
            self._settling.add(task)
            task.add_done_callback(self._settled)

    async def aclose(self) -> None:
        """Give back what was leased and not used."""
        await asyncio.gather(*self._settling, return_exceptions=True)
        for tank in self._tanks.values():
            if tank.left > 0 and time.monotonic() < tank.until:
                left, tank.left = tank.left, 0.0
                await self._call(self._store.meters.give_back, tank.meter, tank.ends, left)
        self._threads.shutdown()

    async def _call(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    # Keys.

    @property
    def demanded(self) -> bool:
        """Whether nobody is let in without a key."""
        if self._mode == "auto":
            return self._any or not self._local
        return self._mode == "required"

    async def _refresh(self) -> None:
        age = time.monotonic() - self._read
        if age < FRESH:
            return
        if age < STALE:
            if self._reading is None and time.monotonic() - self._tried > NEW:
                self._begin()
            return
        if self._reading is None and time.monotonic() - self._tried < NEW:
            self._out_of_date()  # it has just failed: not every request asks it again
            return
        try:
            await self._load()
        except StoreError:
            self._out_of_date()

    def _out_of_date(self) -> None:
        # A gateway that never demanded keys goes on; else a revoked key might be let in for ever.
        if self.demanded or self._read == -math.inf:
            raise StoreError(
                "The API keys cannot be read from the store.", remedy="See GET /readyz."
            )

    async def _load(self) -> None:
        """Read the keys; those who ask meanwhile share one reading."""
        await asyncio.shield(self._reading or self._begin())

    def _begin(self) -> asyncio.Task[None]:
        self._tried = time.monotonic()
        self._reading = asyncio.get_running_loop().create_task(self._read_keys())
        self._reading.add_done_callback(self._done)
        return self._reading

    def _done(self, task: asyncio.Task[None]) -> None:
        self._reading = None
        if not task.cancelled():
            task.exception()  # those who wait raise it; if nobody does, the next request reads again

    async def _read_keys(self) -> None:
        began = time.monotonic()
        keys, self._any = await self._call(self._store.keys.valid)
        self._callers = {hashed: _caller(key) for hashed, key in keys.items()}
        self._read = began

    # Limits.

    def _tank(self, caller: Caller, kind: str, limit: Limit) -> _Tank:
        meter = f"{caller.id}:{kind}"
        tank = self._tanks.get(meter)
        if tank is None:
            tank = self._tanks[meter] = _Tank(meter, limit)
        return tank

    def _holds(self, tank: _Tank) -> bool:
        """Whether a request can be decided without the store."""
        return time.monotonic() < tank.until and (
            tank.left >= 1 or (_is_money(tank) and tank.left > 0)
        )

    async def _fill(self, tank: _Tank, block: float) -> None:
        async with tank.lock:
            now = time.monotonic()
            if (
                now >= tank.until
            ):  # the last period's rest is void, its debt is not counted in this one
                tank.left, tank.empty = 0.0, False
            elif (tank.empty and tank.left >= 0) or (block and self._holds(tank)):
                return
            owed = max(0.0, -tank.left)
            take = functools.partial(self._store.meters.take, owed=owed)
            lease = await self._call(take, tank.meter, tank.limit, block)
            rest = tank.left + owed if lease.ends == tank.ends or not tank.ends else 0.0
            tank.left = rest + lease.granted
            tank.ends, tank.until = lease.ends, now + lease.remains
            tank.empty = block > 0 and lease.granted <= 0

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._settling.discard(task)
        if not task.cancelled():
            task.exception()  # what is owed stays owed, and is counted with the next lease

    def _refusal(self, caller: Caller, tank: _Tank, code: str, what: str) -> Refusal:
        wait = max(0.0, tank.until - time.monotonic())
        return Refusal(
            429,
            code,
            f"The key {caller.name!r} has used its {tank.limit.amount:g} {what} "
            f"of this {tank.limit.period}.",
            kind="insufficient_quota" if code == "insufficient_quota" else "",
            retry_after=wait,
        )


def _is_money(tank: _Tank) -> bool:
    return tank.meter.endswith(":spend")


def _caller(key: Key) -> Caller:
    return Caller(key.id, key.name, key.models, key.admin, key.rate, key.spend)


def _bearer(authorization: str | None) -> str:
    scheme, _, rest = (authorization or "").partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else ""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
