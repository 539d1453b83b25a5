"""Letters, chats, forms and records with people in them, and the place of all that is personal.

Beside what has a form of its own (:mod:`tests.curate.personal.personal_texts`) these have what has none:
names from many places, addresses as eight countries write them, numbers of accounts, passports and
licences. One text in six is in lower case, as people type. What is marked as personal is what could lead
to a person; the towns, companies and famous people of :data:`PLAIN` are not.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable

from tests.curate.personal.personal_texts import EASY, HARD, Label

_GIVEN = """
Anna Joao María Wei Fatima Priya Oluwaseun Björn Katarzyna Nguyen Aiko Dmitri Chloé Ahmed Sinéad
Lars Guadalupe Kwame Ingrid Rajesh Leila Tomás Hye-jin Mustafa Greta Caleb Shanice Darnell Brandon
Emily Zoë Pieter Yusuf Marisol Tadeusz Aroha Liam Noor Giulia Mateus Ewa Hiroshi Amara Grace Hope
Will Mark Sandeep Ana-Lucía Jean-Pierre Rose Bill Faith Jack Nadia
"""
_FAMILY = """
Smith Okafor García Müller Chen Nguyen Kowalski O'Neill Haddad Sharma Tanaka Silva Rossi Dubois
Jensen Petrov Cohen Kim Hernández Brown Mbeki Larsson Papadopoulos Yılmaz Novak Fernandes Ferrari
Schäfer Singh Abdi Baker Young Stone Rivers Church Long Price Field West Fisher Van-Dyke MacDonald
Adeyemi Horvat Bianchi Leroux Andersson Castillo Whitfield Blackwood
"""
_STREETS = """
High Maple Oak Victoria Lincoln Elm Mill Park Church Cedar Queen Washington Juniper Foxglove
Riverside Harbour Sycamore Alder Willowbrook Ashdown
"""
TOWNS = {
    "us": [
        "Springfield,IL",
        "Dayton,OH",
        "Tulsa,OK",
        "Boise,ID",
        "Fresno,CA",
        "Albany,NY",
        "Macon,GA",
    ],
    "gb": ["Leeds", "Norwich", "Swansea", "Dundee", "Exeter", "Preston"],
    "de": ["Kassel", "Rostock", "Ulm", "Göttingen", "Trier", "Bielefeld"],
    "fr": ["Lyon", "Nantes", "Dijon", "Rennes", "Amiens", "Grenoble"],
    "es": ["Burgos", "Murcia", "Cádiz", "Vigo", "Oviedo", "Huesca"],
    "in": ["Pune", "Nagpur", "Mysuru", "Kochi", "Surat", "Indore"],
    "br": ["Recife", "Curitiba", "Natal", "Belém", "Niterói", "Campinas"],
    "nl": ["Utrecht", "Breda", "Zwolle", "Delft", "Leiden", "Arnhem"],
}

GIVEN, FAMILY, STREETS = _GIVEN.split(), _FAMILY.split(), _STREETS.split()

TEMPLATES = [
    "Dear {name}, thank you for your letter of 3 May. Your parcel went to {address}. Regards, {given}",
    "My name is {name}. I moved to {address} last spring; my number is {phone}.",
    "hey {given}, can you call me? {phone}, or write to {email}. thx, {given}",
    "Name: {name}\nAddress: {address}\nPhone: {phone}\nE-mail: {email}",
    "{name},{email},{phone},{address}",
    '{{"customer": "{name}", "street": "{address}", "mail": "{email}", "total": 41.20}}',
    "Patient {name} was seen on Tuesday. Her insurer asked for the number {ssn}.",
    "According to {name}, the neighbour at {address}, nobody heard anything that night.",
    "Interviewer: And you are? {given}: {name}. I was born two streets from here.",
    "The cheque is for {name}, account {account}. If it bounces, ring {phone}.",
    "Passport {passport}, issued to {name}. He lives at {address}.",
    "Driver's licence number {licence}, {name}, {address}.",
    "Best,\n{name}\nSenior Engineer, Northwind Tools\n{phone} | {email}\n{address}",
    "I talked to {given} and {given} yesterday; {name} will sign on Friday.",
    "Sehr geehrte Frau {family}, wir haben Ihre neue Anschrift notiert: {address}. Telefon {phone}.",
    "Bonjour, je m'appelle {name} et j'habite {address}. Vous pouvez m'écrire à {email}.",
    "Hola, soy {name}. Mi dirección es {address} y mi correo es {email}.",
    "Olá, meu nome é {name}, moro em {address}.",
    "Mr. and Mrs. {family} of {address} celebrated their golden wedding with their daughter {given}.",
    "FROM: {name} <{email}>\nTO: {name} <{email}>\nSUBJECT: keys\nThe key is with {given} next door.",
    "2026-11-21 10:04:11 user={email} ip={ip} action=login name={name}",
    "card {card} belongs to {name}, please refund it. my iban is {iban}",
    "The witness, {name}, gave her tax number as {ssn} and refused to say more.",
    "Ms {family} replied that Dr {name} had already been told.",
    "yeah {name} from accounting said so, ask {given} if you don't believe me",
]
PLAIN = [
    "The meeting in Geneva ended without a result; ministers will try again in March.",
    "Northwind Tools opened a branch in Lisbon and hired forty people.",
    "Add 250 ml of milk and 3 eggs, stir, and bake for 40 minutes at 180 degrees.",
    "Order 7781 was shipped on 2026-11-21 in two boxes of 4.5 kg each.",
    "Shakespeare wrote Hamlet around 1600; Darwin published in 1859.",
    "The mark will grow faster than the price of stone, said the long report of the west field office.",
    "Version 10.20.30 replaces 10.20.29. See section 4.1.2 and figure 12.",
    "She opened the window, looked at the river and thought of nothing at all.",
    "def total(prices): return sum(prices)  # in cents, see table 3",
    "Room 12-34 is free from 10:00 to 12:30; the code of the course is CS-2041.",
    "The Washington Post and Le Monde both wrote about it in May and June.",
    "Will you come to the park on Friday? Hope so. Grace is what matters, not faith.",
    "Die Sitzung in Wien endete ohne Ergebnis, im März geht es weiter.",
    "El río Ebro nace en Cantabria y desemboca en el Mediterráneo.",
    "Population 84,512; area 112 square kilometres; founded in 1206.",
]

Draw = random.Random


def _digits(draw: Draw, n: int) -> str:
    return "".join(draw.choices(string.digits, k=n))


def name(draw: Draw) -> str:
    given, family = draw.choice(GIVEN), draw.choice(FAMILY)
    initial = draw.choice(string.ascii_uppercase)
    return draw.choice(
        [*[f"{given} {family}"] * 5, f"{given} {initial}. {family}", f"{family}, {given}",
         f"{given} {draw.choice(FAMILY)} {family}", f"{initial}. {family}"]
    )  # fmt: skip


def address(draw: Draw) -> str:
    country = draw.choice(list(TOWNS))
    town, street, n = draw.choice(TOWNS[country]), draw.choice(STREETS), draw.randint(1, 240)
    city, _, state = town.partition(",")
    road = draw.choice(["Street", "St", "Avenue", "Road", "Lane", "Drive"])
    letters = "".join(draw.choices(string.ascii_uppercase, k=2))
    return {
        "us": f"{n * 7} {street} {road}, {city}, {state} {_digits(draw, 5)}",
        "gb": f"{n} {street} {road}, {city} {letters}{n % 20 + 1} {n % 9 + 1}{letters[::-1]}",
        "de": f"{street}straße {n}, {draw.randint(10000, 99999)} {city}",
        "fr": f"{n} rue de la {street}, {draw.randint(10000, 95000)} {city}",
        "es": f"Calle {street} {n}, {draw.randint(10, 52)}{_digits(draw, 3)} {city}",
        "in": f"Flat {n}, {street} Nagar, {city} {draw.randint(110, 855)} {_digits(draw, 3)}",
        "br": f"Rua {street}, {n}, {city} - {_digits(draw, 5)}-{_digits(draw, 3)}",
        "nl": f"{street}laan {n}, {draw.randint(1000, 9999)} {letters} {city}",
    }[country]


def _hard_or_easy(kind: str) -> Callable[[Draw], str]:
    return lambda draw: (EASY if draw.random() < 0.8 else HARD)[kind](draw)


# What each slot is filled with; a label's kind is the slot's name.
SLOTS: dict[str, Callable[[Draw], str]] = {
    "name": name,
    "given": lambda draw: draw.choice(GIVEN),
    "family": lambda draw: draw.choice(FAMILY),
    "address": address,
    "email": _hard_or_easy("email"),
    "phone": _hard_or_easy("phone"),
    "ssn": _hard_or_easy("ssn"),
    "card": EASY["card"],
    "iban": EASY["iban"],
    "ip": EASY["ip"],
    "account": lambda draw: _digits(draw, draw.randint(8, 11)),
    "passport": lambda draw: draw.choice(string.ascii_uppercase) + _digits(draw, 8),
    "licence": lambda draw: (
        f"{draw.choice(FAMILY)[:5].upper()}{_digits(draw, 6)}{draw.choice('ABC')}9"
    ),
}
NAMES = ("name", "given", "family")


def letters(n: int, seed: int = 0) -> list[tuple[str, list[Label]]]:
    """Texts of one to four paragraphs with the places of what is personal; a kind is a slot's name,
    and that of every name is ``name``."""
    draw = Draw(seed)
    texts = []
    for _ in range(n):
        text, labels = "", []
        for _ in range(draw.randint(1, 4)):
            if draw.random() < 0.4:
                text += draw.choice(PLAIN) + "\n"
                continue
            parts = re.split(r"(?<!\{)\{(\w+)\}(?!\})", draw.choice(TEMPLATES))
            for i, part in enumerate(parts):
                if i % 2 == 0:
                    text += part.replace("{{", "{").replace("}}", "}")
                    continue
                value = SLOTS[part](draw)
                kind = "name" if part in NAMES else part
                labels.append((len(text), len(text) + len(value), kind))
                text += value
            text += "\n"
        if draw.random() < 1 / 6 and len(text.lower()) == len(text):
            text = text.lower()
        texts.append((text, labels))
    return texts
