"""The four filter sets in datatrove, on the documents of a file; curate.py runs it.

    python benchmarks/curate_datatrove.py SAMPLE.parquet SETTINGS.json OUT.json

Run by a Python that has datatrove. SAMPLE is Parquet or JSON lines and is read and written by datatrove's
own reader and writer. SETTINGS: ``tokenizer`` is null (as shipped: spaCy) or the pattern of a word for
``re``; ``sentence`` the pattern of the end of a sentence; ``decide`` whether to store what each filter
says of each document on its own, beside the time and memory of all in a chain.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate_pipeline import peak_megabytes
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import JsonlReader, ParquetReader
from datatrove.pipeline.writers import JsonlWriter, ParquetWriter
from datatrove.utils import text as datatrove_text
from datatrove.utils import word_tokenizers
from loguru import logger


class ByPattern:
    """Stands for datatrove's tokenizer."""

    def __init__(self, word: str, sentence: str) -> None:
        self.word, self.sentence = re.compile(word), re.compile(sentence)

    def word_tokenize(self, text: str) -> list[str]:
        """All words."""
        return self.word.findall(text)

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Where each sentence begins and ends."""
        cuts = [match.end() for match in self.sentence.finditer(text)]
        if text and (not cuts or cuts[-1] < len(text)):
            cuts.append(len(text))
        return list(zip([0, *cuts[:-1]], cuts, strict=True)) if cuts else []


def reader(path: Path) -> Any:
    """Datatrove's reader of a file."""
    kind = ParquetReader if path.suffix == ".parquet" else JsonlReader
    return kind(str(path.parent), glob_pattern=path.name)


def writer(path: Path, folder: str) -> Any:
    """Datatrove's writer of the same format."""
    if path.suffix == ".parquet":
        return ParquetWriter(folder, compression="zstd")
    return JsonlWriter(folder, compression=None)


def sets() -> dict[str, Any]:
    """The filters, in the order of FineWeb's own pipeline, each with its defaults."""
    return {
        "gopher_repetition": GopherRepetitionFilter(),
        "gopher_quality": GopherQualityFilter(),
        "c4": C4QualityFilter(),
        "fineweb": FineWebQualityFilter(),
    }


def decisions(texts: Iterator[str]) -> list[dict[str, Any]]:
    """What each filter says of each text on its own; ``""`` to keep it."""
    filters, decided = sets(), []
    for number, original in enumerate(texts):
        document = Document(text=original, id=str(number))
        said: dict[str, Any] = {}
        for name, one in filters.items():
            document.text = original
            try:
                answer = one.filter(document)
            except ZeroDivisionError:
                answer = (False, "ZeroDivisionError")
            said[name] = answer[1] if isinstance(answer, tuple) else ""
            if name == "c4" and answer is True:
                said["text"] = document.text
        decided.append(said)
    return decided


def main() -> None:
    sample, out = Path(sys.argv[1]), Path(sys.argv[3])
    settings = json.loads(Path(sys.argv[2]).read_text())
    warnings.simplefilter("ignore")
    logger.remove()
    if settings["tokenizer"]:
        tokenizer = ByPattern(settings["tokenizer"], settings["sentence"])
        word_tokenizers.load_word_tokenizer = lambda _: tokenizer
    datatrove_text.split_into_words("One sentence, to load what is loaded once.")
    with tempfile.TemporaryDirectory() as folder:
        chain = reader(sample).run()
        for one in sets().values():
            chain = one.run(chain)
        began = time.process_time()
        kept = sum(1 for _ in writer(sample, folder).run(chain))
        seconds = time.process_time() - began
    result: dict[str, Any] = {
        "cpu_seconds": seconds,
        "kept": kept,
        "peak_megabytes": peak_megabytes(),
    }
    if settings["decide"]:
        import pyarrow.parquet as pq

        batches = pq.ParquetFile(sample).iter_batches(256, columns=["text"])
        result["decided"] = decisions(
            text for batch in batches for text in batch.column(0).to_pylist()
        )
    out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
