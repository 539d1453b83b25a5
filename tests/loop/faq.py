"""Made-up questions to a shop, of which it is known which have the same answer, and who answers them.

The meaning of a question is its intent with its values; the large model words each answer after the
question's own words, so that paraphrases get other texts with the same meaning. Questions of one intent
with other numbers, names or a negation look alike and mean something else.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Iterator
from typing import Any

from pilotfish.loop.equivalence import SYSTEM as JUDGE_SYSTEM
from pilotfish.records import Completion, Request, Usage
from pilotfish.store.traffic import Recorded

SYSTEM = "You answer customers of a small shop for tents and boots. Be short, exact and friendly."
CITIES = "Paris London Berlin Madrid Rome Vienna Oslo Lisbon Dublin Prague Athens Warsaw".split()  # noqa: SIM905
# Intent: how it is asked, and what is meant. {n} is a number, {c} a city.
INTENTS: dict[str, tuple[str, ...]] = {
    "password": (
        "How do I reset my password?",
        "I forgot my password, how can I reset it?",
        "My password does not work any more, how do I get a new password?",
    ),
    "hours": (
        "What are your opening hours?",
        "When is your shop open?",
        "At what hours are you open in the shop?",
    ),
    "card": ("Can I pay with a credit card?", "May I use my credit card to pay?"),
    "no-card": ("Can I pay without a credit card?", "May I pay if I have no credit card?"),
    "return-{n}": (
        "Can I return boots {n} days after I bought them?",
        "I bought boots {n} days ago, can I return them?",
    ),
    "delivery-{c}": (
        "How long does delivery to {c} take?",
        "When will a parcel arrive in {c}?",
        "How many days does a delivery to {c} need?",
    ),
    "warranty": (
        "How long is the warranty on tents?",
        "What warranty do your tents have?",
        "Do tents come with a warranty, and how long is it?",
    ),
    "gift": ("Do you sell gift vouchers?", "Can I buy a gift voucher?"),
    "repair": ("Do you repair boots?", "Can you repair my old boots?"),
}
WEIGHTS = (8, 8, 5, 2, 4, 6, 7, 4, 4)
OPENINGS = ("", "", "", "Hi, ", "Hello! ", "Please tell me: ", "Quick one. ")
TAILS = 0.8  # share of the questions with a sentence or two behind them
PLACES = ("phone", "office", "kitchen", "train", "garden", "car")
MOODS = ("urgent", "important", "private", "simple", "new", "early", "late", "nice")
WORDINGS = (
    "Our answer is: {}.",
    "Thanks for asking! {}. Have a nice day.",
    "{}. Is there anything else?",
    "Sure, here it is: {}.",
)
_CORE = re.compile(r"fact [\w-]+")


def question(rng: random.Random) -> tuple[str, str]:
    """A question and what it means."""
    (intent,) = rng.choices(list(INTENTS), weights=WEIGHTS)
    values = {"n": rng.randint(3, 60), "c": rng.choice(CITIES)}
    text = rng.choice(OPENINGS) + rng.choice(INTENTS[intent])
    if rng.random() < TAILS:  # else one of a few texts, which come again word for word
        text += f" I write from my {rng.choice(PLACES)}. It is {rng.choice(MOODS)}, thank you."
    return text.format(**values), intent.format(**values)


def meaning(text: str) -> str:
    """What a question means."""
    for opening in sorted(set(OPENINGS), key=len, reverse=True):
        if text.startswith(opening):
            core = text[len(opening) :]
            break
    core = core[: core.index("?") + 1]
    for intent, ways in INTENTS.items():
        for way in ways:
            pattern = re.escape(way).replace(r"\{n\}", r"(\d+)").replace(r"\{c\}", r"(\w+)")
            found = re.fullmatch(pattern, core)
            if found:
                return re.sub(r"\{.\}", found[1] if found.groups() else "", intent)
    return "unknown"


def answer(text: str, era: str = "") -> str:
    """What the large model says: the meaning, worded by chance that the question's words decide."""
    said = f"fact {meaning(text)}{era}"
    return WORDINGS[zlib.crc32(text.encode()) % len(WORDINGS)].format(said)


def equivalent(first: str, second: str) -> bool:
    """The truth about two answers."""
    return _CORE.findall(first) == _CORE.findall(second)


def judged(pair: str) -> str:
    """What the scripted judge says."""
    values = json.loads(pair)
    return "equivalent" if equivalent(values["answer_1"], values["answer_2"]) else "different"


class Large:
    """The scripted large model, which is also the judge; counts what it was asked."""

    def __init__(self) -> None:
        self.era = ""
        self.answers = self.verdicts = 0

    def says(self, messages: Any) -> str:
        """Its reply."""
        text = str(messages[-1]["content"])
        if messages[0]["content"] == JUDGE_SYSTEM:
            self.verdicts += 1
            return judged(text)
        self.answers += 1
        return answer(text, self.era)

    def __call__(self, asked: Any) -> str:
        """For a FakeModel (a request) and a FakeServer (a body)."""
        return self.says(asked.messages if isinstance(asked, Request) else asked["messages"])


def recorded(number: int, text: str, user: str = "", caller: str = "", **params: Any) -> Recorded:
    """A question that the large model answered."""
    request = Request.of(text, system=SYSTEM, **params)
    request = Request(request.messages, request.params, user=user)
    return Recorded(
        id=f"req_{number:032x}", time=1_700_000_000.0 + number, caller=caller, task="",
        asked="auto", endpoint="chat", model="large", streamed=False, status=200, error="",
        prompt_tokens=50, completion_tokens=20, cached_tokens=0, cost=0.001, baseline=0.001,
        latency=0.5, first_byte=None, decided="", request=request,
        completion=Completion(answer(text), "large", usage=Usage(50, 20), cost=0.001),
    )  # fmt: skip


def traffic(count: int, seed: int = 0, users: int = 0) -> Iterator[Recorded]:
    """So many recorded questions, by so many users."""
    rng = random.Random(seed)
    for number in range(count):
        text, _ = question(rng)
        yield recorded(number, text, f"user-{rng.randrange(users)}" if users else "")
