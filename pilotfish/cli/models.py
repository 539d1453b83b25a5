"""``pilotfish models``: what is here, and what could be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pilotfish.registry import Registry

# The library each backend needs, looked for without importing it.
LIBRARIES = {
    "openai": "httpx",
    "litellm": "litellm",
    "llama.cpp": "xllamacpp",
    "replay": "pyarrow",
    "fake": "pilotfish",
    "static": "wordllama",
    "onnx": "onnxruntime",
    "sentence-transformers": "sentence_transformers",
}


def models(
    kind: Annotated[
        str, typer.Option(help="Only these: language-model, encoder, tagger, data or backend.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the lists as JSON.")] = False,
) -> None:
    """List models and data sets: which are here, which `pilotfish pull` can bring.

    Also lists the backends that can run or reach models, and whether their library is installed.
    """
    from pilotfish.config import load_config
    from pilotfish.models import BACKENDS, ENCODERS
    from pilotfish.models.catalogue import CATALOGUE, is_here, location

    _check(kind)
    config = load_config()
    entries: list[dict[str, Any]] = []
    for entry in CATALOGUE.values():
        if kind in ("", entry.kind):
            here = is_here(entry, config)
            entries.append(
                {
                    "name": entry.name,
                    "kind": entry.kind,
                    "title": entry.title,
                    "bytes": entry.bytes,
                    "download": entry.download,
                    "licence": entry.licence,
                    "note": entry.note,
                    "here": here,
                    "path": str(location(entry, config)) if here else None,
                }
            )
    backends: list[dict[str, Any]] = []
    if kind in ("", "backend"):
        backends += _backends("model", BACKENDS)
    if kind in ("", "backend", "encoder"):
        backends += _backends("encoder", ENCODERS)
    declared = sorted(config.models) if kind in ("", "language-model") else []
    if as_json:
        found = {"catalogue": entries, "backends": backends, "configured": declared}
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    _print(entries, backends, declared)


def _check(kind: str) -> None:
    from pilotfish.errors import UnknownName
    from pilotfish.models.catalogue import KINDS

    if kind and kind not in (*KINDS, "backend"):
        raise UnknownName("kind", kind, [*KINDS, "backend"])


def _backends(runs: str, registry: Registry) -> list[dict[str, Any]]:
    from importlib.util import find_spec

    rows = []
    for name in registry:
        extra = registry.extras.get(name, "")
        library = LIBRARIES.get(name, "")
        installed = not library or find_spec(library) is not None
        rows.append({"name": name, "runs": runs, "installed": installed, "extra": extra})
    return rows


def _print(
    entries: list[dict[str, Any]], backends: list[dict[str, Any]], declared: list[str]
) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = 160  # a pipe has no edge to wrap at
    if entries:
        table = Table(box=None, pad_edge=False)
        for heading in ("name", "kind", "here", "size", "licence", "what it is"):
            table.add_column(
                heading,
                justify="right" if heading == "size" else "left",
                no_wrap=heading in ("name", "kind", "here", "size"),
            )
        for row in entries:
            table.add_row(
                row["name"],
                row["kind"],
                "yes" if row["here"] else "-",
                _size(row["bytes"]),
                row["licence"],
                row["title"],
            )
        console.print(table)
        console.print("\nFetch with: pilotfish pull NAME", highlight=False)
    if declared:
        console.print(f"\nIn pilotfish.toml: {', '.join(declared)}", highlight=False)
    if backends:
        table = Table(box=None, pad_edge=False)
        for heading in ("backend", "for", "installed"):
            table.add_column(heading, no_wrap=True)
        for row in backends:
            state = "yes" if row["installed"] else f'pip install "pilotfish\\[{row["extra"]}]"'
            table.add_row(row["name"], row["runs"], state)
        console.print()
        console.print(table)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
