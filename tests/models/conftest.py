"""A key for the remote backend in the environment."""

from __future__ import annotations

import pytest

from tests.models.remote_calls import KEY


@pytest.fixture
def openai_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
