"""Keys and passwords of the remote backend: sent where they belong, shown nowhere."""

from __future__ import annotations

import asyncio
import traceback

import pytest

from pilotfish.errors import AccessDenied, ModelError, RequestRefused
from pilotfish.models.fake_server import FakeServer, Fault
from pilotfish.models.openai import OpenAIModel
from tests.models.remote_calls import HELLO, KEY

pytestmark = pytest.mark.usefixtures("openai_key")


@pytest.mark.parametrize("fault", [Fault.UNAUTHORIZED, Fault.SERVER_ERROR, Fault.HTML, Fault.HANG])
async def test_the_key_shows_nowhere(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_HEADER", "team-secret-42424242")

    with FakeServer(faults=[fault]) as server:
        model = OpenAIModel(
            "m",
            base_url=server.base_url,
            headers={"X-Team": "$TEAM_HEADER"},
            read_timeout=0.2,
            max_retries=0,
        )
        async with model:
            with pytest.raises(ModelError) as caught:
                await model.complete(HELLO)
    shown = "".join(traceback.format_exception(caught.value))
    shown += repr(model) + str(caught.value) + repr(caught.value) + str(vars(caught.value))
    shown += str(vars(model)) + model.identity
    for secret in (KEY, "team-secret-42424242"):
        assert secret not in shown
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.seen[0].headers["x-team"] == "team-secret-42424242"


async def test_a_password_in_the_url_is_sent_but_shows_nowhere() -> None:
    with FakeServer(faults=[Fault.UNAUTHORIZED]) as server:
        url = server.base_url.replace("127", "user:hunter2secret@127")
        async with OpenAIModel("m", base_url=url) as model:
            with pytest.raises(AccessDenied) as caught:
                await model.complete(HELLO)
            shown = "".join(traceback.format_exception(caught.value))
            shown += repr(model) + str(vars(model)) + model.identity
    assert "hunter2secret" not in shown
    assert server.seen[0].headers["authorization"] == "Basic dXNlcjpodW50ZXIyc2VjcmV0"


async def test_a_key_in_the_endpoints_own_words_is_cut_out() -> None:
    # As OpenAI does it: "Incorrect API key provided: sk-...".
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"error": {"message": "Incorrect API key: %s"}}' % KEY.encode()
        head = b"HTTP/1.1 401 No\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        writer.write(head + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        model = OpenAIModel("m", base_url=f"http://127.0.0.1:{port}/v1")
        with pytest.raises(AccessDenied, match=r"Incorrect API key: \[secret\]"):
            await model.complete(HELLO)
        await model.aclose()


async def test_a_redirect_does_not_carry_the_key_along() -> None:
    with FakeServer() as elsewhere:

        async def move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 307 Moved\r\ncontent-length: 0\r\nconnection: close\r\n"
                b"location: %s/chat/completions\r\n\r\n" % elsewhere.base_url.encode()
            )
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(move, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            model = OpenAIModel("m", base_url=f"http://127.0.0.1:{port}/v1")
            with pytest.raises(RequestRefused, match="307"):
                await model.complete(HELLO)
            await model.aclose()
    assert elsewhere.count == 0
