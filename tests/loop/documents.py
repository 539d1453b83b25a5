"""Made-up mails with a rule that plays the large model: what is to be extracted is known exactly."""

from __future__ import annotations

import datetime
import json
import random
from typing import Any

from tests.loop.traffic import words

PROMPT = (
    "Extract name, order, total, date, city, reason and phone from this mail as JSON, with null for "
    "what is not there.\n\nMail:\n{}"
)
FIRST = words(
    "Ada Bob Carla Dmitri Elena Farid Grace Hugo Ines Jonas Kira Luis Mona Nils Olga Pavel"
)
LAST = words(
    "Lovelace Meyer Rossi Novak Silva Khan Olsen Dupont Garcia Ito Kowalski Nguyen Smith Weber "
    "Andersson Petrov"
)
CITIES = words("Lyon Porto Graz Turin Ghent Malmo Split Gdansk Cork Basel Leeds Bilbao")
REASONS = {
    "damaged": "It arrived broken|The box was crushed|There is a crack in the glass",
    "late": "It has not come yet|I have been waiting for two weeks|The parcel is late",
    "wrong item": "You sent me another model|This is not what I bought|I got the wrong colour",
    "refund": "I want my money back|Please return the amount|Kindly refund me",
}
MONTHS = words(
    "January February March April May June July August September October November December"
)


def mail(rng: random.Random, hard: float = 0.0) -> tuple[str, dict[str, Any]]:
    """A mail and what is to be extracted from it; a share of them is told in unusual ways."""
    name = f"{rng.choice(FIRST)} {rng.choice(LAST)}"
    order = f"{rng.choice('ABCDEFGH')}{rng.choice('KLMNP')}-{rng.randint(10000, 99999)}"
    other = f"{rng.choice('ABCDEFGH')}{rng.choice('KLMNP')}-{rng.randint(10000, 99999)}"
    cents = rng.randint(500, 400_000)
    total = f"{cents // 100:,}.{cents % 100:02d}"
    day = datetime.date(2025, 1, 1) + datetime.timedelta(days=rng.randint(0, 600))
    city = rng.choice(CITIES)
    reason = rng.choice(list(REASONS))
    told = rng.choice(REASONS[reason].split("|"))
    phone = f"0{rng.randint(100, 999)} {rng.randint(100, 999)} {rng.randint(1000, 9999)}"
    with_phone = rng.random() < 0.6
    date = rng.choice(
        [f"{day.day} {MONTHS[day.month - 1]} {day.year}", day.isoformat(), f"{day:%d.%m.%Y}"]
    )
    opening = rng.choice(["Hello,", "Dear team,", "Good morning,", "Hi there,"])
    bought = rng.choice(
        [
            f"I ordered on {date} (order {order}) and paid {total} EUR.",
            f"On {date} I placed order {order} for EUR {total}.",
            f"My order number is {order}, of {date}; the total was {total} euros.",
        ]
    )
    earlier = rng.choice(
        ["", "", f" My last order {other} was fine.", f" Not like {other} before."]
    )
    living = rng.choice(
        [f"Please send it to {city}.", f"I live in {city}.", f"The address in {city} is the same."]
    )
    calling = rng.choice([f"Call me at {phone}.", f"Phone: {phone}"]) if with_phone else ""
    closing = rng.choice(["Regards,", "Thanks,", "Best,"])
    if rng.random() < hard:  # two people, two cities: which is meant follows from the sense alone
        wrong, city = city, rng.choice(CITIES)
        living = f"My sister {rng.choice(FIRST)} {rng.choice(LAST)} in {city} asks, not {wrong}."
    body = " ".join(part for part in (bought + earlier, told + ".", living, calling) if part)
    text = f"{opening}\n{body}\n{closing}\n{name}"
    value = {
        "name": name,
        "order": order,
        "total": cents / 100,
        "date": day.isoformat(),
        "city": city.upper(),
        "reason": reason,
        "phone": phone.replace(" ", "") if with_phone else None,
    }
    return text, value


def mails(count: int, seed: int = 0, hard: float = 0.0) -> list[tuple[str, dict[str, Any]]]:
    """So many mails."""
    rng = random.Random(seed)
    return [mail(rng, hard) for _ in range(count)]


def answer(value: dict[str, Any]) -> str:
    """How the large model writes it."""
    return json.dumps(value, indent=2)
