"""What the documents say is run: Python blocks, command lines, links.

``<!-- no-run: reason -->`` on the line before a block exempts it.
"""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

PAGES = sorted(
    page
    for page in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    if "node_modules" not in page.parts
)
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n+)?```(?P<language>\w*)\n(?P<code>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)


def page_name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def blocks(page: Path, *languages: str) -> Iterator[tuple[int, str]]:
    """Line and text of a page's blocks that are to be run."""
    text = page.read_text("utf-8")
    for match in FENCE.finditer(text):
        mark = match["mark"] or ""
        if mark.startswith("no-run"):
            assert re.fullmatch(r"no-run: \S.*", mark), (
                f"{page}: say why a block is not run: {mark}"
            )
        elif match["language"] in languages:
            yield text[: match.start("code")].count("\n") + 1, match["code"]


WITH_PYTHON = [page for page in PAGES if any(blocks(page, "python"))]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=page_name)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    """A page's blocks run one after the other, as a reader would type them, in an empty folder."""
    lines: list[str] = []
    for line, code in blocks(page, "python"):
        lines += [""] * (line - len(lines))  # so that a traceback names the page's line
        lines += code.splitlines()
    script = tmp_path / page.name.replace(".md", ".py")
    script.write_text("\n".join(lines) + "\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, f"{page_name(page)}\n{done.stderr[-3000:]}"
    for shown in printed(page):
        assert shown in done.stdout, f"{page_name(page)} shows:\n{shown}\nbut it is:\n{done.stdout}"


def printed(page: Path) -> list[str]:
    """What a page says that its Python prints: blocks of output after a line that says "prints"."""
    return re.findall(r"^prints\n+```text\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


def test_the_certainty_page_shows_what_its_example_prints() -> None:
    page = REPOSITORY / "docs" / "certainty.md"
    assert page in WITH_PYTHON
    assert len(printed(page)) == 1


def command_lines(page: Path) -> Iterator[tuple[int, list[str]]]:
    """Every ``pilotfish ...`` command of a page's shell blocks, as words."""
    for line, code in blocks(page, "", "bash", "sh", "shell", "console"):
        for number, text in enumerate(_joined(code), line):
            for part in _commands(text):
                words = part[1:] if part[:1] == ["$"] else part
                name = words[0].rsplit("/", 1)[-1] if words else ""
                if name == "pilotfish":
                    yield number, words[1:]


def _joined(code: str) -> list[str]:
    return code.replace("\\\n", " ").splitlines()


def _commands(text: str) -> Iterator[list[str]]:
    """The simple commands of a shell line: split at ``&&``, ``||``, ``;``, ``|`` and redirections."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.commenters = "#"
    lexer.whitespace_split = True
    command: list[str] = []
    try:
        words = list(lexer)
    except ValueError:  # an apostrophe in a line of output
        return
    skip = False
    for word in words:
        if set(word) <= set("&|;()"):
            yield command
            command = []
        elif set(word) <= set("<>"):
            skip = True
        elif skip:
            skip = False
        else:
            command.append(word)
    yield command


COMMANDS = [(page, line, words) for page in PAGES for line, words in command_lines(page)]


def parse(words: list[str]) -> Any:
    """Parse against the real options, running nothing."""
    import typer

    from pilotfish.cli.main import app

    group: Any = typer.main.get_command(app)
    if not words or words[0].startswith("-"):
        return group.make_context("pilotfish", list(words), resilient_parsing=True)
    assert words[0] in group.commands, f"no such command: pilotfish {words[0]}"
    return group.commands[words[0]].make_context(words[0], list(words[1:]))


@pytest.mark.parametrize(
    ("page", "line", "words"),
    COMMANDS,
    ids=[f"{page_name(page)}:{line}" for page, line, _ in COMMANDS],
)
def test_commands_parse(page: Path, line: int, words: list[str]) -> None:
    parse(words)


def test_a_wrong_command_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\npip install x && pilotfish offload a.jsonl \\\n  --promt 'b; c' > out.txt\n```\n"
    )
    [(_, words)] = command_lines(page)
    assert words == ["offload", "a.jsonl", "--promt", "b; c"]
    with pytest.raises(Exception, match="promt"):
        parse(words)


PIPELINES = [page for page in PAGES if "[[step" in page.read_text("utf-8")]


@pytest.mark.parametrize("page", PIPELINES, ids=page_name)
def test_pipelines_name_steps_and_settings_that_there_are(page: Path) -> None:
    """Without building them: they name files and models that are not here."""
    from pilotfish.curate import STEPS
    from pilotfish.curate.pipeline import FILE_SETTINGS

    assert "    [[step" not in page.read_text("utf-8"), "put it into a toml block"
    for line, code in blocks(page, "toml"):
        if "[[step" not in code:
            continue
        data = tomllib.loads(code)
        assert set(data) <= set(FILE_SETTINGS), f"{page_name(page)}:{line}"
        for table in data["steps"]:
            known = inspect.signature(STEPS.load(table.pop("step"))).parameters
            assert set(table) <= set(known), f"{page_name(page)}:{line}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert not broken, f"{page_name(page)}: {broken}"


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_setting_shows_its_default() -> None:
    """In its column, or in words where only the machine knows it."""
    page = (REPOSITORY / "docs" / "settings.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*?) \| (.*) \|$", page, flags=re.MULTILINE)
    assert len(rows) > 100
    assert not [name for name, default, meaning in rows if not default and "default" not in meaning]


def texts() -> Iterator[Path]:
    for place in ("*", ".ci/*", "pilotfish/**/*", "tests/**/*", "docs/**/*", "benchmarks/**/*"):
        for path in REPOSITORY.glob(place):
            kinds = {".md", ".py", ".toml", ".txt", ".sh", ".j2", ".json", ""}
            if path.is_file() and path.suffix in kinds and "__pycache__" not in path.parts:
                yield path


def test_nothing_depends_on_one_package_registry() -> None:
    """Users' pip is configured for where they are; a host name in here would bypass that."""
    hosts = re.compile(
        r"(pypi\.org|pythonhosted\.org|pypi\.tuna|mirrors?\.[a-z]+\.(com|org|cn|edu))", re.I
    )
    # The default of pip itself, and names that tests of that default expect.
    allowed = {"pilotfish/models/index_settings.py", "tests/test_docs.py"}
    found = [
        f"{path.relative_to(REPOSITORY)}: {match[0]}"
        for path in texts()
        if str(path.relative_to(REPOSITORY)) not in allowed
        for match in hosts.finditer(path.read_text("utf-8", "replace"))
    ]
    assert found == []


def test_ci_runs_the_readmes_commands() -> None:
    """.ci/run takes its two commands out of the README by these markers."""
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    marks = [match["mark"] for match in FENCE.finditer(readme) if match["mark"]]
    assert marks.count("ci: main-job") == 1
    assert marks.count("ci: test") == 1
    runner = (REPOSITORY / ".ci" / "run").read_text("utf-8")
    assert "readme main-job" in runner
    assert "readme test" in runner


def test_pulled_files_of_the_makefile_are_in_the_catalogue() -> None:
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    names = re.search(r"^PULLED \?= (.*)$", makefile, flags=re.MULTILINE)
    assert names
    catalogue = tomllib.loads((REPOSITORY / "pilotfish/models/catalogue.toml").read_text("utf-8"))
    assert set(names[1].split()) <= set(catalogue)
