"""Redaction: what is found, what is left alone, and that nothing passes it by."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.errors import ConfigError
from pilotfish.gateway.redaction import (
    find_redactor,
    redact_patterns,
    redacted,
    without_texts,
)
from pilotfish.records import Completion, Decision, Request, Usage
from pilotfish.store.traffic_rows import pack, unpack
from tests.store.test_store import json_values
from tests.store.test_traffic import exchange


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to Jo.Doe+x@mail.example.co.uk, please", "write to [email], please"),
        ("<jo@example.org>", "<[email]>"),
        ("card 4111-1111-1111-1111!", "card [card]!"),
        ("4111111111111111", "[card]"),
        ("3782 822463 10005", "[card]"),  # American Express writes 4-6-5
        ("sk-proj-abcDEF0123456789abcdef", "[key]"),
        ("key=pf-n0wiSzZZ0803ufTDKhCM89MHI06iG49ThCd6wMuF7_Y.", "key=[key]."),
        ("ghp_0123456789abcdefghijABCDEFGHIJ012345", "[key]"),
        ("AKIAIOSFODNN7EXAMPLE", "[key]"),
        ("Authorization: Bearer abc.def-ghi_jkl012345", "Authorization: Bearer [key]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0xx.c2lnbmF0dXJl", "[key]"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nbye",
            "[key]\nbye",
        ),
        ("+1 (555) 010-9999", "[phone]"),
        ("call +49 30 1234567 now", "call [phone] now"),
        ("555-010-9999", "[phone]"),
        ("(030) 123 4567", "[phone]"),
    ],
)
def test_what_is_found(text, expected):
    assert redact_patterns(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "on 2026-11-21 at 12:30:05, 1,234,567 pieces for 1234.50",
        "4111 1111 1111 1112",  # Luhn's digit is wrong
        "version 10.20.30, address 192.168.100.200",
        "0000000000000000",
        "user@localhost, a@b, @someone",
        "sk-learn, task-force, risk-averse-investors",
        "ISBN 978-3-16-148410-0",
        "3.14159265358979323846",
    ],
)
def test_what_is_left_alone(text):
    assert redact_patterns(text) == text


@given(st.lists(st.integers(0, 9), min_size=12, max_size=18), st.sampled_from(["", " ", "-"]))
def test_cards_are_those_with_luhns_digit(digits, between):
    """The check digit is computed here as ISO/IEC 7812-1 describes it, from the right."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        double = digit * 2 if position % 2 == 0 else digit
        total += double // 10 + double % 10
    right = (10 - total % 10) % 10
    for last in range(10):
        text = between.join(map(str, [*digits, last]))
        found = redact_patterns(text) == "[card]"
        assert found == (last == right and any([*digits, last]))


def test_hostile_texts_cost_no_more_than_others():
    for text in ("a" * 200_000, "a@" * 100_000, "1 " * 100_000, "a.b-" * 50_000, "+1" * 100_000):
        for tail in ("", "@", "@x"):
            began = time.process_time()
            redact_patterns(text + tail)
            assert time.process_time() - began < 2.0, text[:10]


def _mask(text: str) -> str:
    return re.sub("[a-z]", "x", text)


def test_every_text_of_an_exchange_is_redacted():
    secret = "alice"
    part = {"type": "text", "text": secret}
    call = {"id": "1", "function": {"name": secret, "arguments": '{"who":"alice"}'}}
    given_ = exchange(
        1,
        request=Request(
            ({"role": "user", "content": [part]}, {"role": "assistant", "tool_calls": [call]}),
            {"user": secret, "metadata": {"a": [secret]}, "n": 2},
            "task",
            secret,
            {"team": secret},
        ),
        completion=Completion(
            secret,
            "m",
            Usage(1, 2, 3),
            0.5,
            tool_calls=(call,),
            logprobs=({"token": "ali"}, {"token": "ce"}),
            decisions=(Decision("cascade", "m", "last"),),
            extra={"choices": [{"message": {"content": secret}, "logprobs": {"content": ["ali"]}}]},
        ),
    )
    cleaned = redacted(given_, lambda text: text.replace("alice", "[name]"))
    written = unpack(pack(cleaned.request)) + unpack(pack(cleaned.completion))
    assert b"ali" not in written
    assert b"[name]" in written
    assert cleaned.request.params["n"] == 2
    assert cleaned.request.messages[0]["content"][0]["text"] == "[name]"
    assert cleaned.request.messages[0]["role"] == "user"
    assert cleaned.completion.decisions == given_.completion.decisions
    assert (cleaned.completion.usage, cleaned.completion.cost) == (Usage(1, 2, 3), 0.5)
    assert given_.completion.text == secret, "what the client gets is not changed"


@given(json_values())
def test_only_texts_change(value):
    given_ = exchange(1, request=Request(({"x": value},)))
    (message,) = redacted(given_, lambda text: text).request.messages
    assert message["x"] == value
    (message,) = redacted(given_, lambda text: "").request.messages
    assert not any(isinstance(leaf, str) and leaf for leaf in _leaves(message["x"]))


def _leaves(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [value]


def test_without_texts():
    completion = Completion(
        "secret",
        "m",
        Usage(1, 2),
        0.5,
        1.5,
        "length",
        ({"token": "secret"},),
        ({"id": "secret"},),
        {"secret": 1.0},
        (Decision("cascade", "m", "last"),),
        extra={"secret": "secret"},
    )
    bare = without_texts(exchange(1, completion=completion))
    assert bare.request is None
    assert "secret" not in repr(bare)
    assert bare.completion == Completion(
        "", "m", Usage(1, 2), 0.5, 1.5, "length", decisions=completion.decisions
    )
    assert without_texts(exchange(1, completion=None)).completion is None


def test_a_redactor_is_found_by_name():
    assert find_redactor("") is None
    assert find_redactor("patterns") is redact_patterns
    assert find_redactor("html:escape")("<") == "&lt;"
    for name in ("pattern", "html:no_such", "no_such_module:x", ":", "html:__doc__"):
        with pytest.raises(ConfigError, match="redact"):
            find_redactor(name)


def test_a_redactor_that_returns_no_text_is_not_believed():
    with pytest.raises(TypeError, match="NoneType"):
        redacted(exchange(1), lambda text: None)
