"""Semantic deduplication: which threshold finds copies with changed words, and what else it joins.

    pilotfish pull stackoverflow bge-small-en-v1.5
    python benchmarks/semantic_duplicates.py

Two sets: paragraphs of 40 to 200 words from the documentation of the programs that are installed here
(/usr/share/doc), and titles of questions on Stack Overflow (8 words on average). A copy has a share of
its words changed: half of them replaced by others of the set, a quarter removed, a quarter with one more
after it; "order" has the same words in another order. For each threshold: the share of copies whose
cosine to their original is above it, and the share of texts that have a neighbour above it among the
others, which were not copied from one another (though documentation repeats itself: licences, options).
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import zlib
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from circumstances import machine

from pilotfish.models.load import load_encoder

RESULT = Path(__file__).parent / "results" / "semantic_duplicates.json"
DOCUMENTATION = Path("/usr/share/doc")
THRESHOLDS = (0.8, 0.85, 0.9, 0.92, 0.95, 0.97, 0.98)
SHARES = (0.01, 0.03, 0.05, 0.1)
FILES = 6000


def paragraphs() -> list[str]:
    found = set()
    for path in sorted(DOCUMENTATION.rglob("*"))[:FILES]:
        if not path.is_file() or path.stat().st_size > 300_000:
            continue
        try:
            data = path.read_bytes()
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        except (OSError, UnicodeDecodeError, EOFError, zlib.error):
            continue
        for part in re.split(r"\n\s*\n", text):
            words = part.split()
            if 40 <= len(words) <= 200 and sum(c.isalpha() for c in part) > 0.7 * len(part):
                found.add(" ".join(words))
    return sorted(found)


def titles() -> list[str]:
    from pilotfish.models.catalogue import locate

    file = locate("stackoverflow") / "train.jsonl"
    return sorted({json.loads(line)["text"] for line in file.open()})


def changed(text: str, share: float, draw: random.Random, others: list[str]) -> str:
    words = text.split()
    wanted = share * len(words)
    n = int(wanted) + (draw.random() < wanted % 1)
    for i in draw.sample(range(len(words)), n):
        what = draw.random()
        words[i] = draw.choice(others) if what < 0.5 else ""
        if what >= 0.75:
            words[i] = f"{text.split()[i]} {draw.choice(others)}"
    return " ".join(word for word in words if word)


def measure(spec: str, texts: list[str]) -> dict[str, Any]:
    encoder, draw = load_encoder(spec), random.Random(1)
    words = [word for text in texts for word in text.split()]
    vectors = encoder.encode(texts)
    near = vectors @ vectors.T
    np.fill_diagonal(near, -1)
    copies = {f"{s:.0%}": [changed(text, s, draw, words) for text in texts] for s in SHARES}
    copies["order"] = [" ".join(draw.sample(t.split(), len(t.split()))) for t in texts]
    cosines = {
        name: (vectors * encoder.encode(those)).sum(axis=1) for name, those in copies.items()
    }
    return {
        "texts": len(texts),
        "mean words": round(len(words) / len(texts), 1),
        "above": {
            str(least): {
                **{name: round(float((c > least).mean()), 3) for name, c in cosines.items()},
                "others": round(float((near.max(axis=1) > least).mean()), 4),
            }
            for least in THRESHOLDS
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, default=3000)
    parser.add_argument("--slow-texts", type=int, default=400, help="for encoders but static ones")
    options = parser.parse_args()
    sets = {"paragraphs": paragraphs(), "titles": titles()}
    stored: dict[str, Any] = {}
    for spec in ("static", "onnx:bge-small-en-v1.5"):
        n = options.texts if spec == "static" else options.slow_texts
        stored[spec] = {
            name: measure(spec, random.Random(0).sample(texts, min(n, len(texts))))
            for name, texts in sets.items()
        }
    stored["run"] = {
        "date": date.today().isoformat(),
        "hardware": machine(),
    }
    RESULT.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
