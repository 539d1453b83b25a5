"""Find in texts what should not be kept, or not leave, and put its kind in its place.

The built-in patterns find what has a form of its own: e-mail addresses, payment cards (with Luhn's check
digit, ISO/IEC 7812-1), keys and tokens, phone numbers; in curation also bank accounts, social security
numbers and network addresses. Names and addresses have none: for those, name a
function of your own as ``"module:function"``, text to text. The patterns take about 0.4 ms for a
kilobyte of prose with numbers (0.37 s for a megabyte, on one core), in the recorder's thread.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from pilotfish.registry import load_function

Redact = Callable[[str], str]

PATTERNS = "patterns"

# Keys and tokens that announce themselves: a known prefix, a JSON web token, or a Bearer header.
_KEY = re.compile(
    r"\b(?:sk|pk|rk|pf)[-_][A-Za-z0-9_-]{16,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{20,}"
    r"|\bxox[abposr]-[A-Za-z0-9-]{10,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[A-Za-z0-9_-]{35}"
    r"|\bhf_[A-Za-z0-9]{20,}|\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{16,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
# Parts are bounded, as addresses are (RFC 5321, 4.5.3.1), so that no text makes it slow.
# Letters of European scripts beside ASCII (RFC 6531); others would take in words that stand before.
_LOCAL = r"\w\u00c0-\u024f\u0370-\u052f.+\-"
_EMAIL = re.compile(
    rf"(?<![{_LOCAL}])[{_LOCAL}][{_LOCAL}'%]{{0,63}}@(?:[A-Za-z0-9-]{{1,63}}\.){{1,8}}[A-Za-z]{{2,24}}\b",
    re.ASCII,
)
_CARD = re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-]|\.\d)")
# International (+ and 8 to 15 digits, ITU-T E.164), or three groups as numbers are written, or a
# national number: 0 and four pairs, or an area and six to eight digits.
_PHONE = re.compile(
    r"(?<![\w.+])\+\d(?:[ ().-]{0,2}\d){7,14}(?!\d)"
    r"|(?<![\w.+-])(?<!\d[ .-])\(?0?\d{2,4}\)?[ .-]\d{3,4}[ .-]\d{3,4}(?![ .-]?\d)(?!\w)"
    r"|(?<![\w.+-])(?<!\d[ .-])(?:0\d(?:[ .]\d\d){4}|0[1-9]\d{1,3}[ /]\d{6,8})(?![ .-]?\d)(?!\w)"
)


# US social security numbers; the numbers that were never issued are none.
_SSN = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![a-z])")
# Length by country, from the registry that SWIFT keeps for ISO 13616.
_IBAN_COUNTRIES = {
    15: "NO",
    16: "BE",
    18: "DK FI FO GL NL",
    19: "MK SI",
    20: "AT BA EE KZ LT LU XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU",
    31: "MT SC",
    32: "LC",
}
_IBAN_LENGTHS = {
    country: length for length, names in _IBAN_COUNTRIES.items() for country in names.split()
}
_IP = re.compile(
    r"(?<![\w.])(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}(?!\.?\w)"
    r"|(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])"
)


_End = Callable[[re.Match[str]], int]  # where it ends; 0: it is none


class Found(NamedTuple):
    """Where something stands in a text.

    Attributes:
        start: Its first character.
        end: The one after its last.
        kind: What it is, a name of :data:`KINDS`.
    """

    start: int
    end: int
    kind: str


def _whole(found: re.Match[str]) -> int:
    return found.end()


def _card(found: re.Match[str]) -> int:
    digits = [int(c) for c in found[0] if c.isdigit()]
    return found.end() if _passes_luhn(digits) else 0


def _iban(found: re.Match[str]) -> int:
    """Its end, if the check digits are right (ISO 7064, mod 97-10); what follows may look like more."""
    wanted = _IBAN_LENGTHS.get(found[0][:2], 0)
    taken = ""
    at = 0
    while at < len(found[0]) and len(taken) < wanted:
        taken += found[0][at].strip()
        at += 1
    if len(taken) != wanted or (at < len(found[0]) and found[0][at] != " "):
        return 0
    number = "".join(str(int(c, 36)) for c in taken[4:] + taken[:4])
    return found.start() + at if int(number) % 97 == 1 else 0


def _ip(found: re.Match[str]) -> int:
    if ":" not in found[0]:
        return found.end()
    try:
        address = ipaddress.IPv6Address(found[0])
    except ValueError:
        return 0
    digits = any(c.isdigit() for c in found[0])  # "a::b" and "::" are code
    return found.end() if digits and int(address) >= 1 << 16 else 0


# In the order in which they are looked for: what one has found is not there for the next.
KINDS: dict[str, tuple[re.Pattern[str], _End]] = {
    "email": (_EMAIL, _whole),
    "key": (_KEY, _whole),
    "iban": (_IBAN, _iban),
    "card": (_CARD, _card),
    "ssn": (_SSN, _whole),
    "phone": (_PHONE, _whole),
    "ip": (_IP, _ip),
}
RECORDED = ("email", "key", "card", "phone")  # what the patterns take out of traffic
_TAKEN = "]"  # stands for what was found, so that positions stay what they are


def find_personal(text: str, kinds: Collection[str] = tuple(KINDS)) -> list[Found]:
    """What has a form of its own, in the order of the text; no two overlap.

    Args:
        text: Any text.
        kinds: Names of :data:`KINDS`.

    >>> find_personal("IBAN GB82 WEST 1234 5698 7654 32, host 10.0.0.7")
    [Found(start=5, end=32, kind='iban'), Found(start=39, end=47, kind='ip')]
    """
    everything: list[Found] = []
    for kind, (pattern, end_of) in KINDS.items():
        if kind not in kinds or (kind == "email" and "@" not in text):
            continue

        def take(match: re.Match[str], kind: str = kind, end_of: _End = end_of) -> str:
            end = end_of(match)
            if not end:
                return match[0]
            everything.append(Found(match.start(), end, kind))
            return _TAKEN * (end - match.start()) + match.string[end : match.end()]

        text = pattern.sub(take, text)
    return sorted(everything)


def replace_found(text: str, found: Iterable[Found], replacement: Callable[[str, str], str]) -> str:
    """The text with each thing that was found replaced.

    Args:
        text: Any text.
        found: Places in it, in order, none overlapping.
        replacement: Of a kind and what stood there.
    """
    parts, at = [], 0
    for start, end, kind in found:
        parts += [text[at:start], replacement(kind, text[start:end])]
        at = end
    return "".join([*parts, text[at:]])


def redact_patterns(text: str) -> str:
    """Replace addresses, cards, keys and phone numbers by their kind in brackets.

    >>> redact_patterns("Mail jo@example.org or call +49 30 1234567; card 4111 1111 1111 1111.")
    'Mail [email] or call [phone]; card [card].'
    >>> redact_patterns("Order 4111 1111 1111 1112 of 2026-11-21, 1,234,567 pieces")
    'Order 4111 1111 1111 1112 of 2026-11-21, 1,234,567 pieces'
    """
    found = find_personal(text, RECORDED)
    return replace_found(text, found, lambda kind, _: f"[{kind}]") if found else text


def _passes_luhn(digits: list[int]) -> bool:
    doubled = (2 * d - 9 * (d > 4) for d in digits[-2::-2])
    return any(digits) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def find_redactor(name: str) -> Redact | None:
    """What ``redact`` names: ``"patterns"``, ``"module:function"``, or "" for none.

    Raises:
        ConfigError: There is no such function.
    """
    if not name:
        return None
    if name == PATTERNS:
        return redact_patterns
    return load_function("redact", name, others=f'"{PATTERNS}"')
