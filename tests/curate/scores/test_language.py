"""The step that identifies languages: py3langid's model for many texts at once, and what is added."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from pilotfish.curate.scores import cld2
from pilotfish.curate.scores.byte_bayes import load
from pilotfish.curate.scores.judging import judge
from pilotfish.curate.scores.language import SHARE_WEIGHT, VOTE_WEIGHT, Language
from pilotfish.curate.scores.web_languages import PERCENT
from pilotfish.curate.step import ROW, TEXT
from pilotfish.errors import ConfigError, UnknownName

for library in ("py3langid", "pycld2"):
    pytest.importorskip(library, reason=f'needs {library}: pip install "pilotfish[curate]"')

# Written for this test.
TEXTS = {
    "en": "The fishing boats came back to the harbour before the storm, and nobody was missing.",
    "de": "Die Fischerboote kamen vor dem Sturm in den Hafen zurück, und niemand wurde vermisst.",
    "fr": "Les bateaux de pêche sont rentrés au port avant la tempête, et personne ne manquait.",
    "es": "Los barcos de pesca volvieron al puerto antes de la tormenta y no faltaba nadie.",
    "it": "Le barche da pesca sono tornate in porto prima della tempesta e non mancava nessuno.",
    "nl": "De vissersboten kwamen voor de storm terug in de haven en niemand werd vermist.",
    "sv": "Fiskebåtarna kom tillbaka till hamnen före stormen och ingen saknades.",
    "pl": "Łodzie rybackie wróciły do portu przed burzą i nikogo nie brakowało.",
    "ru": "Рыбацкие лодки вернулись в гавань до шторма, и никто не пропал.",
    "el": "Οι ψαρόβαρκες γύρισαν στο λιμάνι πριν από την καταιγίδα και δεν έλειπε κανείς.",
    "ja": "漁船は嵐の前に港に戻り、行方不明者は一人もいなかった。",
    "ko": "어선들은 폭풍이 오기 전에 항구로 돌아왔고 아무도 실종되지 않았다.",
}
ODD = [
    "",
    " ",
    "a",
    "\x00\x01",
    "THE BOATS CAME BACK",
    "e\u0301te\u0301 a\u0300 la mer",
    "x" * 3000,
]


def batch(texts: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {ROW: pa.array(range(len(texts)), pa.uint64()), TEXT: pa.array(texts, pa.string())}
    )


def test_the_probabilities_are_those_of_py3langid() -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    reference = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    whole = list(TEXTS.values())
    texts = [*whole, *ODD, *(text[i : i + 25] for text in whole for i in range(0, 60, 7))]
    found, known = load().probabilities(texts)
    expected = np.array([reference._decide(text) for text in texts])
    assert np.abs(found - expected).max() < 1e-4
    assert known.tolist()[: len(whole)] == [True] * len(whole)
    assert not known[texts.index("")]
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-5


def test_a_candidate_list_is_that_of_py3langid() -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    reference = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    reference.set_languages(["sr", "de", "hr"])
    model = load().only(["sr", "de", "hr"])
    found, _ = model.probabilities(list(TEXTS.values()))
    assert list(model.classes) == reference.nb_classes  # Serbian twice: in two scripts
    expected = np.array([reference._decide(text) for text in TEXTS.values()])
    assert np.abs(found - expected).max() < 1e-4


def test_languages_are_added_and_others_dropped() -> None:
    step = Language(keep=("de", "en"), min_confidence=0.5)
    verdict, after = judge(step, batch([*TEXTS.values(), "", "12"]))
    assert verdict.columns["language"].to_pylist() == [*TEXTS, "und", "und"]
    assert after.column("language").to_pylist() == ["en", "de"]
    reasons = verdict.reasons.to_pylist()
    assert reasons[2] == "language.other"
    assert reasons[-1] == "language.unsure"
    confidence = verdict.columns["language_confidence"].to_pylist()
    assert min(confidence[:-2]) > 0.5
    assert confidence[-2:] == [0, 0]
    assert verdict.margin.to_pylist() == pytest.approx([abs(c - 0.5) for c in confidence])


def test_tagging_keeps_all() -> None:
    verdict, after = judge(Language(keep=("de",), tag=True), batch(list(TEXTS.values())))
    assert verdict.reasons is None
    assert after.num_rows == len(TEXTS)


def test_among_chooses_between_those_alone() -> None:
    verdict, _ = judge(Language(among=("fr", "it")), batch([TEXTS["es"], TEXTS["fr"]]))
    assert set(verdict.columns["language"].to_pylist()) <= {"fr", "it"}


def test_it_reads_the_beginning_only() -> None:
    texts = batch([TEXTS["en"] * 3 + TEXTS["ru"] * 40])
    first, _ = judge(Language(max_chars=200), texts)
    whole, _ = judge(Language(max_chars=100_000), texts)
    assert first.columns["language"].to_pylist() == ["en"]
    assert whole.columns["language"].to_pylist() == ["ru"]


def scores(step: Language, texts: list[str]) -> np.ndarray:
    return step.probabilities(load(), texts)[0]


def test_nothing_is_added_where_nothing_is_wanted() -> None:
    texts = [*TEXTS.values(), *ODD]
    plain = Language(expect="any", second_opinion=False)
    np.testing.assert_array_equal(scores(plain, texts), load().probabilities(texts)[0])


def test_what_is_expected_is_added_by_the_shares_of_the_web() -> None:
    """The odds of two languages change by the ratio of their shares, to the power of the weight."""
    texts = list(TEXTS.values())
    classes = load().classes
    plain, found = (
        np.log(np.maximum(scores(Language(expect=expect, second_opinion=False), texts), 1e-37))
        for expect in ("any", "web")
    )
    hr, bs = classes.index("hr"), classes.index("bs")
    change = (found[:, hr] - found[:, bs]) - (plain[:, hr] - plain[:, bs])
    seen = plain[:, bs] > -60
    assert seen.any()
    expected = SHARE_WEIGHT * math.log(PERCENT["hr"] / PERCENT["bs"])
    assert change[seen] == pytest.approx(expected, abs=1e-3)
    assert np.abs(np.exp(found).sum(axis=1) - 1).max() < 1e-5


def test_the_second_opinion_is_asked_where_it_can_decide_and_only_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answers are those that asking it of every text would give."""
    whole = list(TEXTS.values())
    texts = [text[i : i + n] for n in (15, 40) for text in whole for i in range(0, 45, 3)]
    alone = np.log(np.maximum(scores(Language(second_opinion=False), texts), 1e-30))
    asked: list[str] = []

    def vote(text: str) -> tuple[str, float]:
        asked.append(text)
        return cld2_vote(text)

    cld2_vote = cld2.vote
    monkeypatch.setattr(cld2, "vote", vote)
    found = scores(Language(), texts).argmax(axis=1)
    assert 0 < len(asked) < len(texts) / 2
    for row, text in zip(alone, texts, strict=True):
        code, share = cld2_vote(text)
        if code in load().classes:
            row[load().classes.index(code)] += VOTE_WEIGHT * share
    assert found.tolist() == alone.argmax(axis=1).tolist()
    assert found.tolist() != scores(Language(second_opinion=False), texts).argmax(axis=1).tolist()


def test_votes() -> None:
    assert cld2.vote(TEXTS["el"]) == ("el", 1.0)
    assert cld2.vote("") == ("", 0.0)
    assert cld2.vote("\x01\x02 control") == ("", 0.0)
    assert cld2.vote("הסירות חזרו לנמל לפני הסערה ואיש לא נעדר")[0] == "he"  # it says "iw"


def test_settings_are_checked() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'web'"):
        Language(expect="wbe")  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="klingon"):
        Language(keep=("klingon",))
    with pytest.raises(ConfigError, match="min_confidence"):
        Language(min_confidence=2)
    with pytest.raises(ConfigError, match="among"):
        Language(keep=("de",), among=("en",))
