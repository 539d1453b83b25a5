"""Write the pages that are taken from the code: cli.md, settings.md and registry.md.

    python docs/build.py           write them
    python docs/build.py --check   exit 1 and name those that no longer match the code
    python docs/build.py --benchmarks   list the benchmarks and what each claims

Commands are read from the typer app; settings and registered things from the source, not by importing
them, so that the pages are the same whichever optional libraries are installed.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PACKAGE = DOCS.parent / "pilotfish"
sys.path.insert(0, str(PACKAGE.parent))  # this checkout, not another version that may be installed
NOTE = "<!-- Made by `make docs` from the code; changes here are lost. -->\n"

ENVIRONMENT = {
    "PILOTFISH_CONFIG": "The configuration file, in place of `pilotfish.toml` in the working folder.",
    "PILOTFISH_STORE": "URL of the store; counts more than `store` of the file.",
    "PILOTFISH_CACHE": "Where `pilotfish pull` puts models and data sets.",
    "PILOTFISH_WORKER": "Set by `pilotfish serve` for its own worker processes; not for you.",
}


def main() -> int:
    """Write or check the pages; returns the exit status."""
    if "--benchmarks" in sys.argv:
        for file in sorted((DOCS.parent / "benchmarks").glob("*.py")):
            claim = _doc(ast.parse(file.read_text("utf-8"))).split("\n\n")[0]
            print(f"  make bench B={file.stem:<12} {_plain(claim)}")
        return 0
    pages = {"cli.md": cli_page, "settings.md": settings_page, "registry.md": registry_page}
    stale = []
    for name, page in pages.items():
        text, file = page(), DOCS / name
        if not file.exists() or file.read_text("utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                file.write_text(text, "utf-8")
    if stale and "--check" in sys.argv:
        print(f"Stale: {', '.join(stale)}. Run `make docs`.", file=sys.stderr)
        return 1
    return 0


# Commands


def cli_page() -> str:
    """Every verb of the command line with its arguments and options."""
    import typer

    from pilotfish.cli.main import app

    command = typer.main.get_command(app)
    parts = [NOTE, "# Command line\n", f"{command.help}\n"]
    parts.append("Results go to stdout, progress to stderr. Exit status: 0 success, 1 failure, ")
    parts[-1] += "2 wrong input or settings, 130 stopped by Ctrl-C.\n"
    parts.append(_options(command))
    for path, verb in _verbs(command, "pilotfish"):
        arguments = [p for p in verb.params if p.param_type_name == "argument"]
        usage = " ".join([path, *(_metavar(p) for p in arguments), "[OPTIONS]"])
        parts += [f"## {path}\n", f"    {usage}\n", f"{(verb.help or '').strip()}\n"]
        for argument in arguments:
            parts.append(f"- **{_metavar(argument)}**: {_help(argument)}\n")
        parts.append(_options(verb))
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def _verbs(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _verbs(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _metavar(argument: Any) -> str:
    name = argument.name.upper()
    return name if argument.required else f"[{name}]"


def _options(command: Any) -> str:
    rows = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    if not rows:
        return ""
    table = ["| Option | Meaning | Default |", "|---|---|---|"]
    for option in rows:
        flags = ", ".join(f"`{flag}`" for flag in [*option.opts, *option.secondary_opts])
        default = "required" if option.required else _default(option.default)
        table.append(f"| {flags} | {_help(option)} | {default} |")
    return "\n".join(table) + "\n"


def _help(parameter: Any) -> str:
    return " ".join((parameter.help or "").split()).replace("|", "\\|")


def _default(value: Any) -> str:
    shown = value is not None and value != "" and value is not False
    return f"`{str(value).lower() if value is True else value}`" if shown else ""


# Settings


def settings_page() -> str:
    """pilotfish.toml, the environment, and what each backend can be told."""
    config = PACKAGE / "config.py"
    _check_environment()
    parts = [NOTE, "# Settings\n", f"{_doc(ast.parse(config.read_text('utf-8')))}\n"]
    parts += ["## pilotfish.toml\n", _fields(config, "Config", leave_out={"path"})]
    parts += ["## [prices.NAME]\n", _fields(config, "Price")]
    parts += ["## Environment variables\n", "| Variable | Meaning |", "|---|---|"]
    parts += [f"| `{name}` | {meaning} |" for name, meaning in ENVIRONMENT.items()]
    parts += ["", "Keys of remote models: see `api_key_env` below.\n", "## [models.NAME]\n"]
    parts.append("`backend` names one of the sections below, and `model` the model; the rest:\n")
    parts += _settings_in("models")
    parts.append("## [models.NAME] of a model made of models\n")
    parts.append("`kind` names one of the sections below, and `models` its members; the rest:\n")
    for room in ("infer", "infer/speculate", "reason"):
        parts += _settings_in(room)
    parts += ["## [serve]\n", *_settings_in("gateway")]
    return "\n".join(parts).rstrip() + "\n"


def _settings_in(room: str) -> Iterator[str]:
    for file in sorted((PACKAGE / room).glob("*.py")):
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and _is_settings(node):
                summary = _doc(node).split("\n\nAttributes:")[0]
                yield from (f"### {node.name}\n", f"{_plain(summary)}\n")
                yield _fields(file, node.name)


def _is_settings(node: ast.ClassDef) -> bool:
    bases = {ast.unparse(base) for base in node.bases}
    named = node.name.endswith("Settings") or node.name == "Rule"
    return named and bool(bases & {"RemoteSettings", "msgspec.Struct"})


def _check_environment() -> None:
    used = {
        name
        for file in PACKAGE.rglob("*.py")
        for name in re.findall(r"PILOTFISH_[A-Z]\w+", file.read_text("utf-8"))
    }
    if used != set(ENVIRONMENT):
        raise SystemExit(f"docs/build.py: ENVIRONMENT differs by {used ^ set(ENVIRONMENT)}.")


def _fields(file: Path, kind: str, leave_out: frozenset[str] | set[str] = frozenset()) -> str:
    tree = ast.parse(file.read_text("utf-8"))
    node = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == kind)
    meanings = _attributes(_doc(node))
    table = ["| Setting | Type | Default | Meaning |", "|---|---|---|---|"]
    for row in node.body:
        if not isinstance(row, ast.AnnAssign) or not isinstance(row.target, ast.Name):
            continue
        name = row.target.id
        if name in leave_out:
            continue
        kind_text = ast.unparse(row.annotation).replace("|", "or")
        default = "required" if row.value is None else _shown(row.value, file)
        meaning = _plain(meanings.get(name, "")).replace("|", "\\|")
        table.append(f"| `{name}` | {kind_text} | {default} | {meaning} |")
    return "\n".join(table) + "\n"


def _shown(node: ast.expr, file: Path) -> str:
    """A default as pilotfish.toml would have it; blank where only running code would tell."""
    try:
        value = _value(node, file)
    except ValueError:
        return ""
    return "none" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _value(node: ast.expr, file: Path) -> Any:
    if isinstance(node, ast.Name):
        return _constant(node.id, file)
    if isinstance(node, ast.Call):
        made = [key.value for key in node.keywords if key.arg == "default_factory"]
        kind = ast.unparse(made[0] if made else node.func)
        if kind == "list":
            return []
        if kind == "dict" or kind.endswith("Settings"):  # of settings: all their own defaults
            return {}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift):  # a size in bytes
        return _value(node.left, file) << _value(node.right, file)
    return ast.literal_eval(node)


def _constant(name: str, file: Path) -> Any:
    """The value of a module's constant, there or where it is imported from."""
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return _value(node.value, file)
        if isinstance(node, ast.ImportFrom) and name in (alias.name for alias in node.names):
            return _constant(name, PACKAGE.parent / f"{str(node.module).replace('.', '/')}.py")
    raise ValueError(name)


def _attributes(text: str) -> dict[str, str]:
    """The "Attributes:" section of a docstring, name to meaning."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.partition("Attributes:\n")[2].splitlines():
        if match := re.match(r"    (\w+): (.*)", line):
            name = match[1]
            found[name] = [match[2]]
        elif line.startswith("     ") and name:
            found[name].append(line.strip())
        elif line.strip():
            break
    return {name: " ".join(lines) for name, lines in found.items()}


# Registered things


def registry_page() -> str:
    """Every name that a registry knows, with its summary and the extra it needs."""
    parts = [NOTE, "# Registered names\n"]
    parts.append(
        "Each name is one file and one line of a registry; tests/test_contracts.py runs all.\n"
    )
    for owner, kind, entries, extras in _registries():
        parts += [f"## {kind.capitalize()}s\n", f"`{owner}`\n"]
        parts += ["| Name | What it is | Where | Extra |", "|---|---|---|---|"]
        for name, target in entries.items():
            extra = f"`{extras[name]}`" if name in extras else ""
            parts.append(f"| `{name}` | {_summary(target)} | `{target}` | {extra} |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _registries() -> Iterator[tuple[str, str, dict[str, str], dict[str, str]]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(file.read_text("utf-8")).body:
            value = getattr(node, "value", None)
            if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("Registry"):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target  # type: ignore[attr-defined]
                extras = next((k.value for k in value.keywords if k.arg == "extras"), None)
                yield (
                    f"{_module(file)}.{ast.unparse(target)}",
                    ast.literal_eval(value.args[0]),
                    ast.literal_eval(value.args[1]),
                    ast.literal_eval(extras) if extras else {},
                )


def _summary(target: str) -> str:
    module, _, attribute = target.partition(":")
    file = PACKAGE.parent / (module.replace(".", "/") + ".py")
    file = file if file.exists() else file.with_suffix("") / "__init__.py"
    tree = ast.parse(file.read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
            return _plain(_doc(node).split("\n\n")[0]).replace("|", "\\|")
    return _plain(_doc(tree).split("\n\n")[0]).replace("|", "\\|")


def _module(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
        ".__init__"
    )


def _doc(node: Any) -> str:
    return ast.get_docstring(node) or ""


def _plain(text: str) -> str:
    """Docstring markup as Markdown, on one line."""
    text = re.sub(r":\w+:`~?([^`]+)`", lambda m: f"`{m[1].rsplit('.', 1)[-1]}`", text)
    return " ".join(text.replace("``", "`").split())


if __name__ == "__main__":
    sys.exit(main())
