"""API keys: shown once, kept as a hash, ended by revoking; limits as they are written."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.errors import InputError
from pilotfish.store.gateway_schema import KEYS
from pilotfish.store.keys import Limit, hash_of


def test_a_key_is_kept_as_its_hash_alone(store, url):
    secret, key = store.keys.create(
        "app", models=["b", "a"], rate=Limit(60, "minute"), spend=Limit(2.5, "day")
    )
    assert secret.startswith("pf-")
    assert len(secret) == 3 + 43  # 256 bits in base 64
    assert hash_of(secret) == hashlib.sha256(secret.encode()).hexdigest()
    assert store.keys.all() == [key]
    assert store.keys.valid() == ({hash_of(secret): key}, True)
    with store._database.read() as connection:
        (row,) = connection.execute(sa.select(KEYS)).all()
    assert secret not in str(row)
    assert secret[3:] not in str(row)
    assert (key.models, str(key.rate), str(key.spend)) == ({"a", "b"}, "60/minute", "2.5/day")
    if url.startswith("sqlite"):
        for path in url.removeprefix("sqlite:///"), url.removeprefix("sqlite:///") + "-wal":
            with open(path, "rb") as file:
                assert secret[3:].encode() not in file.read()


def test_keys_differ(store):
    secrets = {store.keys.create(f"app {i}")[0] for i in range(20)}
    assert len(secrets) == 20
    assert len({key.id for key in store.keys.all()}) == 20


def test_a_revoked_key_is_not_valid_and_is_remembered(store):
    assert store.keys.valid() == ({}, False)
    _, one = store.keys.create("one")
    _, two = store.keys.create("two")
    assert store.keys.revoke("one").revoked is not None
    assert list(store.keys.valid()[0].values()) == [two]
    store.keys.revoke(two.id)
    assert store.keys.valid() == ({}, True), "that there were keys is not forgotten"
    assert [k.revoked is None for k in store.keys.all()] == [False, False]
    for name in ("one", one.id, "three", ""):
        with pytest.raises(InputError, match="No valid key"):
            store.keys.revoke(name)


def test_a_name_is_taken_until_its_key_is_revoked(store):
    store.keys.create("app")
    with pytest.raises(InputError, match="already") as caught:
        store.keys.create("app")
    assert "revoke" in caught.value.remedy
    store.keys.revoke("app")
    _, key = store.keys.create("app")
    assert store.keys.revoke("app").id == key.id


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "  "},
        {"name": "x" * 129},
        {"name": "two\nlines"},
        {"name": "a", "models": ["", "b"]},
        {"name": "a", "admin": True, "models": ["b"]},
        {"name": "a", "admin": True, "rate": Limit(1, "day")},
        {"name": "a", "admin": True, "spend": Limit(1, "day")},
    ],
)
def test_wrong_keys_are_refused(store, wrong):
    with pytest.raises(InputError):
        store.keys.create(**wrong)
    assert store.keys.all() == []


@pytest.mark.parametrize(
    "text", ["", "60", "60/", "/min", "0/min", "-1/min", "1e9/min", "nan/day", "5/week", "5 day"]
)
def test_what_is_no_limit(text):
    with pytest.raises(InputError, match="expected a number"):
        Limit.parse(text)


def test_requests_are_whole():
    assert Limit.parse("2/s", whole=True) == Limit(2, "second")
    with pytest.raises(InputError, match="whole number"):
        Limit.parse("1.5/min", whole=True)


@given(
    st.floats(0.001, 1e9).map(lambda x: float(f"{x:.6g}")),
    st.sampled_from(["second", "minute", "hour", "day", "month"]),
)
def test_limits_are_read_as_they_are_written(amount, period):
    assert Limit.parse(str(Limit(amount, period))) == Limit(amount, period)


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(["second", "minute", "hour", "day", "month"]),
)
def test_a_period_ends_where_the_calendar_says(moment, period):
    end = datetime.fromtimestamp(Limit(1, period).end(moment.timestamp()), UTC)
    zero = {"microsecond": 0, "second": 0, "minute": 0, "hour": 0, "day": 1}
    order = ["second", "minute", "hour", "day", "month"]
    start_of = {name: zero[name] for name in ["microsecond", *order[: order.index(period)]]}
    assert end == end.replace(**start_of), "it is the start of a period"
    assert moment < end
    start = moment.replace(**start_of)
    assert Limit(1, period).end(start.timestamp()) == end.timestamp(), "there is none in between"
