"""Which process is this, and is that other one still alive?

A process id alone is not enough: ids are used again, containers each count from 1, and another host's
ids mean nothing here. So an owner also carries when the process started, and which kernel and process
namespace its id belongs to. Where that is another one, nobody here can tell, and the answer is None.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, named well enough to be found again.

    Attributes:
        host: Its host's name, for people.
        pid: Its process id.
        space: The kernel boot and process namespace that the id belongs to.
        started: When it started, in the kernel's own unit; "" when the system does not say.
    """

    host: str
    pid: int
    space: str
    started: str

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Owner:
        """From :meth:`to_json`'s output."""
        return cls(values["host"], values["pid"], values["space"], values["started"])

    def is_alive(self) -> bool | None:
        """Whether the process still runs; None when that cannot be seen from here."""
        if self.space != _space() or os.name == "nt":  # on Windows, signal 0 is no mere question
            return True if self == this_process() else None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it exists and belongs to somebody else
        state, started = _stat(self.pid)
        return state != "Z" and started in ("", self.started)


def this_process() -> Owner:
    """The owner that this process is."""
    pid = os.getpid()
    return Owner(socket.gethostname(), pid, _space(), _stat(pid)[1])


def _space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _stat(pid: int) -> tuple[str, str]:
    """State letter and start time of a process (Linux, proc(5)); empty where unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return "", ""
    after_name = text.rpartition(")")[2].split()
    return after_name[0], after_name[19]
