"""The main job, whole: every kind of task, degenerate inputs, a kill in the middle, and the artifact."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

import pilotfish as pf
from pilotfish.errors import ArtifactError, InputError, PilotfishError
from pilotfish.models.fake_server import FakeServer

TOPICS = {
    "billing": ["invoice", "refund", "charged", "card", "price", "receipt"],
    "technical": ["crash", "error", "slow", "update", "install", "screen"],
    "account": ["password", "login", "email", "locked", "profile", "delete"],
}
FILLER = ["please", "help", "me", "with", "my", "the", "again", "since", "cannot", "find", "why"]
PROMPT = "Which topic? {text}"


def message(draw: random.Random, words: list[str], about: int = 2) -> str:
    text = draw.choices(FILLER, k=5) + draw.choices(words, k=about)
    draw.shuffle(text)
    return " ".join(text)


def topic_rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    rows = []
    for _ in range(n):
        topic = draw.choice(list(TOPICS))
        rows.append({"text": message(draw, TOPICS[topic]), "topic": topic})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def topic_rule(request: pf.Request) -> str:
    return topic_of(request.prompt)


def topic_of(prompt: str) -> str:
    count = {t: sum(prompt.count(word) for word in words) for t, words in TOPICS.items()}
    return max(count, key=lambda topic: count[topic])


def run(rows: list[dict[str, Any]], large: Any = topic_rule, **settings: Any) -> pf.OffloadResult:
    settings = {"labels": list(TOPICS), "out": "made", **settings}
    model = pf.FakeModel(large) if callable(large) else large
    prompt = settings.pop("prompt", PROMPT)
    return pf.offload(prompt, write(Path("in.jsonl"), rows), large=model, **settings)


def test_label_task_keeps_its_promise_on_new_inputs() -> None:
    result = run(topic_rows(3000), gold="topic")
    assert result.certificate["threshold"] is not None
    assert result.certificate["coverage"] > 0.6
    assert result.saving.file_calls > 0.3
    assert result.gold is not None
    assert result.gold.cascade > 0.9
    new = topic_rows(3000, seed=1)
    done = pf.apply("made", write(Path("new.jsonl"), new), out="answers.jsonl", use_large=False)
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    wrong = sum(
        a["by"] == "small" and a["answer"] != topic_of(row["text"])
        for a, row in zip(answers, new, strict=True)
    )
    assert [a["text"] for a in answers] == [row["text"] for row in new]
    assert wrong / len(new) <= 0.05
    assert done.small + done.unanswered == 3000


def test_accounts_add_up() -> None:
    rows = topic_rows(1500)
    large = pf.FakeModel(topic_rule, price=pf.config.Price(1.0, 2.0))
    result = run(rows + rows[:300], large)
    items = {item.item: item for item in result.waterfall}
    calls = {name: item.calls for name, item in items.items()}
    assert calls["always-large"] == 1800 == result.rows.read
    paid = calls["teacher labels"] + calls["calibration"] + calls["comparison"] + calls["escalated"]
    assert calls["net"] == paid
    assert (
        calls["always-large"] - calls["answered small"] - calls["repeated inputs"] == calls["net"]
    )
    assert len(large.requests) == result.asked.calls
    assert result.saving.file_calls == pytest.approx(1 - calls["net"] / 1800)


def test_the_prompt_can_name_the_labels() -> None:
    large = pf.FakeModel(lambda request: topic_of(request.prompt.split("Text: ")[1]))
    run(topic_rows(400), large, prompt="One of {labels}? Text: {text}", budget="200")
    assert large.requests[0].prompt.startswith("One of billing, technical, account? Text: ")


def test_labels_are_discovered() -> None:
    result = run(topic_rows(1200), lambda r: f" {topic_rule(r).title()}. ", labels=())
    assert sorted(result.task.labels) == ["Account", "Billing", "Technical"]
    assert result.certificate["threshold"] is not None


def test_free_text_is_refused_before_much_is_paid() -> None:
    large = pf.FakeModel(lambda request: f"I think that {request.prompt}")
    with pytest.raises(InputError, match="free text"):
        run(topic_rows(1200), large, labels=())
    assert len(large.requests) <= 60


def test_several_labels_per_input() -> None:
    draw = random.Random(0)
    rows = []
    for _ in range(2500):
        chosen = [topic for topic in TOPICS if draw.random() < 0.5]
        words = [draw.choice(TOPICS[topic]) for topic in chosen for _ in range(2)]
        rows.append({"text": " ".join(draw.choices(FILLER, k=4) + words)})

    def which(request: pf.Request) -> str:
        found = [t for t, words in TOPICS.items() if any(word in request.prompt for word in words)]
        return json.dumps(found)

    result = run(rows, which, kind="labels")
    assert result.certificate["coverage"] > 0.5
    new = write(Path("new.jsonl"), rows[:50])
    pf.apply("made", new, out="answers.jsonl", use_large=False)
    answers = [
        json.loads(line)["answer"] for line in Path("answers.jsonl").read_text().splitlines()
    ]
    assert all(isinstance(json.loads(answer), list) for answer in answers if answer is not None)


def test_ratings_with_a_tolerance() -> None:
    words = ["awful", "bad", "fine", "good", "great"]
    draw = random.Random(0)
    rows = []
    for _ in range(2500):
        stars = draw.randrange(5)
        rows.append({"text": f"{message(draw, [words[stars]])} {draw.choice(words)}"})

    def stars(request: pf.Request) -> str:
        values = [i + 1 for i, word in enumerate(words) for _ in range(request.prompt.count(word))]
        return str(round(sum(values) / len(values)))

    result = run(
        rows, stars, kind="rating", labels=("1", "2", "3", "4", "5"), tolerance=1, agree=0.9
    )
    assert result.certificate["coverage"] > 0.5


def test_tabular_fields_let_trees_race() -> None:
    draw = random.Random(0)
    rows = [
        {"age": draw.randrange(18, 90), "plan": draw.choice(["free", "pro"])} for _ in range(2000)
    ]

    def offer(request: pf.Request) -> str:
        age, plan = request.prompt.removeprefix("Offer? ").split()
        return "yes" if int(age) > 40 and plan == "pro" else "no"

    result = run(rows, offer, prompt="Offer? {age} {plan}", labels=("yes", "no"))
    entries = {entry.student: entry for entry in result.race}
    assert not entries["trees"].note
    assert entries["trees"].agreement is not None
    assert entries["trees"].agreement > 0.97
    assert result.certificate["coverage"] > 0.9


def test_one_answer_only_is_said_aloud() -> None:
    result = run(topic_rows(800), lambda request: "billing")
    assert result.certificate["coverage"] == 1.0
    assert any("nothing to tell apart" in warning for warning in result.warnings)


def test_random_answers_certify_nothing_and_say_so() -> None:
    draw = random.Random(0)
    result = run(topic_rows(800), lambda request: draw.choice(list(TOPICS)), on="served")
    assert result.certificate["threshold"] is None
    assert result.saving.future_calls == 0
    calls = {item.item: item.calls for item in result.waterfall}
    assert calls["answered small"] == 0
    assert calls["net"] == result.rows.unique
    done = pf.apply("made", "in.jsonl", out="answers.jsonl", use_large=False)
    assert done.small == 0


def test_of_all_answers_no_more_than_the_allowed_share_is_random() -> None:
    # Guessing among three is wrong two times in three: 5% wrong allow 7.5% to be guessed, no more.
    draw = random.Random(0)
    result = run(topic_rows(800), lambda request: draw.choice(list(TOPICS)))
    assert result.certificate["coverage"] <= 0.075


def test_too_few_rows_are_refused_before_anything_is_paid() -> None:
    large = pf.FakeModel(topic_rule)
    with pytest.raises(InputError, match="too few to certify") as refused:
        run(topic_rows(20), large)
    assert "--agree" in refused.value.remedy
    assert not large.requests


def test_all_duplicates() -> None:
    result = run([{"text": "refund my invoice"}] * 300)
    assert result.rows.unique == 1
    assert result.asked.calls == 1


def test_odd_texts_are_served_and_bad_rows_listed() -> None:
    rows = topic_rows(600)
    rows += [
        {"text": "refund 请退款 возврат استرداد 💳"},
        {"text": "crash " * 50_000},
        {"text": "   "},
    ]
    rows += [
        {"other": 1},
        {"text": None},
        {"text": "nul \x00 refund"},
        {"text": "half \ud83d refund"},
    ]
    result = run(rows)
    rejects = [json.loads(line) for line in Path("made.rejects.jsonl").read_text().splitlines()]
    assert [(reject["line"], reject["reason"]) for reject in rejects] == [
        (603, "empty-text"),
        (604, "missing-field:text"),
        (605, "missing-field:text"),
        (606, "not-text"),
        (607, "bad-encoding"),
    ]
    assert result.rows.unique == 602


def test_a_label_the_large_model_never_gives_is_reported() -> None:
    result = run(topic_rows(800), labels=(*TOPICS, "legal"))
    assert any("never answered: legal" in warning for warning in result.warnings)


def test_budget_is_kept_and_the_same_budget_gives_the_same_choice() -> None:
    large = pf.FakeModel(topic_rule)
    first = run(topic_rows(2000), large, budget="300")
    assert len(large.requests) <= 300
    assert first.certificate["curve"]
    again = run(topic_rows(2000), pf.FakeModel(lambda request: 1 / 0), budget="300")
    assert again.certificate == first.certificate


def test_precision_and_recall_of_a_class() -> None:
    result = run(topic_rows(3000), precision={"billing": 0.9}, recall={"billing": 0.9})
    kinds = [c["kind"] for c in result.certificate["constraints"]]
    assert kinds == ["agree", "precision", "recall"]
    assert result.certificate["threshold"] is not None


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"agree": 1.5}, "agree"),
        ({"delta": 0}, "delta"),
        ({"on": "some"}, "all"),
        ({"gold": "nope"}, "no column"),
        ({"students": ["tree"]}, "trees"),
        ({"prompt": "no field"}, "field"),
        ({"prompt": "{txt}"}, "text"),
        ({"labels": ["one"]}, "single label"),
    ],
)
def test_wrong_settings_cost_nothing(settings: dict[str, Any], match: str) -> None:
    large = pf.FakeModel(topic_rule)
    with pytest.raises(PilotfishError, match=match):
        run(topic_rows(600), large, **settings)
    assert not large.requests


SCRIPT = """
import sys
import pilotfish as pf
result = pf.offload(
    "Which topic? {text}", "in.jsonl", large="teacher", labels=["billing", "technical", "account"],
    out="made",
)
print(result.certificate["threshold"], result.asked.calls)
"""


def test_killed_anywhere_it_goes_on_and_pays_nothing_twice() -> None:
    write(Path("in.jsonl"), topic_rows(1500))

    def answer(body: dict[str, Any]) -> str:
        time.sleep(0.002)
        return topic_of(body["messages"][-1]["content"])

    with FakeServer(answer) as server:
        Path("pilotfish.toml").write_text(
            f'[models.teacher]\nbackend = "openai"\nbase_url = "{server.base_url}"\n'
        )
        kills = 0
        for asked in (40, 250):  # among the first answers, and among later ones
            with subprocess.Popen([sys.executable, "-c", SCRIPT], env={**os.environ}) as process:
                while server.count < asked:
                    assert process.poll() is None, "it ended before it was killed"
                    time.sleep(0.002)
                process.send_signal(signal.SIGKILL)
                kills += 1
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
        )
        calls = int(done.stdout.split()[1])
        prompts = [seen.body["messages"][-1]["content"] for seen in server.seen]
        assert len(set(prompts)) == calls
        # What was under way when a process died may be asked again: 16 at most, each time.
        assert len(prompts) <= calls + 16 * kills
        untouched = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
        )
        assert untouched.stdout == done.stdout
        assert len(server.seen) == len(prompts)


def test_the_artifact_is_a_model() -> None:
    run(topic_rows(2000))
    model = pf.load_model("artifact:made", large="fake:billing")
    sure = pf.ask(model, "Which topic? refund my invoice please, charged again")
    assert sure.text == "billing"
    assert sure.model.startswith("made/")
    other = pf.ask(model, "Tell me a joke")
    assert other.model == "fake"
    assert [d.reason for d in other.decisions] == ["score<threshold", "last"]
    assert all(d.score is None or d.score < 0 for d in other.decisions)


def test_a_changed_artifact_is_not_loaded() -> None:
    run(topic_rows(800))
    weights = Path("made/student.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ArtifactError):
        pf.OffloadedModel.load("made")


def test_run_escalates_and_repeats_for_free() -> None:
    # One answer in eight cannot be learned, so some inputs must go to the large model.
    noisy = lambda r: topic_rule(r) if zlib.crc32(r.prompt.encode()) % 8 else "billing"  # noqa: E731
    run(topic_rows(2000), noisy)
    new = write(Path("new.jsonl"), topic_rows(400, seed=5))
    first = pf.apply("made", new, out="a.jsonl", large="fake:billing")
    again = pf.apply("made", new, out="b.jsonl", large="fake:billing")
    assert first.small + first.large == 400
    assert first.large > 0
    assert again.cached == again.calls == first.calls
    assert Path("a.jsonl").read_text() == Path("b.jsonl").read_text()
