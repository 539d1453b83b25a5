"""A real HTTP server on the loopback that plays the hub and a package index, with faults on demand."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BLOCK = 1 << 14


@dataclass
class Hit:
    path: str
    range: str
    authorization: str
    sent: int = 0


@dataclass
class IndexServer:
    """What it serves and how it misbehaves; every request is in ``hits``."""

    files: dict[str, bytes] = field(default_factory=dict)
    projects: dict[str, dict[str, str]] = field(default_factory=dict)  # name -> file -> sha256
    hits: list[Hit] = field(default_factory=list)
    ranges: bool = True
    as_json: bool = False
    cut_after: dict[str, list[int]] = field(default_factory=dict)  # bytes, one per request
    statuses: dict[str, list[int]] = field(default_factory=dict)  # one per request
    pause: float = 0.0  # seconds per block
    url: str = ""

    def add_hub(self, repo: str, file: str, content: bytes, revision: str = "main") -> str:
        path = f"/hub/{repo}/resolve/{revision}/{file}"
        self.files[path] = content
        return path

    def add_archive(self, project: str, filename: str, content: bytes, sha256: str = "") -> str:
        path = f"/files/{filename}"
        self.files[path] = content
        known = self.projects.setdefault(project, {})
        known[filename] = sha256 or hashlib.sha256(content).hexdigest()
        return path

    def of(self, path: str) -> list[Hit]:
        return [hit for hit in self.hits if hit.path == path]


def wheel(name: str, version: str, members: Mapping[str, bytes]) -> tuple[str, bytes]:
    """The file name and content of a wheel; stored, so that its size is what a test expects."""
    stem = name.replace("-", "_")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as box:
        for path, content in members.items():
            box.writestr(path, content)
        box.writestr(f"{stem}-{version}.dist-info/METADATA", f"Name: {name}\nVersion: {version}\n")
    return f"{stem}-{version}-py3-none-any.whl", buffer.getvalue()


def sdist(
    name: str, version: str, members: Mapping[str, bytes], links: Mapping[str, str] | None = None
) -> tuple[str, bytes]:
    """A source archive; ``setup.py`` in it would leave a mark if anything ran it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as box:
        for path, target in (links or {}).items():
            info = tarfile.TarInfo(path)
            info.type, info.linkname = tarfile.SYMTYPE, target
            box.addfile(info)
        for path, content in members.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            box.addfile(info, io.BytesIO(content))
    return f"{name}-{version}.tar.gz", buffer.getvalue()


@contextmanager
def serving() -> Iterator[IndexServer]:
    server = IndexServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path
            hit = Hit(path, self.headers.get("Range", ""), self.headers.get("Authorization", ""))
            server.hits.append(hit)
            if status := _next(server.statuses, path):
                self._send(status, b"", {})
            elif match := re.fullmatch(r"/simple/([^/]+)/", path):
                self._page(match[1])
            elif path in server.files:
                self._file(server.files[path], hit, _next(server.cut_after, path))
            else:
                self._send(404, b"", {})

        def _page(self, project: str) -> None:
            if project not in server.projects:
                return self._send(404, b"", {})
            rows = server.projects[project].items()
            if server.as_json:
                listed = [
                    {"filename": f, "url": f"/files/{f}", "hashes": {"sha256": h}} for f, h in rows
                ]
                body = json.dumps(
                    {"meta": {"api-version": "1.0"}, "name": project, "files": listed}
                )
                kind = "application/vnd.pypi.simple.v1+json"
            else:
                body = "".join(f'<a href="/files/{f}#sha256={h}">{f}</a>' for f, h in rows)
                kind = "text/html"
            return self._send(200, body.encode(), {"Content-Type": kind})

        def _file(self, content: bytes, hit: Hit, cut: int) -> None:
            start, headers = 0, {"Content-Type": "application/octet-stream"}
            wanted = re.fullmatch(r"bytes=(\d+)-", hit.range)
            if wanted and server.ranges:
                start = int(wanted[1])
                if start >= len(content):
                    headers["Content-Range"] = f"bytes */{len(content)}"
                    return self._send(416, b"", headers)
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_response(206 if start or (wanted and server.ranges) else 200)
            for key, value in (headers | {"Content-Length": str(len(content) - start)}).items():
                self.send_header(key, value)
            self.end_headers()
            end = min(len(content), start + cut) if cut else len(content)
            try:
                for at in range(start, end, BLOCK):
                    block = content[at : min(at + BLOCK, end)]
                    self.wfile.write(block)
                    hit.sent += len(block)
                    if server.pause:
                        time.sleep(server.pause)
            except OSError:
                pass
            if cut:
                self.close_connection = True
            return None

        def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _next(plan: dict[str, list[int]], path: str) -> int:
    return plan[path].pop(0) if plan.get(path) else 0
