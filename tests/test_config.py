"""pilotfish.toml: defaults without a file, plain words about a wrong one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pilotfish.config import Config, Price, default_cache_dir, load_config
from pilotfish.errors import ConfigError
from pilotfish.records import Usage

FULL = """
store = "postgresql://localhost/answers"
cache_dir = "~/weights"

[models.large]
backend = "openai"
model = "gpt-4.1-mini"

[prices."gpt-4.1-mini"]
input = 0.4
output = 1.6
cached_input = 0.1
date = 2026-11-01
"""


def write(text: str, name: str = "pilotfish.toml") -> Path:
    Path(name).write_text(text, "utf-8")
    return Path(name)


def test_no_file_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_config() == Config()
    assert load_config().store == "sqlite:///pilotfish.db"
    monkeypatch.setenv("PILOTFISH_STORE", "sqlite:///other.db")
    assert load_config().store == "sqlite:///other.db"
    monkeypatch.setenv("PILOTFISH_STORE", "")
    assert load_config().store == "sqlite:///pilotfish.db"


def test_everything_that_can_be_set() -> None:
    config = load_config(write(FULL))
    assert config.store == "postgresql://localhost/answers"
    assert config.cache_dir == Path.home() / "weights"
    assert config.models == {"large": {"backend": "openai", "model": "gpt-4.1-mini"}}
    assert config.prices == {"gpt-4.1-mini": Price(0.4, 1.6, 0.1, "2026-11-01")}
    assert load_config() == config  # the working folder's file is found


def test_the_environment_names_file_and_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTFISH_CONFIG", str(write('store = "sqlite:///a.db"', "other.toml")))
    assert load_config().store == "sqlite:///a.db"
    monkeypatch.setenv("PILOTFISH_STORE", "sqlite:///b.db")
    assert load_config().store == "sqlite:///b.db"


def test_a_byte_order_mark_is_no_error() -> None:
    Path("pilotfish.toml").write_bytes(b"\xef\xbb\xbf" + b'store = "sqlite:///a.db"')
    assert load_config().store == "sqlite:///a.db"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("store = ", "is not TOML"),
        ("stroe = 'x'", "unknown settings: stroe"),
        ("store = 3", "got store = 3"),
        ("cache_dir = []", "got cache_dir"),
        ("models = 3", r"expected \[models.NAME\] tables"),
        ("[models]\nlarge = 'openai:x'", r"expected \[models.NAME\] tables"),
        ("[prices.m]\ninput = 1", "expected input, output"),
        ("[prices.m]\ninput = 1\noutput = 2\neuro = 3", "expected input, output"),
        ("[prices.m]\ninput = '1'\noutput = 2", "input = '1', but expected a number"),
        ("[prices.m]\ninput = 1\noutput = -2", "output = -2"),
        ("[prices.m]\ninput = nan\noutput = 2", "input = nan"),
        ("[prices.m]\ninput = 1\noutput = 2\ncached_input = 'x'", "cached_input"),
    ],
)
def test_a_wrong_setting_is_named(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(write(text))
    assert "pilotfish.toml" in str(caught.value)


def test_a_named_file_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_config("absent.toml")
    monkeypatch.setenv("PILOTFISH_CONFIG", "absent.toml")
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_config()


def test_a_folder_and_bytes_are_refused() -> None:
    Path("folder").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config("folder")
    Path("latin.toml").write_bytes(b"store = '\xe9'")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config("latin.toml")


def test_costs() -> None:
    price = Price(input=2.0, output=8.0, cached_input=0.5)
    assert price.cost(Usage()) == 0
    assert price.cost(Usage(1_000_000, 0, 0)) == pytest.approx(2.0)
    assert price.cost(Usage(1_000_000, 500_000, 400_000)) == pytest.approx(1.2 + 0.2 + 4.0)
    assert Price(2.0, 8.0).cost(Usage(1_000_000, 0, 1_000_000)) == pytest.approx(2.0)
    # Some providers count cached tokens beside the prompt's; a cost is never negative.
    assert price.cost(Usage(10, 0, 1_000_000)) == pytest.approx(0.5)


def test_the_cache_is_the_users_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTFISH_CACHE", "~/models")
    assert default_cache_dir() == Path.home() / "models"
    monkeypatch.delenv("PILOTFISH_CACHE")
    assert default_cache_dir().name == "pilotfish"


def test_reading_the_config_imports_nothing_heavy() -> None:
    code = (
        "import sys, pilotfish.config as c; c.load_config(); "
        'print({"pyarrow", "numpy"} & set(sys.modules))'
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
