"""The event stream parser: any cut of the bytes gives the same events and the same completion."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.errors import BadAnswer
from pilotfish.models.chat_format import StreamAssembler, parse_chat
from pilotfish.models.fake_replies import chat_reply, split_words, stream_events
from pilotfish.models.sse import DONE, EventParser
from pilotfish.records import Completion


def parse(*chunks: bytes) -> list[str]:
    parser = EventParser()
    return [data for chunk in chunks for data in parser.feed(chunk)] + list(parser.close())


def assembled(*chunks: bytes) -> Completion:
    assembler = StreamAssembler("m")
    for data in parse(*chunks):
        if data != DONE:
            assembler.add(msgspec.json.decode(data))
    return parse_chat(assembler.result(), name="m")


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


# Worked examples of the WHATWG standard's section on event stream interpretation.
@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", ["YHOO\n+2\n10"]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n",
            ["first event", "second event"],
        ),
        (b"data\n\ndata\ndata\n\ndata:", ["", "\n"]),
        (b"data:test\n\ndata: test\n\n", ["test", "test"]),
        (b"\xef\xbb\xbfdata: 1\n\n", ["1"]),
        (b"data: 1\r\n\r\ndata: 2\r\rdata: 3\n\n", ["1", "2", "3"]),
        (b"event: x\nretry: 3\n\n", []),
        (b"data: 1\n\ndata: [DONE]", ["1", DONE]),
        (b'data: {"half":', []),
    ],
)
def test_examples_of_the_standard(stream: bytes, events: list[str]) -> None:
    assert parse(stream) == events
    assert parse(*(bytes([byte]) for byte in stream)) == events


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), max_size=5
    ),
    st.sampled_from(["\n", "\r", "\r\n"]),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_any_cut_gives_the_same_events(events: list[str], end: str, places: list[int]) -> None:
    stream = "".join(f": c{end}data: {event}{end}{end}" for event in events).encode()
    assert parse(*cut(stream, places)) == events


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.integers(0, 100_000), max_size=12),
)
def test_any_cut_gives_the_same_completion(text: str, places: list[int]) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": f'"{text}"'}}
    body = {"messages": [], "logprobs": True, "stream_options": {"include_usage": True}}
    reply = chat_reply(body, {"content": text, "tool_calls": [call]})
    stream = b"".join(stream_events(body, reply))
    whole = parse_chat(reply, name="m")
    streamed = assembled(*cut(stream, places))
    assert whole.text == text
    for name in ("text", "tool_calls", "logprobs", "usage", "finish_reason", "extra"):
        assert getattr(streamed, name) == getattr(whole, name), name


@given(st.text())
def test_words_join_to_the_text(text: str) -> None:
    assert "".join(split_words(text)) == text


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(UnicodeDecodeError):
        parse(b"data: \xff\n\n")


@pytest.mark.parametrize(
    "event",
    [
        [],
        3,
        {"choices": "x"},
        {"choices": [3]},
        {"choices": [{"delta": [1]}]},
        {"choices": [{"delta": {"content": 5}}]},
    ],
)
def test_events_that_are_no_chunks(event: object) -> None:
    with pytest.raises(BadAnswer):
        StreamAssembler("m").add(event)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "text",
        {},
        {"choices": None},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"message": "x"}]},
        {"choices": [{"message": {"content": 3}}]},
    ],
)
def test_answers_that_are_no_completions(answer: object) -> None:
    with pytest.raises(BadAnswer):
        parse_chat(answer, name="m")


def test_odd_but_real_answers_are_read() -> None:
    # Mistral sends content in parts; DeepSeek names cached tokens its own way; fields may be null.
    message = {"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "yes"}]}
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 4}
    data = {"choices": [{"message": message, "finish_reason": None}], "usage": usage, "id": None}
    got = parse_chat(data, name="m")
    assert got.text == "yes"
    assert got.usage.cached_tokens == 4
    assert got.finish_reason == "stop"
    assert got.extra == {"message": {"content": message["content"]}, "usage": usage}
    openai = {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 8}}
    assert parse_chat({**data, "usage": openai}, name="m").usage.cached_tokens == 8


def test_a_name_that_is_repeated_in_every_piece_is_not_doubled() -> None:
    assembler = StreamAssembler("m")
    for arguments in ("{", "}"):
        call = {"index": 0, "id": "1", "function": {"name": "f", "arguments": arguments}}
        assembler.add({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
    [call] = parse_chat(assembler.result(), name="m").tool_calls
    assert call == {"id": "1", "function": {"name": "f", "arguments": "{}"}}
