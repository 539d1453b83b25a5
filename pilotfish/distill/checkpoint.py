"""The state of a training in one file of arrays, replaced whole: it may be killed at any moment.

Weights that move, what the optimizer remembers of each, the step, and the losses so far. A key says which
training it belongs to; a file of another one is not read. Arrays only: loading it runs nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file


class Checkpoint:
    """Keeps one training's state.

    Args:
        path: The file; its folder is made.
        key: Of the training: a hash of all that decides how it goes.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key

    def save(self, moving: list[Any], optimizer: Any, losses: list[float]) -> None:
        """Write the state after ``len(losses)`` steps."""
        arrays = {f"weight.{i}": weight.detach() for i, weight in enumerate(moving)}
        for i, memory in optimizer.state_dict()["state"].items():
            arrays |= {f"memory.{i}.{name}": value for name, value in memory.items()}
        arrays["losses"] = torch.tensor(losses, dtype=torch.float64)
        arrays = {name: value.contiguous().cpu() for name, value in arrays.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        save_file(arrays, part, metadata={"key": self.key})
        part.replace(self.path)

    def restore(self, moving: list[Any], optimizer: Any) -> list[float]:
        """Fill in the state, if there is one of this training; returns the losses of its steps."""
        try:
            with safe_open(self.path, "pt") as file:
                if (file.metadata() or {}).get("key") != self.key:
                    return []
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError):  # none, or not of this program
            return []
        memory: dict[int, dict[str, Any]] = {}
        for name, value in arrays.items():
            if name.startswith("memory."):
                _, i, what = name.split(".", 2)
                memory.setdefault(int(i), {})[what] = value
        with torch.no_grad():
            for i, weight in enumerate(moving):
                weight.copy_(arrays[f"weight.{i}"])
        optimizer.load_state_dict({**optimizer.state_dict(), "state": memory})
        return [float(loss) for loss in arrays["losses"]]
