"""The rule sets in plain Python, text by text and word by word: what the fast ones are compared with.

Written from the papers and from what datatrove's filters decide, without arrays.
"""

from __future__ import annotations

import re
from collections import Counter

from pilotfish.curate.rules.characters import SYMBOLS, TERMINALS, word_pattern

WORD = re.compile(word_pattern())
PUNCTUATION = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") | set(SYMBOLS) | TERMINALS
CONTROLS = {chr(i) for i in [*range(32), *range(127, 160)]}
STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
POLICY = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
SENTENCE_END = re.compile(r"""[.?!]["')\]]{0,3}(?=[ \t\n\r\x0b\x0c\x1c-\x1f]|\Z)""")


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def gopher_quality(text: str, min_words: int = 50) -> str | None:
    words = WORD.findall(text)
    real = [w for w in words if any(c not in PUNCTUATION and c not in CONTROLS for c in w)]
    if len(real) < min_words:
        return "too_few_words"
    if len(real) > 100_000:
        return "too_many_words"
    if real:
        mean = sum(map(len, real)) / len(real)
        if mean < 3:
            return "words_too_short"
        if mean > 10:
            return "words_too_long"
    if ratio(text.count("#"), len(words)) > 0.1:
        return "too_many_hashes"
    if ratio(text.count("...") + text.count("…"), len(words)) > 0.1:
        return "too_many_ellipses"
    lines = text.splitlines()
    if ratio(sum(line.strip().startswith(("•", "-")) for line in lines), len(lines)) > 0.9:
        return "too_many_bullet_lines"
    if ratio(sum(line.strip().endswith(("...", "…")) for line in lines), len(lines)) > 0.3:
        return "too_many_ellipsis_lines"
    if ratio(sum(any(c.isalpha() for c in w) for w in words), len(words)) < 0.8:
        return "too_few_alphabetic_words"
    return "too_few_stop_words" if len(STOP_WORDS & set(words)) < 2 else None


def repeats(parts: list[str]) -> tuple[int, int]:
    seen: set[str] = set()
    count = chars = 0
    for part in parts:
        if part in seen:
            count, chars = count + 1, chars + len(part)
        seen.add(part)
    return count, chars


def top_gram_chars(words: list[str], n: int) -> int:
    grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    if not grams:
        return 0
    gram, count = grams.most_common(1)[0]
    return len(gram) * count


def repeated_gram_chars(words: list[str], n: int) -> int:
    seen: set[tuple[str, ...]] = set()
    chars = at = 0
    while at + n <= len(words):
        gram = tuple(words[at : at + n])
        if gram in seen:
            chars += sum(map(len, gram))
            at += n
        else:
            seen.add(gram)
            at += 1
    return chars


def gopher_repetition(text: str) -> str | None:
    if not text:
        return "empty"
    paragraphs = re.split(r"\n{2,}", text.strip())
    count, chars = repeats(paragraphs)
    if count / len(paragraphs) > 0.3:
        return "repeated_paragraphs"
    if chars / len(text) > 0.2:
        return "repeated_paragraph_chars"
    lines = re.split(r"\n+", text)
    count, chars = repeats(lines)
    if count / len(lines) > 0.3:
        return "repeated_lines"
    if chars / len(text) > 0.2:
        return "repeated_line_chars"
    words = WORD.findall(text)
    for n, most in ((2, 0.2), (3, 0.18), (4, 0.16)):
        if top_gram_chars(words, n) / len(text) > most:
            return f"top_{n}_gram"
    for n, most in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1)):
        if repeated_gram_chars(words, n) / len(text) > most:
            return f"repeated_{n}_grams"
    return None


def fineweb(text: str) -> str | None:
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return "empty"
    if sum(line[-1] in TERMINALS for line in lines) / len(lines) < 0.12:
        return "too_few_punctuated_lines"
    if sum(len(line) <= 30 for line in lines) / len(lines) > 0.67:
        return "too_many_short_lines"
    if repeats(lines)[1] / len(text.replace("\n", "")) > 0.01:
        return "repeated_line_chars"
    return "too_many_new_lines" if text.count("\n") / len(WORD.findall(text)) > 0.3 else None


def sentences(line: str) -> int:
    ends = [match.end() for match in SENTENCE_END.finditer(line)]
    return len(ends) + (not ends or ends[-1] < len(line))


def ascii_lower(text: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in text)


def c4(text: str, min_sentences: int = 5, strict: bool = True) -> tuple[str | None, str]:
    """The reason or None, and the text that is left; not strict: any end and any number of words."""
    kept, found = [], 0
    for raw in text.splitlines():
        line = raw.strip()
        words = line.split()
        if any(len(word) > 1000 for word in words):
            continue
        line = CITATION.sub("", line)
        if strict and (not line.endswith((".", "?", "!", '"', "'")) or line.endswith("...")):
            continue
        if strict and len(words) < 3:
            continue
        lower = ascii_lower(line)
        if "lorem ipsum" in lower:
            return "lorem_ipsum", text
        if "javascript" in lower:
            continue
        if "{" in line:
            return "curly_bracket", text
        if any(phrase in lower for phrase in POLICY):
            continue
        found += sentences(line)
        kept.append(line)
    if found < min_sentences:
        return "too_few_sentences", text
    return None, "\n".join(kept).strip()


def ccnet(text: str, min_chars: int = 300) -> tuple[str | None, str]:
    if len(text) < min_chars:
        return "too_short", text
    seen, kept = set(), []
    for line in text.split("\n"):
        plain = re.sub(r"\d", "0", line.strip().lower())
        plain = "".join(c for c in plain if c not in CONTROLS and c not in SYMBOLS + "。？！．´")
        if plain not in seen:
            kept.append(line)
        seen.add(plain)
    return None, "\n".join(kept)
