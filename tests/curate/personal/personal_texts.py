"""Texts with personal data of known kind and place, as people write it, and with what only looks like it.

The forms are taken from how such things are written, not from the patterns that look for them; some
(``HARD``) no pattern can be blamed for missing.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable

Label = tuple[int, int, str]

FIRST = ["anna", "jo", "li", "mohamed", "zoë", "x", "maria-luisa", "o'neil", "peter"]
LAST = ["smith", "garcía", "müller", "chen", "doe", "van-dyke", "okafor"]
DOMAINS = ["example.org", "mail.example.co.uk", "firma-beispiel.de", "example.museum", "a.io"]
SENTENCES = [
    "Please write to {} before Monday.",
    "{}",
    "Contact: {}; thanks!",
    "({}) is what we have on file.",
    "My old one was {}, the new one is {}.",
    'He said "{}" twice.',
    "<{}>",
    "see\t{}\nand nothing else",
    "Die Angabe {} ist neu.",
    "连接 {} 。",
]
CLEAN = [
    "On 2026-11-21 at 12:30:05 we sold 1,234,567 pieces for 1234.50.",
    "Version 10.20.30 replaces 10.20.29; see section 4.1.2.",
    "ISBN 978-3-16-148410-0, order 4111 1111 1111 1112, pi is 3.14159265358979.",
    "user@localhost and @someone, a@b, std::vector<int>::iterator, a::b.",
    "Invoice 2026/0001/7781, room 12-34, 5-4-3-2-1, tel. none.",
    "DE00 is no account, GB82WEST12345698765433 is mistyped.",
    "The ratio 16:9, mac 00:1b:63:84:45:e6, hash deadbeefcafe1234567890abcdef12.",
    "000-12-3456 and 666-12-3456 were never issued.",
]
# Nothing personal, but nobody could tell from the form.
AMBIGUOUS = ["Invoice 2026-0001-7781 is paid.", "See section 4.1.2.3 of the standard."]


def luhn(digits: str) -> str:
    """With its check digit, as ISO/IEC 7812-1 says."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        double = int(digit) * (2 if position % 2 == 0 else 1)
        total += double // 10 + double % 10
    return digits + str((10 - total % 10) % 10)


def _digits(draw: random.Random, n: int) -> str:
    return "".join(draw.choices(string.digits, k=n))


def email(draw: random.Random) -> str:
    first, last, domain = draw.choice(FIRST), draw.choice(LAST), draw.choice(DOMAINS)
    name = draw.choice([first, f"{first}.{last}", f"{first}_{last}{draw.randint(1, 99)}"])
    name = draw.choice([name, name.title(), f"{first}+{last}"])
    return f"{name}@{draw.choice([domain, domain.upper()])}"


def card(draw: random.Random) -> str:
    start = draw.choice(["4", "51", "55", "6011"])
    number = luhn(start + _digits(draw, 15 - len(start)))
    groups = [number[i : i + 4] for i in range(0, 16, 4)]
    amex = luhn("37" + _digits(draw, 12))
    return draw.choice(
        [number, " ".join(groups), "-".join(groups), f"{amex[:4]} {amex[4:10]} {amex[10:]}"]
    )


def iban(draw: random.Random) -> str:
    country, form = draw.choice(
        [
            ("DE", "d" * 18),
            ("GB", "a" * 4 + "d" * 14),
            ("FR", "d" * 10 + "a" * 2 + "d" * 11),
            ("NO", "d" * 11),
            ("NL", "a" * 4 + "d" * 10),
            ("MT", "a" * 4 + "d" * 5 + "a" * 18),
        ]
    )
    letters = string.ascii_uppercase
    account = "".join(draw.choice(string.digits if c == "d" else letters) for c in form)
    number = int("".join(str(int(c, 36)) for c in account + country + "00"))
    whole = f"{country}{98 - number % 97:02d}{account}"
    return draw.choice([whole, " ".join(whole[i : i + 4] for i in range(0, len(whole), 4))])


def phone(draw: random.Random) -> str:
    d = _digits
    return draw.choice(
        [
            f"+1 ({draw.randint(201, 989)}) {d(draw, 3)}-{d(draw, 4)}",
            f"+49 {draw.randint(30, 89)} {draw.randint(1000000, 9999999)}",
            f"+44 20 {d(draw, 4)} {d(draw, 4)}",
            f"+{draw.randint(30, 98)}{d(draw, 9)}",
            f"({draw.randint(201, 989)}) {d(draw, 3)}-{d(draw, 4)}",
            f"{draw.randint(201, 989)}-{d(draw, 3)}-{d(draw, 4)}",
            f"{draw.randint(201, 989)}.{d(draw, 3)}.{d(draw, 4)}",
            f"0{draw.randint(30, 89)}/{draw.randint(1000000, 9999999)}",  # German
            f"0{draw.randint(1, 9)} {' '.join(d(draw, 2) for _ in range(4))}",  # French
            f"07{d(draw, 3)} {d(draw, 6)}",  # British mobile
        ]
    )


def ssn(draw: random.Random) -> str:
    return f"{draw.randint(1, 665):03d}-{draw.randint(1, 99):02d}-{draw.randint(1, 9999):04d}"


def ip(draw: random.Random) -> str:
    four = ".".join(str(draw.randint(0, 255)) for _ in range(4))
    groups = [f"{draw.randint(0, 65535):x}" for _ in range(8)]
    return draw.choice([four, ":".join(groups), f"{groups[0]}:{groups[1]}::{groups[2]}"])


def key(draw: random.Random) -> str:
    letters = string.ascii_letters + string.digits
    tail = "".join(draw.choices(letters, k=40))
    return draw.choice([f"sk-{tail}", f"ghp_{tail[:36]}", f"AKIA{tail[:16].upper()}", f"hf_{tail}"])


EASY: dict[str, Callable[[random.Random], str]] = {
    "email": email,
    "card": card,
    "iban": iban,
    "phone": phone,
    "ssn": ssn,
    "ip": ip,
    "key": key,
}
HARD: dict[str, Callable[[random.Random], str]] = {
    "email": lambda draw: email(draw).replace("@", " (at) ").replace(".", " dot "),
    "phone": lambda draw: f"0{_digits(draw, 9)}",
    "ssn": lambda draw: f"{draw.randint(1, 665):03d}{_digits(draw, 6)}",
}


def labelled(
    n: int, seed: int = 0, kinds: dict[str, Callable[[random.Random], str]] | None = None
) -> list[tuple[str, list[Label]]]:
    """Texts of some sentences each, with the places of what is personal in them."""
    draw = random.Random(seed)
    kinds = kinds or EASY
    texts = []
    for _ in range(n):
        text, labels = "", []
        for _ in range(draw.randint(1, 4)):
            if draw.random() < 0.3:
                text += draw.choice(CLEAN + AMBIGUOUS) + draw.choice([" ", "\n"])
                continue
            parts = draw.choice(SENTENCES).split("{}")
            for i, part in enumerate(parts):
                text += part
                if i < len(parts) - 1:
                    kind = draw.choice(list(kinds))
                    value = kinds[kind](draw)
                    labels.append((len(text), len(text) + len(value), kind))
                    text += value
            text += draw.choice([" ", "\n"])
        texts.append((text, labels))
    return texts
