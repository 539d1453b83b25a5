"""Grammars by llguidance against llama.cpp's own, on the same vocabulary, step by step."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import numpy as np
import pytest

from pilotfish.errors import RequestRefused
from pilotfish.models.guidance import Guide
from pilotfish.models.llama_runtime import Weights
from tests.models import tiny_gguf

ZEROS = np.zeros(len(tiny_gguf.vocabulary()), np.float32)
NEVER = {bytes([byte]) for byte in (0xC0, 0xC1, *range(0xF5, 0x100))}
ODD = {b"\xe0", b"\xed", b"\xf0", b"\xf4"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weights]:
    path = tmp_path_factory.mktemp("tiny") / "t.gguf"
    weights = Weights(tiny_gguf.write(path, tiny_gguf.random_weights(0)))
    yield weights
    weights.close()


@pytest.fixture(scope="module")
def guide(weights: Weights) -> Guide:
    tokens = [weights.token_bytes(token) for token in range(weights.vocab)]
    ends = [token for token in range(weights.vocab) if weights.ends(token)]
    assert set(ends) <= {0, 1, 2}
    return Guide(tokens, ends, weights.tokenize)


GRAMMARS = {
    "a word that ends as another": 'root ::= [a-z]+ "ab" # rest\n',
    "two ways to cut": 'root ::= "ab" | "a" "bc" | "abd"?',
    "counts": 'root ::= ("th" | [e-g]){2,3} "er"{2} "!"{0,1} x{1,}\nx ::= "." | ","',
    "classes": r'root ::= [^a-zA-Z\]] [\x41-\x43\u00e9\n] . "\U0001F600" [a-]',
    "nested": 'root ::= "(" root? ")" |\n  # two lines\n  word\nword ::= ( "a" |\n "ther" )* "z"',
    "nothing": 'root ::= "" | "x"',
    "arithmetic": (
        'root ::= term ("+" term)*\nterm ::= num ("*" num)*\nnum ::= [0-9]+ | "(" root ")"\n'
    ),
}


@pytest.mark.parametrize("name", GRAMMARS)
def test_the_same_tokens_may_come_next_as_in_llama_cpp(
    name: str, weights: Weights, guide: Guide
) -> None:
    """Random walks of up to 12 tokens; the sets are compared before each.

    llama.cpp also allows bytes that begin no character, or after which some bytes are none.
    """
    text, rng, ended = GRAMMARS[name], random.Random(name), 0
    for _ in range(12):
        theirs, ours = weights.grammar(text), guide.grammar(text)
        for _ in range(12):
            expected = {int(t) for t in np.flatnonzero(np.isfinite(theirs.mask(ZEROS)))}
            expected = {t for t in expected if weights.token_bytes(t) not in NEVER}
            got = {int(t) for t in np.flatnonzero(np.isfinite(ours.mask(ZEROS)))}
            assert got == expected
            plain = [token for token in got if weights.token_bytes(token)[:1] not in ODD]
            token = rng.choice(sorted(plain or got))
            if weights.ends(token):
                ended += 1
                break
            theirs.accept(token)
            ours.accept(token)
        theirs.close()
        ours.close()
    assert ended or name in ("arithmetic", "nested", "a word that ends as another")


def test_json_schemas_are_llama_cpps(weights: Weights, guide: Guide) -> None:
    schema = json.dumps(
        {
            "type": "object",
            "properties": {"a": {"enum": ["x", "y"]}, "n": {"type": "integer"}},
            "required": ["a"],
            "additionalProperties": False,
        }
    )
    rng = random.Random(0)
    for _ in range(10):
        theirs, ours = weights.json_grammar(schema), guide.json_grammar(schema)
        said = b""
        for _ in range(60):
            mask = ours.mask(ZEROS)
            expected = np.isfinite(theirs.mask(ZEROS))
            if expected[0]:  # it names one end of the vocabulary's two
                expected[tiny_gguf.END] = True
            np.testing.assert_array_equal(np.isfinite(mask), expected)
            token = rng.choice([int(t) for t in np.flatnonzero(np.isfinite(mask))])
            if weights.ends(token):
                assert json.loads(said)["a"] in ("x", "y")
                break
            said += weights.token_bytes(token)
            theirs.accept(token)
            ours.accept(token)
        theirs.close()
        ours.close()


def test_what_comes_next_keeps_its_logits(guide: Guide) -> None:
    logits = np.arange(len(ZEROS), dtype=np.float32)
    masked = guide.grammar('root ::= "a" | "th"').mask(logits)
    kept = np.flatnonzero(np.isfinite(masked))
    assert len(kept) == 3  # a, t, th
    np.testing.assert_array_equal(masked[kept], logits[kept])


@pytest.mark.parametrize(
    ("grammar", "match"),
    [
        ('root ::= "a', "line 1.*expected"),
        ('root ::= "a"\nother ::= missing', "line 2.*no rule 'missing'"),
        ('rot ::= "a"', "no rule 'root'"),
        ('root := "a"', "expected ::="),
        ('root ::= "a" )', "end of the line"),
        ('root ::= ("a"', r"expected \)"),
        ('root ::= "\\q"', "expected an escape"),
        ('root ::= "\\ud800"', "no character"),
        ('root ::= "a"{3,1}', "expected at least 3"),
        ('root ::= "a"{x}', "expected a repetition"),
        ("root ::= <think>", "tokens are not supported"),
        ('root ::= "a"\n(', "name of a rule"),
    ],
)
def test_a_grammar_that_cannot_be_read_is_refused_with_its_line(
    guide: Guide, weights: Weights, grammar: str, match: str
) -> None:
    with pytest.raises(RequestRefused, match=match):
        guide.grammar(grammar)
    if match not in ("no character", "expected at least 3"):  # it takes the first, and never ends
        with pytest.raises(RequestRefused, match="cannot read"):
            weights.grammar(grammar)


def test_a_schema_that_cannot_be_used_is_refused(guide: Guide) -> None:
    with pytest.raises(RequestRefused, match="Invalid type: objct"):
        guide.json_grammar('{"type": "objct"}')
    with pytest.raises(RequestRefused, match="failed"):
        guide.grammar('root ::= "a"').accept(3 + ord("b") - 33)
