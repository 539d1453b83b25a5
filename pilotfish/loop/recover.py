"""Recover the templates that prompts were made from, with their variable parts.

Prompts are cut into tokens (words, single spaces, single other characters). A run of six tokens that many
prompts share is nearly always the author's and not the data's, so prompts with the same set of such runs
are one template. Within it, runs of three tokens that occur equally often in nearly every prompt are its
literal text; what lies between them is a place. Each recovered template is checked against the prompts.

Every step looks at each token a fixed number of times, so the cost is linear in the text. Log parsers
do the same for lines of fixed shape (Drain: He et al. 2017); prompts have values of any length, so what
is compared are runs and not positions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pilotfish.loop.template import Template

TOKENS = re.compile(r"\w+|\s|[^\w\s]")
LONG_RUN = 6  # tokens: about three words with their spaces
SHORT_RUN = 3
NEARLY_ALL = 0.98  # of the prompts: the rest may hold the literal text in their values too
SAMPLE = 200  # prompts that a template is recovered from
REFERENCES = 6  # prompts that are tried as the pattern
LONGEST = 4_000  # tokens of a prompt that are looked at
FEWEST_LITERAL = 8  # characters besides spaces, or it is no template
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*")

Runs = frozenset[int]


def tokens(text: str) -> list[str]:
    """Words, single spaces and single other characters.

    >>> tokens("Is it so? ")
    ['Is', ' ', 'it', ' ', 'so', '?', ' ']
    """
    return TOKENS.findall(text)


def group(prompts: Sequence[str], fewest: int, run: int = LONG_RUN) -> list[list[int]]:
    """Prompts by what they share: those of one template together, the largest group first.

    Args:
        prompts: The texts.
        fewest: Prompts that a run must occur in, and that a group must have.
        run: Tokens of a run; shorter ones find shorter templates, and more that is none.

    Returns:
        Positions; prompts that are in no group are left out.
    """
    lists = [_run_list(tokens(text)[:LONGEST], run) for text in prompts]
    sets = [set(runs) for runs in lists]
    frequency = Counter(one for runs in sets for one in runs)
    common = {one for one, count in frequency.items() if count >= fewest}
    by_set: dict[Runs, list[int]] = {}
    for i, runs in enumerate(sets):
        shared = frozenset(runs & common)
        if shared:
            by_set.setdefault(shared, []).append(i)
    sizes = sorted(by_set, key=lambda s: (-len(by_set[s]), -len(s)))
    found: dict[Runs, list[int]] = {}
    kept = [s for s in sizes if len(by_set[s]) >= fewest]
    for shared in sizes:
        # What a value has in common with other values comes on top of the template's own runs.
        parents = [k for k in kept if k < shared and len(by_set[k]) >= len(by_set[shared])]
        if parents:
            home = max(parents, key=lambda k: (len(k), len(by_set[k])))
            while inner := [
                p for p in kept if p < home and len(by_set[p]) >= 2 * len(by_set[home])
            ]:
                home = max(inner, key=lambda k: (len(k), len(by_set[k])))
        elif shared in kept:
            home = shared
        else:
            continue
        found.setdefault(home, []).extend(by_set[shared])
    groups = [sorted(members) for members in found.values() if len(members) >= fewest]
    # Values that are themselves made of common phrases (mails, forms) give nearly every prompt a set of
    # its own; what such prompts still share is how they begin or end.
    taken = {i for members in groups for i in members}
    by_ends: dict[tuple[int, int], list[int]] = {}
    for i, mine in enumerate(lists):
        ends = tuple(one if one in common else 0 for one in (mine[0], mine[-1]))
        if i not in taken and any(ends):
            by_ends.setdefault((ends[0], ends[1]), []).append(i)
    groups += [members for members in by_ends.values() if len(members) >= fewest]
    return sorted(groups, key=lambda members: (-len(members), members[0]))


def recover(prompts: Sequence[str]) -> Template | None:
    """The template of prompts that were made from one, or None when there is none to see.

    A prompt that never varies has no place and so is no template. The names of places come from the word
    before them.

    >>> recover([f"Is {x} a fish? Say yes or no." for x in ("a cod", "the pike", "my cat", "an ox")])
    Template('Is {text} a fish? Say yes or no.')
    """
    step = max(1, len(prompts) // SAMPLE)
    sample = list(dict.fromkeys(prompts[::step]))[:SAMPLE]
    if len(sample) < 2:
        return None
    cut = [tokens(text)[:LONGEST] for text in sample]
    counts = [Counter(_run_list(words, SHORT_RUN)) for words in cut]
    needed = NEARLY_ALL * len(sample)
    best: tuple[int, int, list[str]] = (0, 0, [])
    for words, mine in list(zip(cut, counts, strict=True))[:REFERENCES]:
        fixed = {
            run
            for run, times in mine.items()
            if times <= 3 and sum(other[run] == times for other in counts) >= needed
        }
        literals = _literals(words, fixed)
        matched = [values for text in sample if (values := split(text, literals)) is not None]
        if len(matched) < needed:
            continue
        literals = _widen(literals, matched)
        fit = sum(split(text, literals) is not None for text in sample)
        solid = sum(len("".join(part.split())) for part in literals)
        if solid >= FEWEST_LITERAL and (fit, solid) > best[:2]:
            best = (fit, solid, literals)
    return Template(_prompt(best[2])) if best[2] else None


def split(text: str, literals: Sequence[str]) -> list[str] | None:
    """The values between literal parts (the first and last may be ""), or None if the text differs."""
    if not text.startswith(literals[0]):
        return None
    at = len(literals[0])
    values = []
    for part in literals[1:-1]:
        end = text.find(part, at)
        if end < 0:
            return None
        values.append(text[at:end])
        at = end + len(part)
    end = len(text) - len(literals[-1])
    if end < at or not text.endswith(literals[-1]):
        return None
    return [*values, text[at:end]]


def _run_list(words: Sequence[str], length: int) -> list[int]:
    # The ends count as tokens, so that "at the very beginning" is part of a run.
    padded = ["\x02", *words, "\x03"]
    return [hash(tuple(padded[i : i + length])) for i in range(max(1, len(padded) - length + 1))]


def _literals(words: Sequence[str], fixed: Iterable[int]) -> list[str]:
    """Literal parts of one prompt: what the fixed runs cover; always starts and ends with a part."""
    wanted = set(fixed)
    padded = ["\x02", *words, "\x03"]
    covered = [False] * len(padded)
    for i, run in enumerate(_run_list(words, SHORT_RUN)):
        if run in wanted:
            covered[i : i + SHORT_RUN] = [True] * SHORT_RUN
    parts: list[list[str]] = [[]] if not covered[0] else []
    for i, word in enumerate(padded):
        if covered[i]:
            if i == 0 or not covered[i - 1]:
                parts.append([])
            parts[-1].append(word)
    if not covered[-1]:
        parts.append([])
    return ["".join(part).strip("\x02\x03") for part in parts]


def _widen(literals: list[str], values: Sequence[Sequence[str]]) -> list[str]:
    """Give the literal text what all values begin or end with; drop places that are always empty."""
    wide = [literals[0]]
    for place, following in enumerate(literals[1:]):
        column = [row[place] for row in values]
        start = _common_start(column)
        rest = [value[len(start) :] for value in column]
        end = _common_start([value[::-1] for value in rest])[::-1]
        wide[-1] += start
        if any(rest):
            wide.append(end + following)
        else:
            wide[-1] += following
    return wide if len(wide) > 1 else []


def _common_start(texts: Sequence[str]) -> str:
    low, high = min(texts), max(texts)
    same = 0
    while same < min(len(low), len(high)) and low[same] == high[same]:
        same += 1
    return low[:same]


def _prompt(literals: Sequence[str]) -> str:
    names = _names(literals[:-1])
    parts = [part.replace("{", "{{").replace("}", "}}") for part in literals]
    places = [f"{{{name}}}" for name in names] + [""]
    return "".join(part + place for part, place in zip(parts, places, strict=True))


def _names(before: Sequence[str]) -> list[str]:
    """Names of the places, from the last word before each; ``text`` for a single place."""
    if len(before) == 1:
        return ["text"]
    names: list[str] = []
    for number, literal in enumerate(before, 1):
        words = _WORD.findall(literal[-40:])
        name = words[-1].casefold() if words else f"part{number}"
        names.append(name if name not in names else f"{name}{number}")
    return names


def literal_parts(template: Template) -> list[str]:
    """The literal text around a template's places; for finding a template fast.

    >>> literal_parts(Template("A {x} or {{b}} {y}"))
    ['A ', ' or {b} ', '']
    """
    marks: Mapping[str, str] = dict.fromkeys(template.fields, "\x1f")
    return template.render(marks).split("\x1f")
