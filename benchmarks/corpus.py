"""A corpus like a crawl, made from what is installed: the same files give the same corpus.

    python benchmarks/corpus.py FOLDER --megabytes 1000

Sentences are taken from the documentation inside installed Python packages, and from the translated
messages of installed programs for other languages. A page is a draw of them in the shape of one of eight
kinds: an article; a web page with navigation, cookie notice and footer; a short note; a page that repeats
itself; source code; a table or list; a page in another language; a file of documentation as it is.
Parquet files of about 64 MB with the columns ``id``, ``kind`` and ``text``. Nothing of it is kept in this
repository.
"""

from __future__ import annotations

import argparse
import ast
import gettext
import re
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SHARES = {
    "article": 0.42,
    "web page": 0.22,
    "note": 0.08,
    "repeated": 0.08,
    "code": 0.05,
    "table": 0.05,
    "other language": 0.05,
    "documentation": 0.05,
}
LANGUAGES = ("de", "fr", "ru", "ja", "zh_CN", "el", "vi", "uk", "es", "pl", "tr", "ko")
FOOTERS = (
    "By using this site you agree to the Terms of Use and the Privacy Policy.",
    "We use cookies to give you the best experience. Read our cookie policy.",
    "Please enable JavaScript to view the comments.",
    "© 2024 All rights reserved",
    "Share this page",
    "Read more...",
    "Leave a reply",
)
MENU = (
    "Home",
    "About us",
    "Contact",
    "Log in",
    "Sign up",
    "Products",
    "Blog",
    "Search",
    "FAQ",
    "Help",
)
_SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[A-Z])")
_PROSE = re.compile(r"[A-Z][\w ,;:'\"()-]+[.?!]", re.ASCII)  # no markup, no code


class Sources:
    """What pages are made of; lists of strings in an order that depends on the files alone."""

    def __init__(self, most_files: int = 4000) -> None:
        self.sentences: list[str] = []
        self.code: list[str] = []
        self.documentation: list[str] = []
        folders = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
        files = sorted(
            {f for folder in folders for f in folder.rglob("*.py") if "test" not in str(f)}
        )
        step = max(1, len(files) // most_files)
        for file in files[::step]:
            self._read_python(file)
        for file in sorted(f for folder in folders for f in folder.rglob("*.rst"))[:2000]:
            self.documentation.append(file.read_text("utf-8", errors="replace"))
        self.documentation = [text for text in self.documentation if len(text) > 200] or self.code
        self.sentences = sorted(set(self.sentences))
        self.messages = {language: _messages(language) for language in LANGUAGES}
        self.messages = {name: found for name, found in self.messages.items() if len(found) > 500}

    def _read_python(self, file: Path) -> None:
        text = file.read_text("utf-8", errors="replace")
        if len(text) > 1000:
            self.code.append(text)
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            return
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        for node in ast.walk(tree):
            if isinstance(node, kinds) and (doc := ast.get_docstring(node)):
                if len(doc) > 1500:
                    self.documentation.append(doc)
                for paragraph in doc.split("\n\n"):
                    whole = " ".join(paragraph.split())
                    for sentence in _SENTENCE.split(whole):
                        if 25 <= len(sentence) <= 300 and _PROSE.fullmatch(sentence):
                            self.sentences.append(sentence)


def _messages(language: str) -> list[str]:
    found: set[str] = set()
    for file in sorted(Path("/usr/share/locale").glob(f"{language}/LC_MESSAGES/*.mo"))[:60]:
        with file.open("rb") as stream:
            try:
                catalogue = gettext.GNUTranslations(stream)._catalog  # type: ignore[attr-defined]
            except (OSError, UnicodeDecodeError, ValueError):
                continue
        found.update(v for v in catalogue.values() if isinstance(v, str) and 10 <= len(v) <= 400)
    return sorted(found)


class Pages:
    """Draws pages.

    Args:
        sources: What they are made of.
        seed: Of the draws.
    """

    def __init__(self, sources: Sources, seed: int) -> None:
        self.sources = sources
        self.random = np.random.default_rng(seed)
        self.kinds: dict[str, Callable[[], str]] = {
            "article": self._article,
            "web page": self._web_page,
            "note": self._note,
            "repeated": self._repeated,
            "code": lambda: self._passage(sources.code),
            "table": self._table,
            "other language": self._other_language,
            "documentation": lambda: self._passage(sources.documentation),
        }

    def page(self) -> tuple[str, str]:
        """The kind and the text of the next page."""
        kind = self.random.choice(list(SHARES), p=list(SHARES.values()))
        return str(kind), self.kinds[kind]()

    def _some(self, of: list[str], n: int) -> list[str]:
        return [of[i] for i in self.random.integers(0, len(of), n)]

    def _paragraph(self, of: list[str]) -> str:
        text = " ".join(self._some(of, int(self.random.integers(1, 8))))
        mark = self.random.random()
        if mark < 0.05:
            return f"{text}[{self.random.integers(1, 90)}]"
        return f"“{text}”" if mark < 0.08 else text

    def _article(self, mean: float = 9.0) -> str:
        n = 1 + int(self.random.lognormal(np.log(mean), 0.9))
        apart = "\n\n" if self.random.random() < 0.4 else "\n"
        return apart.join(self._paragraph(self.sources.sentences) for _ in range(min(n, 400)))

    def _web_page(self) -> str:
        menu = self._some(list(MENU), int(self.random.integers(2, 20)))
        related = [
            s[:40] for s in self._some(self.sources.sentences, int(self.random.integers(0, 12)))
        ]
        foot = self._some(list(FOOTERS), int(self.random.integers(1, 6)))
        return "\n".join([*menu, self._article(5.0), *related, *foot])

    def _note(self) -> str:
        return "\n".join(self._some(self.sources.sentences, int(self.random.integers(0, 4))))

    def _repeated(self) -> str:
        few = self._some(self.sources.sentences, int(self.random.integers(1, 12)))
        many = self._some(few, int(self.random.integers(5, 60)))
        fresh = self._some(self.sources.sentences, int(self.random.integers(0, 80)))
        both = [*many, *fresh]
        self.random.shuffle(both)
        return str(self.random.choice(["\n", "\n\n", " "])).join(both)

    def _passage(self, of: list[str]) -> str:
        text = self._some(of, 1)[0]
        n = int(self.random.integers(500, 20_000))
        start = int(self.random.integers(0, max(1, len(text) - n)))
        return text[start : start + n]

    def _table(self) -> str:
        rows, columns = self.random.integers(3, 200), self.random.integers(1, 8)
        numbers = self.random.integers(0, 10 ** self.random.integers(1, 6), (rows, columns))
        bullet = str(self.random.choice(["", "- ", "• ", "* "]))
        words = self._some(self.sources.sentences, int(rows))
        lines = [
            bullet + word[:24].strip() + " | " + " | ".join(map(str, row))
            for word, row in zip(words, numbers.tolist(), strict=True)
        ]
        return "\n".join(lines)

    def _other_language(self) -> str:
        if not self.sources.messages:
            return self._article()
        of = self.sources.messages[str(self.random.choice(sorted(self.sources.messages)))]
        return "\n".join(self._paragraph(of) for _ in range(int(self.random.integers(1, 30))))


def batches(sources: Sources, size: int, seed: int = 0) -> Iterator[pa.RecordBatch]:
    """Batches of 2,000 pages until there are ``size`` bytes of text."""
    pages = Pages(sources, seed)
    made = number = 0
    while made < size:
        drawn = [pages.page() for _ in range(2000)]
        texts = [text.encode("utf-8", "replace").decode() for _, text in drawn]
        made += sum(len(text.encode()) for text in texts)
        yield pa.record_batch(
            {
                "id": pa.array(range(number, number + len(drawn)), pa.int64()),
                "kind": pa.array([kind for kind, _ in drawn]).dictionary_encode(),
                "text": pa.array(texts, pa.large_string()),
            }
        )
        number += len(drawn)


def build(folder: Path, megabytes: int, seed: int = 0) -> dict[str, object]:
    """Write the corpus, unless it is there; what it is made of."""
    done = folder / "done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        sources = Sources()
        writer, written, shard = None, 0, 0
        for batch in batches(sources, megabytes * 1_000_000, seed):
            if writer is None:
                path = folder / f"{shard:03}.parquet"
                writer = pq.ParquetWriter(path, batch.schema, compression="zstd")
            writer.write_batch(batch)
            written += batch.nbytes
            if written > 64_000_000:
                writer.close()
                writer, written, shard = None, 0, shard + 1
        if writer is not None:
            writer.close()
        done.write_text(f"{len(sources.sentences)} {len(sources.messages)}")
    sentences, languages = done.read_text().split()
    files = sorted(folder.glob("*.parquet"))
    rows = n_bytes = 0
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(columns=["text"]):
            rows += len(batch)
            n_bytes += batch.column(0).nbytes - 8 * (len(batch) + 1)
    return {
        "documents": rows,
        "megabytes": round(n_bytes / 1e6),
        "seed": seed,
        "different sentences": int(sentences),
        "other languages": int(languages),
        "shares": SHARES,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(build(options.folder, options.megabytes, options.seed))


if __name__ == "__main__":
    main()
