"""Made-up traffic of known tasks, with a rule that plays the large model."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

from pilotfish.records import Completion, Request, Usage
from pilotfish.store.traffic import Recorded

TEAMS = {
    "billing": "invoice refund charge payment card receipt price subscription",
    "technical": "crash error login password screen bug update server",
    "shipping": "parcel courier delivery track address package late box",
}
FILLER = (
    "please hello since yesterday my the again still I need about help with thanks morning after "
    "today could you look into it when order number they said"
)
TEAM_PROMPT = (
    "Which team should handle this ticket? Answer billing, technical or shipping.\n\nTicket: {}"
)
URGENCY_PROMPT = "Rate how urgent this message is from 1 to 5.\n###\n{}\n###\nOnly the number."
ORDER_PROMPT = "Extract the order as JSON with the keys number and city from this mail: {}"
STORY_PROMPT = "Write one friendly sentence in answer to this customer: {}"


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split(" ")


def ticket(rng: random.Random, team: str, marks: int = 2) -> str:
    """A text with so many of the team's words."""
    chosen = rng.sample(words(TEAMS[team]), marks) + rng.sample(words(FILLER), rng.randint(5, 12))
    rng.shuffle(chosen)
    return " ".join(chosen)


def team_of(text: str) -> str:
    """The scripted answer: the team whose words occur most."""
    found = set(words(text))
    return max(TEAMS, key=lambda team: len(found & set(words(TEAMS[team]))))


def urgency_of(text: str) -> str:
    """The scripted rating."""
    found = set(words(text))
    return str(1 + sum(word in found for word in ("crash", "late", "error", "refund")))


def order_of(text: str) -> str:
    """The scripted extraction."""
    return json.dumps({"number": len(text), "city": text.split(" ", 1)[0]})


def story_of(text: str) -> str:
    """The scripted free text."""
    return f"Thank you for telling us about {text[:30]}, we will look into it."


SCRIPT: dict[str, Callable[[str], str]] = {
    TEAM_PROMPT: team_of,
    URGENCY_PROMPT: urgency_of,
    ORDER_PROMPT: order_of,
    STORY_PROMPT: story_of,
}


def large_answer(prompt: str) -> str:
    """What the scripted large model says to a prompt of any of the tasks."""
    for template, answer in SCRIPT.items():
        start, end = template.split("{}")
        if prompt.startswith(start) and prompt.endswith(end):
            return answer(prompt[len(start) : len(prompt) - len(end)])
    return "I am not sure what you mean."


def recorded(
    number: int,
    prompt: str,
    answer: str,
    *,
    cost: float = 0.001,
    system: str = "",
    time: float = 0.0,
) -> Recorded:
    """A request that the large model answered."""
    usage = Usage(50, 5)
    return Recorded(
        id=f"req_{number:032x}",
        time=time or 1_700_000_000.0 + number,
        caller="",
        task="",
        asked="auto",
        endpoint="chat",
        model="large",
        streamed=False,
        status=200,
        error="",
        prompt_tokens=50,
        completion_tokens=5,
        cached_tokens=0,
        cost=cost,
        baseline=cost,
        latency=0.5,
        first_byte=None,
        decided="",
        request=Request.of(prompt, system=system),
        completion=Completion(answer, "large", usage=usage, cost=cost),
    )


def mixed(
    count: int, shares: Sequence[float] = (0.4, 0.2, 0.2, 0.2), seed: int = 0
) -> list[tuple[str, str]]:
    """Prompts of the four tasks, each with the large model's answer."""
    rng = random.Random(seed)
    pairs = []
    for _ in range(count):
        (template,) = rng.choices(list(SCRIPT), weights=shares)
        text = ticket(rng, rng.choice(list(TEAMS)))
        pairs.append((template.format(text), SCRIPT[template](text)))
    return pairs
