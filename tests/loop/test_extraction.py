"""Extraction tasks through the loop: estimated, learned, certified, served over sockets, watched."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest

from pilotfish.config import Config
from pilotfish.distill.extraction import Objects, fit_extraction
from pilotfish.distill.objects import schema_of
from pilotfish.errors import InputError, RequestRefused
from pilotfish.infer.certify import Constraint, certify
from pilotfish.loop.artifact import OffloadedModel
from pilotfish.loop.learn import LearnSettings, Outcome, learn
from pilotfish.loop.learned import LearnedModel
from pilotfish.loop.lessons import Definition, lessons
from pilotfish.loop.tasks import find_tasks
from pilotfish.models.calls import stream, wait
from pilotfish.models.fake import FakeModel
from pilotfish.models.fake_server import FakeServer
from pilotfish.models.load import load_encoder
from pilotfish.models.objects import same_object
from pilotfish.records import Inputs, Request
from pilotfish.store.store import Store, open_store
from pilotfish.store.traffic import Recorded
from tests.loop import test_keeper
from tests.loop.closing import CONFIG, Keeping, gateway, wait_until
from tests.loop.documents import PROMPT, answer, mails
from tests.loop.test_keeper import World
from tests.loop.traffic import recorded

DEFINITION = Definition("mails", PROMPT.replace("{}", "{text}"), "", "large")
FORM = {"type": "json_schema", "json_schema": {"name": "mail", "schema": {"type": "object"}}}


def traffic(count: int, seed: int = 0, **changes: Any) -> list[Recorded]:
    pairs = mails(count, seed)
    rows = [
        recorded(i, PROMPT.format(text), answer(value | changes))
        for i, (text, value) in enumerate(pairs)
    ]
    return [row for row in rows if row.request is not None]


def run(store: Store, rows: list[Recorded], model: FakeModel, folder: Path) -> Outcome:
    settings = LearnSettings(folder=folder)
    return learn(DEFINITION, lessons(DEFINITION, rows), store, model, settings, config=Config())


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("extraction")
    with open_store(f"sqlite:///{folder}/s.db") as store:
        store.versions.keep_task("mails", {})
        return run(store, traffic(420), FakeModel("?", name="large"), folder)


def artifact_of(outcome: Outcome) -> str:
    assert outcome.version is not None
    return outcome.version.artifact


def test_recorded_objects_are_enough(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.asked) == ("certified", 0)
    model = OffloadedModel.load(artifact_of(outcome))
    fresh = mails(400, seed=9)
    answers, _, served = model.answer(Inputs([text for text, _ in fresh]))
    agreed = [same_object(a, answer(v)) for a, (_, v) in zip(answers, fresh, strict=True)]
    assert served.mean() >= 0.7
    assert np.mean(~served | np.array(agreed)) >= 0.95
    schema = json.loads((Path(artifact_of(outcome)) / "student.json").read_text())["schema"]
    for said in answers:
        jsonschema.validate(json.loads(said), schema)


def test_the_report_is_by_field(outcome: Outcome) -> None:
    report = (Path(artifact_of(outcome)) / "report.html").read_text()
    result = json.loads((Path(artifact_of(outcome)) / "result.json").read_text())
    assert "Per field" in report
    assert {row["label"] for row in result["per_class"]} == set(mails(1)[0][1])
    assert all(row["agreement"] >= 0.9 for row in result["per_class"])


@pytest.fixture
def served(outcome: Outcome) -> Iterator[tuple[LearnedModel, FakeModel]]:
    with open_store(f"sqlite:///{Path('s.db').resolve()}") as store:
        store.versions.keep_task(
            "mails", {"prompt": DEFINITION.prompt, "system": "", "kind": "extraction"}
        )
        store.versions.add("mails", "a", artifact_of(outcome), {}, {})
        store.versions.move("mails", "promoted", version=1, evidence={}, serving=1)
        large = FakeModel("asked", name="large")
        model = LearnedModel(large, store)
        ((text, _),) = mails(1, 77)
        wait_until(lambda: wait(model.complete(Request.of(PROMPT.format(text)))).model != "large")
        yield model, large


def test_it_is_served_whole_and_streamed(served: tuple[LearnedModel, FakeModel]) -> None:
    model, large = served
    large.requests.clear()
    ((text, value),) = mails(1, 5)
    request = Request.of(PROMPT.format(text), response_format={"type": "json_object"})
    small = wait(model.complete(request))
    assert (small.model, small.text, small.cost) == ("mails@1", answer(value), 0.0)

    async def chunks() -> list[str]:
        return [chunk.text async for chunk in stream(model, request)]

    assert "".join(wait(chunks())) == answer(value)
    assert large.requests == []


def test_who_asks_for_another_schema_gets_the_large_model(
    served: tuple[LearnedModel, FakeModel],
) -> None:
    model, _ = served
    ((text, _),) = mails(1, 5)
    given = wait(model.complete(Request.of(PROMPT.format(text), response_format=FORM)))
    assert given.model == "large"
    assert [d.reason for d in given.decisions] == ["score<threshold", "last"]


def test_local_only_does_not_force_an_object_of_another_schema(
    served: tuple[LearnedModel, FakeModel],
) -> None:
    model, large = served
    model._store.versions.keep_task("mails", marks={"local_only": True})
    time.sleep(0.6)  # pointers and marks are read again when they are half a second old
    large.requests.clear()
    ((text, _),) = mails(1, 5)
    assert wait(model.complete(Request.of(PROMPT.format(text)))).model == "mails@1"
    assert wait(model.complete(Request.of(PROMPT.format("Hello")))).model == "mails@1"
    with pytest.raises(RequestRefused, match="local-only"):
        wait(model.complete(Request.of(PROMPT.format(text), response_format=FORM)))
    assert large.requests == []


def test_a_schema_that_all_ask_for_is_learned_with(tmp_path: Path) -> None:
    schema = schema_of([value for _, value in mails(50)])
    form = {"type": "json_schema", "json_schema": {"name": "mail", "schema": schema}}
    rows = [
        dataclasses.replace(
            row, request=dataclasses.replace(row.request, params={"response_format": form})
        )
        for row in traffic(300)
        if row.request is not None
    ]
    with open_store("sqlite:///s.db") as store:
        store.versions.keep_task("mails", {})
        found = run(store, rows, FakeModel("?", name="large"), tmp_path)
    model = OffloadedModel.load(artifact_of(found)).small
    texts = [PROMPT.format(text) for text, _ in mails(30, 4)]
    asked = [Request.of(text, response_format=form) for text in texts]
    answers, scores = model.answer_requests(asked)  # type: ignore[attr-defined]
    assert scores.mean() > 0.8
    for said in answers:
        jsonschema.validate(json.loads(said), schema)
    others = [Request.of(text, response_format=FORM) for text in texts]
    assert (model.answer_requests(others)[1] < 0).all()  # type: ignore[attr-defined]


def test_what_is_missing_is_bought_once(tmp_path: Path) -> None:
    """Most rows were answered small, so that too few answers are recorded to learn from."""
    values = {PROMPT.format(text): value for text, value in mails(500)}
    rows = [
        row
        if i % 4 == 0 or row.completion is None
        else dataclasses.replace(
            row, model="mails@1", completion=dataclasses.replace(row.completion, model="mails@1")
        )
        for i, row in enumerate(traffic(500))
    ]
    model = FakeModel(lambda request: answer(values[request.prompt]), name="large")
    with open_store("sqlite:///s.db") as store:
        store.versions.keep_task("mails", {})
        first = run(store, rows, model, tmp_path)
        assert first.version is not None
        assert first.asked == len(model.requests) > 150
        assert run(store, rows, model, tmp_path).version == first.version
        assert len(model.requests) == first.asked


def test_the_estimate_says_what_cannot_be_learned() -> None:
    encoder = load_encoder("static")
    (found,) = find_tasks(traffic(300), encoder=encoder)
    assert (found.kind, found.note) == ("extraction", "")
    assert (found.servable or 0) > 0.9
    rng = random.Random(0)
    rows = [
        recorded(i, PROMPT.format(text), answer({**value, "ticket": rng.getrandbits(50)}))
        for i, (text, value) in enumerate(mails(200))
    ]
    (invented,) = find_tasks(rows, encoder=encoder)
    assert invented.servable is None
    assert "'ticket' cannot be learned" in invented.note
    with open_store("sqlite:///s.db") as store:
        store.versions.keep_task("mails", {})
        with pytest.raises(InputError, match="'ticket'"):
            run(store, rows * 2, FakeModel("?"), Path("learned"))


def test_certificates_of_this_student_hold() -> None:
    """600 calibration samples of a task on which the student is often wrong; delta of them may fail."""
    rng = random.Random(3)
    cities = sorted({value["city"] for _, value in mails(50)})

    def noisy(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Mails with a phone number: the large model picks some city; others are clear."""
        return [
            (t, {**v, "city": rng.choice(cities)} if v["phone"] and rng.random() < 0.3 else v)
            for t, v in pairs
        ]

    lesson, world = noisy(mails(200)), noisy(mails(2500, seed=6))
    fitted = fit_extraction(
        Inputs([t for t, _ in lesson]), Objects.of([answer(v) for _, v in lesson])
    )
    answers, scores = fitted.student.predict([t for t, _ in world])
    agreed = np.array([same_object(a, answer(v)) for a, (_, v) in zip(answers, world, strict=True)])
    target, delta, draws = 0.9, 0.1, 600
    assert agreed.mean() < target  # not everything may be served
    sample = np.random.default_rng(0)
    broken, shares = 0, []
    for _ in range(draws):
        rows = sample.integers(0, len(world), 400)
        made = certify(
            scores[rows], agreed[rows], constraints=[Constraint("agree", target)], delta=delta,
            curve=0,
        )  # fmt: skip
        if made.threshold is None:
            shares.append(0.0)
            continue
        small = scores >= made.threshold
        shares.append(float(small.mean()))
        broken += bool((small & ~agreed).mean() > 1 - target)
    assert broken <= draws * delta + 3 * (draws * delta * (1 - delta)) ** 0.5
    assert np.mean(shares) > 0.3  # and the promise is not kept by serving nothing


def test_a_drift_of_one_field_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shadow, canary, service; then cities are no longer in capitals: an alarm, and a new version."""
    values: dict[str, dict[str, Any]] = {}

    class Mails(World):
        def _says(self, request: Request) -> str:
            value = values[request.prompt]
            return answer({**value, "city": value["city"].title()} if self.drifted else value)

    def some(count: int, _: object, seed: int) -> list[tuple[str, str]]:
        pairs = mails(count, seed)
        values.update({PROMPT.format(text): value for text, value in pairs})
        return [(PROMPT.format(text), "") for text, _ in pairs]

    settings = dataclasses.replace(test_keeper.SETTINGS, fewest=400)
    monkeypatch.setattr(test_keeper, "mixed", some)
    monkeypatch.setattr(test_keeper, "SETTINGS", settings)
    world = Mails(tmp_path)
    try:
        for seed in range(7):
            world.drifted = seed >= 4
            world.traffic(200, seed)
            world.round()
        (task,) = world.store.versions.tasks()
        kinds = [event.kind for event in world.store.versions.events(task)]
        days = world.store.ledger.days(task)
    finally:
        world.store.close()
    assert kinds[:5] == ["shadow", "canary", "promoted", "alarm", "shadow"]
    assert sum(day.small for day in days) > 200


def test_over_sockets_with_a_process_that_learns(tmp_path: Path) -> None:
    values = {PROMPT.format(text): value for text, value in mails(3500, seed=21)}
    prompts = iter(list(values))

    def large(body: dict[str, Any]) -> str:
        return answer(values[str(body["messages"][-1]["content"])])

    with FakeServer(large, keep=False) as upstream:
        store_file = tmp_path / "loop.db"
        text = CONFIG.format(store=store_file, url=upstream.base_url)
        (tmp_path / "pilotfish.toml").write_text(text)
        with (
            open_store(f"sqlite:///{store_file}") as store,
            gateway(tmp_path) as url,
            httpx.Client(timeout=60) as http,
        ):

            def one(prompt: str) -> tuple[bool, bool]:
                body = {"model": "auto", "messages": [{"role": "user", "content": prompt}]}
                reply = http.post(f"{url}/chat/completions", json=body)
                said = reply.raise_for_status().json()
                content = said["choices"][0]["message"]["content"]
                return "@" in said["model"], same_object(content, answer(values[prompt]))

            def send(count: int) -> list[tuple[bool, bool]]:
                with ThreadPoolExecutor(4) as pool:
                    return list(pool.map(one, [next(prompts) for _ in range(count)]))

            keeper = Keeping(tmp_path, ("--trial", "40", "--canary", "0.5", "--fewest", "250"))
            try:
                everything = send(300)
                while not serving_of(store):
                    assert len(everything) < 3000, "the loop did not get on"
                    everything += send(10)
                    time.sleep(0.5)
                wait_until(lambda: send(1)[0][0])
                last = send(150)
            finally:
                keeper.stop()
    assert np.mean([small for small, _ in last]) >= 0.7
    assert np.mean([agreed for _, agreed in last]) >= 0.95
    assert np.mean([agreed for _, agreed in everything]) >= 0.95


def serving_of(store: Store) -> list[int | None]:
    """The versions in service."""
    return [pointer.serving for pointer in store.versions.pointers().values() if pointer.serving]
