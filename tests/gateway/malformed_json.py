"""Requests that are good HTTP and wrong inside: no JSON, wrong types and values, no such model."""

from __future__ import annotations

import copy
import gzip
import json
import random
import string
from collections.abc import Callable
from typing import Any

from tests.gateway.malformed import ANY, ERROR, Case

SAY = [{"role": "user", "content": "hi"}]
CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
REPLY, JUDGE = "/v1/responses", "/v1/feedback"
GOOD: dict[str, dict[str, Any]] = {
    CHAT: {"model": "fake", "messages": SAY},
    TEXT: {"model": "fake", "prompt": "hi"},
    EMBED: {"model": "static", "input": "hi"},
    REPLY: {"model": "far", "input": "hi"},
    JUDGE: {"request_id": "req_1", "score": 1},
}

# What no field of that kind may be. null stands for "not given", and only where that is allowed.
NUMBERS: list[Any] = [0, -1, 1.5, 10**30, -(2**63)]
NO_TEXT: list[Any] = [*NUMBERS, True, [], {}, [None]]
NO_OBJECT: list[Any] = [*NUMBERS, False, "x", "", [], [{}]]
NO_NUMBER: list[Any] = ["1", "", True, [], {}, [1]]
NO_FLAG: list[Any] = ["true", "", 1, 0, [], {}]
NO_COUNT: list[Any] = [*NO_NUMBER, 1.5]
NO_LIST: list[Any] = [*NUMBERS, True, "x", {}, {"0": {}}]
NO_MESSAGE: list[Any] = [
    None, 1, "user", [], [SAY], {}, {"content": "hi"}, {"role": None}, {"role": 1}, {"role": ["user"]},
    {"role": "user", "content": 1}, {"role": "user", "content": True}, {"role": "user", "content": {}},
    {"role": "user", "content": ["hi"]}, {"role": "user", "content": [None]},
]  # fmt: skip
WRONG: dict[str, dict[str, list[Any]]] = {
    CHAT: {
        "model": NO_TEXT,
        "messages": [None, "hi", 1, {}, [], *([message] for message in NO_MESSAGE)],
        "stream": NO_FLAG,
        "stream_options": NO_OBJECT,
        "user": NO_TEXT,
        "n": [*NO_COUNT, 0, -1, 129, 10**9, 10**30],
        "temperature": NO_NUMBER,
        "top_p": NO_NUMBER,
        "max_tokens": NO_COUNT,
        "max_completion_tokens": NO_COUNT,
        "seed": NO_COUNT,
        "stop": [1, True, {}, [1], [None], [[]]],
        "logprobs": NO_FLAG,
        "top_logprobs": NO_COUNT,
        "tools": [*NO_LIST, ["x"], [None], [1]],
        "tool_choice": [*NUMBERS, True, []],
        "response_format": NO_OBJECT,
    },
    TEXT: {
        "model": NO_TEXT,
        "prompt": [None, *NUMBERS, {}, [], [1, 2], [None], [{}], ["x"] * 129],
        "stream": NO_FLAG,
        "stream_options": NO_OBJECT,
        "user": NO_TEXT,
        "echo": [True],
        "suffix": ["x"],
        "best_of": [2, 10**30],
    },
    EMBED: {
        "model": NO_TEXT,
        "input": [None, *NUMBERS, {}, [], [1, 2], [None], [["x"]], ["x"] * 2049],
        "encoding_format": [1, "int8", "", [], {}],
        "dimensions": [*NO_COUNT, 0, -1, 10**9, 10**30],
    },
    REPLY: {
        "model": NO_TEXT,
        "input": [*NUMBERS, True, {}, ["x"], [None], [1]],
        "stream": NO_FLAG,
    },
    JUDGE: {
        "request_id": [*NO_TEXT, None, "", "x" * 65],
        "label": [*NO_TEXT, "x" * 1001],
        "score": [*NO_NUMBER, -0.1, 1.1, 10**30],
        "comment": [*NO_TEXT, "x" * 10_001],
    },
}
NEEDED = {CHAT: "messages", TEXT: "prompt", EMBED: "input", JUDGE: "request_id"}


def post(
    kind: str,
    path: str,
    body: bytes,
    must: str = ERROR,
    statuses: tuple[int, ...] = (),
    fields: tuple[str, ...] = (),
) -> Case:
    """A case of one POST."""
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
    lines += ["content-type: application/json", *fields]
    head = "\r\n".join(lines) + "\r\n\r\n"
    return Case(kind, (head.encode("latin-1") + body,), must, frozenset(statuses))


def wrong_type(rng: random.Random) -> Case:
    """A field that is of the wrong type or out of its range."""
    path = rng.choice(list(WRONG))
    name = rng.choice(list(WRONG[path]))
    said = {**GOOD[path], name: rng.choice(WRONG[path][name])}
    if path == CHAT and rng.random() < 0.3:
        said.setdefault("stream", True)
    return post("wrong type", path, json.dumps(said).encode(), statuses=(400,))


def missing(rng: random.Random) -> Case:
    """The field that is needed is not there."""
    path = rng.choice(list(NEEDED))
    said = {name: value for name, value in GOOD[path].items() if name != NEEDED[path]}
    said["".join(rng.choices(string.ascii_letters, k=5))] = rng.choice([None, 1, "x", []])
    return post("missing field", path, json.dumps(said).encode(), statuses=(400,))


def no_model(rng: random.Random) -> Case:
    """A model that is not served: no name but a declared one may reach a backend, a file or a module."""
    path = rng.choice([CHAT, TEXT, EMBED, REPLY])
    name = rng.choice(
        [
            "fake:hi",
            "openai:gpt-5",
            "ollama:x",
            "llamacpp:/etc/passwd",
            "/etc/passwd",
            "../..",
            ".",
            "~",
            "os:system",
            "builtins:eval",
            "http://127.0.0.1/x",
            "fake\x00",
            "fake ",
            "FAKE",
            "fäke",
            " ",
            "\u202efake",
            "x" * rng.randint(100, 20000),
            "'; drop table pilotfish_traffic; --",
            "%00",
            "".join(chr(rng.randrange(32, 12287)) for _ in range(rng.randint(1, 60))),
        ]
    )
    return post(
        "unknown model", path, json.dumps({**GOOD[path], "model": name}).encode(), statuses=(404,)
    )


def no_json(rng: random.Random) -> Case:
    """A body that is no JSON object."""
    path = rng.choice(list(GOOD))
    good = json.dumps(GOOD[path]).encode()
    said = rng.choice(
        [
            b"",
            b" ",
            b"null",
            b"true",
            b"1",
            b'"x"',
            b"[]",
            b"[" + good + b"]",
            good + b"x",
            good + good,
            good[: rng.randint(1, len(good) - 1)],
            good.replace(b'"', b"'"),
            good[:-1] + b",}",
            b"\xef\xbb\xbf" + good,
            good + b"\x00",
            b"// x\n" + good,
            good.decode().encode("utf-16"),
            good.decode().encode("utf-32"),
            gzip.compress(good),
            b"model=fake&prompt=x",
            b"--x\r\ncontent-disposition: form-data\r\n\r\n",
            good[:-1] + b', "x": NaN}',
            good[:-1] + b', "x": Infinity}',
            good[:-1] + b', "x": 01}',
            good[:-1] + b', "x": "\n"}',
            good[:-1] + b', "x": "\\x"}',
            good[:-1] + b', "x": undefined}',
        ]
    )
    return post("no JSON", path, said, statuses=(400,))


def bad_text(rng: random.Random) -> Case:
    """Bytes that are no UTF-8, and surrogates without their other half."""
    path = rng.choice(list(GOOD))
    bad = rng.choice(
        [
            b"\xff",
            b"\xc3(",
            b"\xed\xa0\x80",
            b"\xf8\x88\x80\x80\x80",
            b"\xc0\xaf",
            b"\x80",
            b"\xe2\x82",
            b"\\ud800",
            b"\\udc00",
            b"\\ud800\\ud800",
            b"\\ud83d x",
            b"\\u12",
            b"\\uZZZZ",
        ]
    )
    good = json.dumps(GOOD[path]).encode()
    said = good.replace(b'"hi"', b'"' + bad + b'"', 1) if b'"hi"' in good else good
    if said == good:
        said = good[:-1] + b', "label": "' + bad + b'"}'
    return post("bad text", path, said, statuses=(400,))


def deep(rng: random.Random) -> Case:
    """Nesting, shallow enough to be read or not."""
    path = rng.choice(list(GOOD))
    depth = rng.choice([50, 400, 900, 990, 1100, 5000, 90_000])
    opening, closing = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
    nested = opening * depth + b"1" + closing * depth
    if rng.random() < 0.3:
        return post("deep", path, nested)
    name = rng.choice([b"metadata", b"messages", b"input", b"x", b"tools"])
    said = json.dumps(GOOD[path]).encode()[:-1] + b', "' + name + b'": ' + nested + b"}"
    return post("deep", path, said, ANY)


def huge(rng: random.Random) -> Case:
    """Numbers beyond what a machine word holds, and texts and lists that are long or strange."""
    path = rng.choice(list(GOOD))
    digits = b"9" * rng.choice([19, 20, 400, 4000, 5000, 20_000])
    said = rng.choice(
        [digits, b"-" + digits, b"1e999", b"-1e999", b"1e-999", b"0." + digits, digits + b"e9"]
    )
    name = rng.choice(
        [b"seed", b"temperature", b"max_tokens", b"n", b"x", b"score", b"dimensions", b"logit_bias"]
    )
    body = json.dumps(GOOD[path]).encode()[:-1] + b', "' + name + b'": ' + said + b"}"
    return post("huge number", path, body, ANY)


def strange(rng: random.Random) -> Case:
    """JSON that a parser may read in one way or another, or that is merely odd."""
    path = rng.choice(list(GOOD))
    good = json.dumps(GOOD[path]).encode()
    said = rng.choice(
        [
            good[:-1] + b', "model": "fake", "model": 1}',
            good[:-1] + b', "": {"": null}}',
            good.replace(b"hi", b"\\u0000\\uffff\\u202e"),
            good.replace(b"hi", b"\\ud83d\\ude00"),
            good[:-1] + b', "__class__": "x", "__proto__": {}, "constructor": 1}',
            good[:-1] + b', "x": ' + json.dumps(["y"] * rng.randint(1, 20000)).encode() + b"}",
            b"\t\r\n " * 2000 + good,
            good.replace(b"hi", b"a" * 100000),
            good[:-1] + b', "stream": true, "stream_options": {"include_usage": [1], "x": {}}}',
        ]
    )
    return post("strange", path, said, ANY)


def any_value(rng: random.Random) -> Case:
    """Random values in random places."""
    path = rng.choice(list(GOOD))
    said = copy.deepcopy(GOOD[path])
    for _ in range(rng.randint(1, 4)):
        names = [*WRONG[path], "metadata", "x"]
        said[rng.choice(names)] = _value(rng, 0)
    return post("any value", path, json.dumps(said).encode(), ANY)


def _value(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(5 if depth > 3 else 7)
    match kind:
        case 0:
            return rng.choice([None, True, False])
        case 1:
            return rng.choice([0, -1, 1, 128, 2**31, 2**63, 2**64, -(10**40), 0.5, -0.0, 1e308])
        case 2 | 3:
            return "".join(
                chr(rng.choice([9, 65, 228, 0x4E2D, 0x1F600])) for _ in range(rng.randint(0, 9))
            )
        case 4:
            return rng.choice(["user", "fake", "static", "auto", "", "base64"])
        case 5:
            return [_value(rng, depth + 1) for _ in range(rng.randint(0, 4))]
        case _:
            names = ["role", "content", "type", "text", "function", "x", "include_usage"]
            return {rng.choice(names): _value(rng, depth + 1) for _ in range(rng.randint(0, 4))}


def header(rng: random.Random) -> Case:
    """Headers that the gateway reads, with what they should not hold."""
    odd = [
        "",
        "nan",
        "inf",
        "-1",
        "0",
        "1e999",
        "abc",
        "\xff\xfe",
        "x" * 5000,
        "0x10",
        "1_000",
        '"\\',
    ]
    name = rng.choice(
        ["x-request-timeout", "x-pilotfish-task", "authorization", "origin", "content-type"]
    )
    fields = (f"{name}: {rng.choice(odd)}",)
    return post("odd header", CHAT, json.dumps(GOOD[CHAT]).encode(), ANY, fields=fields)


def no_key(rng: random.Random) -> Case:
    """No key, or none of ours; for a gateway that demands one."""
    path = rng.choice(list(GOOD))
    said = rng.choice(
        [
            "",
            "Bearer",
            "Bearer ",
            "Bearer x",
            "Bearer pf-" + "a" * 40,
            "Basic Og==",
            "Basic ÿ",
            "bearer\tx",
            "Bearer " + "x" * rng.randint(1, 9000),
            "Digest username=x",
            "Bearer ÿþ",
            "x" * 300,
        ]
    )
    body = rng.choice([json.dumps(GOOD[path]).encode(), b"{", b""])
    return post(
        "no key", path, body, statuses=(401,), fields=(f"authorization: {said}",) if said else ()
    )


MAKERS: tuple[Callable[[random.Random], Case], ...] = (
    wrong_type, wrong_type, wrong_type, missing, no_model, no_json, no_json, bad_text, deep, huge,
    strange, any_value, any_value, header,
)  # fmt: skip
