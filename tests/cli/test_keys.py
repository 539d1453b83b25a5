"""``pilotfish keys``: a key is shown once, and what is listed is no secret."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pilotfish.cli.main import app
from pilotfish.errors import InputError
from pilotfish.store.keys import hash_of
from pilotfish.store.store import open_store

STORE = "sqlite:///pilotfish.db"


def run(*arguments: str):
    return CliRunner().invoke(app, ["keys", *arguments])


def test_a_key_from_making_to_its_end():
    made = run("create", "app", "--models", "small, large", "--rate", "60/min", "--spend", "5/day")
    secret = made.stdout.strip()
    assert secret.startswith("pf-"), "the key alone is on stdout, for a script to read"
    assert "cannot be shown again" in made.stderr
    with open_store(STORE) as store:
        key = store.keys.valid()[0][hash_of(secret)]
    assert (key.models, str(key.rate), str(key.spend)) == ({"small", "large"}, "60/minute", "5/day")
    listed = run("list").stdout
    assert "large, small; 60/minute; 5/day US dollars" in listed
    assert secret not in listed
    assert secret not in run("list", "--json").stdout
    assert run("revoke", key.id).stdout == f"Revoked {key.id} (app).\n"
    assert json.loads(run("list", "--json").stdout)[0]["revoked"].endswith("+00:00")
    assert "revoked 20" in run("list").stdout


def test_as_json():
    made = json.loads(run("create", "boss", "--admin", "--json").stdout)
    assert made["key"].startswith("pf-")
    assert (made["admin"], made["models"], made["rate"]) == (True, None, None)
    ended = json.loads(run("revoke", "boss", "--json").stdout)
    assert ended["id"] == made["id"]
    assert "key" not in ended


def test_without_any():
    assert run("list").stdout == ""
    assert "pilotfish keys create" in run("list").stderr
    assert json.loads(run("list", "--json").stdout) == []


@pytest.mark.parametrize(
    "wrong",
    [
        ["create", ""],
        ["create", "a", "--rate", "often"],
        ["create", "a", "--rate", "0.5/min"],
        ["create", "a", "--spend", "-1/day"],
        ["create", "a", "--admin", "--models", "b"],
        ["revoke", "nobody"],
    ],
)
def test_what_is_wrong(wrong):
    result = run(*wrong)
    assert isinstance(result.exception, InputError)
    assert run("list", "--json").stdout == "[]\n"
