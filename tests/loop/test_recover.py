"""Templates are recovered exactly from what was made of them."""

from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotfish.loop.recover import group, literal_parts, recover, split
from pilotfish.loop.template import Template
from tests.loop.documents import PROMPT, mails

WORDS = [
    "river",
    "stone",
    "market",
    "yellow",
    "quickly",
    "under",
    "bridge",
    "music",
    "the",
    "a",
    "of",
    "and",
    "to",
    "letter",
    "window",
    "seven",
    "carry",
    "promise",
    "green",
    "doctor",
    "engine",
    "wrote",
    "summer",
    "paper",
    "gold",
    "nothing",
    "around",
    "tired",
    "happy",
    "invoice",
    "refund",
]

TEMPLATES = [
    "Which team should handle this ticket? Answer billing, technical or account.\n\nTicket: {text}",
    "{text}\n\nIs the review above positive or negative? Answer with one word.",
    "Translate from {source} into {target}, keeping the tone.\n\nText: {body}\n\nTranslation:",
    'Extract the fields as JSON {{"name": ..., "city": ...}} from: """{text}"""',
    "You are careful. Rate the answer from 1 to 5.\nQuestion: {q}\nAnswer: {a}\nRating:",
    "Rate how urgent this message is from 1 to 5.\n###\n{text}\n###\nOnly the number.",
]


def anonymous(prompt: str) -> str:
    """A template with its places' names taken off."""
    return re.sub(r"(?<!\{)\{[^{}]+\}(?!\})", "{}", prompt)


def text(rng: random.Random, longest: int = 30) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, longest)))


def made_of(prompt: str, count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    template = Template(prompt)
    return [template.render({name: text(rng) for name in template.fields}) for _ in range(count)]


@pytest.mark.parametrize("prompt", TEMPLATES)
@pytest.mark.parametrize("count", [30, 1000])
def test_known_templates_are_recovered_exactly(prompt: str, count: int) -> None:
    found = recover(made_of(prompt, count, seed=count))
    assert found is not None
    assert anonymous(found.prompt) == anonymous(prompt)


_LITERAL = st.lists(st.sampled_from(["Answer", "with", "Say", "Topic", "Note", "Check:", "List?",
"Give", "(short)", "JSON"]),
                    min_size=3, max_size=8).map(" ".join)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(_LITERAL, min_size=2, max_size=4, unique=True), st.integers(0, 1000))
def test_any_template_of_long_enough_literals_is_recovered(parts: list[str], seed: int) -> None:
    """Values are lower-case words, literals are not among them, so there is one right answer."""
    prompt = "".join(f"{part} {{f{i}}} " for i, part in enumerate(parts[:-1])) + parts[-1]
    found = recover(made_of(prompt, 120, seed))
    assert found is not None
    assert anonymous(found.prompt) == anonymous(prompt)


def test_mixed_traffic_falls_apart_into_its_templates() -> None:
    rng = random.Random(0)
    prompts = [(p, k) for k, t in enumerate(TEMPLATES) for p in made_of(t, 150, seed=k)]
    prompts += [(text(rng), -1) for _ in range(150)]  # of no template
    rng.shuffle(prompts)
    groups = group([p for p, _ in prompts], fewest=20)
    assert len(groups) == len(TEMPLATES)
    seen = set()
    for members in groups:
        kinds = {prompts[i][1] for i in members}
        assert len(kinds) == 1
        assert len(members) >= 140
        found = recover([prompts[i][0] for i in members])
        assert found is not None
        (kind,) = kinds
        assert anonymous(found.prompt) == anonymous(TEMPLATES[kind])
        seen.add(kind)
    assert seen == set(range(len(TEMPLATES)))


def test_templates_with_a_shared_beginning_stay_apart() -> None:
    head = "You are a helpful assistant of a fish shop. Be brief and polite.\n\n"
    one, two = (
        head + "Topic of this mail: {text}",
        head + "Is this mail angry? {text}\nAnswer yes or no.",
    )
    prompts = made_of(one, 100, 1) + made_of(two, 60, 2)
    assert group(prompts, fewest=20) == [list(range(100)), list(range(100, 160))]


def test_texts_without_a_template_have_none() -> None:
    rng = random.Random(3)
    assert recover([text(rng) for _ in range(200)]) is None
    assert recover(["the same prompt every time"] * 50) is None
    assert group([text(rng) for _ in range(300)], fewest=20) == []


def test_every_value_comes_back() -> None:
    prompts = made_of(TEMPLATES[2], 200, seed=9)
    found = recover(prompts)
    assert found is not None
    for prompt in prompts:
        values = found.match(prompt)
        assert values is not None
        assert found.render(values) == prompt


def test_splitting_answers_what_does_not_fit() -> None:
    assert split("a1b2c", ["a", "b", "c"]) == ["1", "2"]
    assert split("x1b2c", ["a", "b", "c"]) is None
    assert split("a1b2", ["a", "b", "c"]) is None
    assert split("ab", ["ab", "b"]) is None
    assert literal_parts(Template("{x}")) == ["", ""]


def test_values_made_of_common_phrases_do_not_hide_the_template() -> None:
    """Each mail has a set of common phrases of its own; all begin in the same way."""
    prompts = [PROMPT.format(text) for text, _ in mails(400)]
    (members,) = group(prompts, fewest=50)
    assert len(members) == 400
    found = recover([prompts[i] for i in members])
    assert found == Template(PROMPT.replace("{}", "{text}"))


def test_time_is_linear_in_the_prompts() -> None:
    few, many = made_of(TEMPLATES[0], 1500, 4), made_of(TEMPLATES[0], 6000, 4)

    def seconds(prompts: list[str]) -> float:
        began = time.process_time()
        group(prompts, fewest=20)
        return time.process_time() - began

    assert min(seconds(many) for _ in range(3)) < 8 * min(seconds(few) for _ in range(3))
