"""The four filter sets in datatrove, on documents of a Parquet file; curate.py runs it.

    python benchmarks/curate_datatrove.py SAMPLE.parquet SETTINGS.json OUT.json

Run by a Python that has datatrove. SETTINGS: ``tokenizer`` is null (as shipped:
spaCy) or the pattern of a word for ``re``; ``sentence`` the pattern of the end of a sentence; ``decide``
whether to store what each filter says of each document on its own, beside the time of all in a chain.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
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


def documents(path: str) -> Iterator[Document]:
    """The documents of the file, one at a time."""
    for batch in pq.ParquetFile(path).iter_batches(256, columns=["id", "text"]):
        for number, text in zip(batch.column(0), batch.column(1), strict=True):
            yield Document(text=text.as_py(), id=str(number.as_py()))


def sets() -> dict[str, Any]:
    """The filters, in the order of FineWeb's own pipeline, each with its defaults."""
    return {
        "gopher_repetition": GopherRepetitionFilter(),
        "gopher_quality": GopherQualityFilter(),
        "c4": C4QualityFilter(),
        "fineweb": FineWebQualityFilter(),
    }


def peak_megabytes() -> float:
    """The most memory this process has held. Not ``ru_maxrss``, which begins with that of the parent."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    sample, settings_file, out = sys.argv[1:]
    settings = json.loads(Path(settings_file).read_text())
    warnings.simplefilter("ignore")
    logger.remove()
    if settings["tokenizer"]:
        tokenizer = ByPattern(settings["tokenizer"], settings["sentence"])
        word_tokenizers.load_word_tokenizer = lambda _: tokenizer
    datatrove_text.split_into_words("One sentence, to load what is loaded once.")
    filters = sets()
    chain: Iterator[Document] = documents(sample)
    for one in filters.values():
        chain = one.run(chain)
    began = time.process_time()
    kept = [document.id for document in chain]
    seconds = time.process_time() - began
    result: dict[str, Any] = {
        "cpu_seconds": seconds,
        "kept": len(kept),
        "peak_megabytes": peak_megabytes(),
    }
    if settings["decide"]:
        filters, decided = sets(), []
        for document in documents(sample):
            said: dict[str, Any] = {}
            original = document.text
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
        result["decided"] = decided
    Path(out).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
