"""The promises that all things of a kind keep, run over the table of tests/contract_rows.py.

A registered name without a row fails; one whose optional library is missing is skipped, and the reason
says what to install.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from pilotfish.config import Config
from pilotfish.distill.student import Student, fit_student, restore_student, student_files
from pilotfish.errors import ConfigError, MissingExtra, ModelError
from pilotfish.models import BACKENDS
from pilotfish.models.calls import complete_many, stream, wait
from pilotfish.models.load import load_encoder
from pilotfish.models.protocols import Classifier, Encoder, Model
from pilotfish.records import Completion, Inputs, Request, from_dict, to_dict
from tests import contract_rows
from tests.contract_models import PROMPTS, TOPICS, close, declared
from tests.contract_rows import (
    CLASSIFIERS,
    COMPOSITES,
    CONFIDENCES,
    ENCODERS,
    MODELS,
    STUDENTS,
    TABLE,
    StudentRow,
)
from tests.registries import REGISTRIES


def test_every_registered_thing_has_a_row() -> None:
    assert set(TABLE) == set(REGISTRIES), "a registry without a table, or the other way round"
    for name, registry in REGISTRIES.items():
        rows = {row for row in TABLE[name] if not row.startswith("(")}
        missing, gone = set(registry) - rows, rows - set(registry)
        assert not missing, f"add a row for {sorted(missing)} of {name} to {contract_rows.__file__}"
        assert not gone, f"no longer registered in {name}: {sorted(gone)}"


@pytest.mark.parametrize(
    ("registry", "name"), [(where, name) for where, names in REGISTRIES.items() for name in names]
)
def test_every_registered_name_loads(registry: str, name: str) -> None:
    with skip_without_library():
        assert REGISTRIES[registry].load(name) is not None


@contextmanager
def skip_without_library() -> Iterator[None]:
    try:
        yield
    except MissingExtra as missing:
        pytest.skip(str(missing).replace("\n", " "))


# What every model promises


ANSWERING = MODELS | COMPOSITES
MARKED = [pytest.param(name, marks=row.marks) for name, row in ANSWERING.items()]


@pytest.fixture(params=MARKED)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Model]:
    with contextlib.ExitStack() as stack:
        with skip_without_library():
            built = stack.enter_context(ANSWERING[request.param].works(tmp_path))
        yield built


@pytest.fixture(params=MARKED)
def failing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Model, Request]]:
    with contextlib.ExitStack() as stack:
        with skip_without_library():
            built = stack.enter_context(ANSWERING[request.param].fails(tmp_path))
        yield built, ANSWERING[request.param].bad


def ask_for(prompt: str) -> Request:
    return Request.of(prompt, temperature=0, max_tokens=16)


REQUESTS = [ask_for(prompt) for prompt in PROMPTS]


def test_a_model_answers_with_a_whole_completion(model: Model) -> None:
    assert isinstance(model, Model)
    assert model.name
    for request in REQUESTS:
        before = to_dict(request)
        answer = wait(model.complete(request))
        assert isinstance(answer, Completion)
        assert answer.text
        assert answer.model
        assert answer.latency >= 0
        assert answer.cost is None or answer.cost >= 0
        usage = answer.usage
        assert min(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) >= 0
        assert from_dict(Completion, to_dict(answer)) == answer
        assert to_dict(request) == before
        assert request.key(model.name) == ask_for(request.prompt).key(model.name)


def test_a_model_answers_many_at_once_and_each_its_own(model: Model) -> None:
    alone = [wait(model.complete(request)).text for request in REQUESTS]
    requests = REQUESTS * 5

    async def together() -> dict[int, str]:
        answers = complete_many(model, requests, concurrency=6)
        return {i: answer.text async for i, answer in answers if isinstance(answer, Completion)}

    assert wait(together()) == dict(enumerate(alone * 5))


def test_a_model_serves_several_event_loops(model: Model) -> None:
    """A notebook's loop, a web server's and the background one may share a model."""
    loops = [asyncio.new_event_loop() for _ in range(3)]
    threads = [threading.Thread(target=loop.run_forever) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        answers = [
            asyncio.run_coroutine_threadsafe(model.complete(REQUESTS[0]), loop)
            for loop in loops * 3
        ]
        here = wait(model.complete(REQUESTS[0])).text
        assert {answer.result(timeout=30).text for answer in answers} == {here}
        close(model)
    finally:
        for loop, thread in zip(loops, threads, strict=True):
            # one turn later, in which closed transports let go of their sockets
            loop.call_soon_threadsafe(loop.call_soon, loop.stop)
            thread.join()
            loop.close()


def test_a_stream_joins_to_the_completion_that_ends_it(model: Model) -> None:
    async def pieces(request: Request) -> list[Any]:
        return [chunk async for chunk in stream(model, request)]

    for request in REQUESTS:
        chunks = wait(pieces(request))
        assert [chunk.completion is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [
            True
        ]
        whole = chunks[-1].completion
        assert "".join(chunk.text for chunk in chunks) == whole.text
        assert whole.text == wait(model.complete(request)).text


def test_a_stream_may_be_left(model: Model) -> None:
    async def first() -> None:
        async with contextlib.aclosing(stream(model, REQUESTS[1])) as chunks:  # type: ignore[type-var]
            async for _ in chunks:
                break

    wait(first())
    assert wait(model.complete(REQUESTS[1])).text


def test_a_model_fails_with_an_error_of_the_tree(failing: tuple[Model, Request]) -> None:
    model, bad = failing

    async def streamed() -> None:
        async for _ in stream(model, bad):
            pass

    for attempt in (model.complete(bad), streamed()):
        with pytest.raises(ModelError) as caught:
            wait(attempt)
        assert str(caught.value)

    async def many() -> list[Any]:
        return [answer async for _, answer in complete_many(model, [bad] * 3)]

    assert all(isinstance(answer, ModelError) for answer in wait(many()))


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_refuses_a_setting_it_does_not_have(name: str, tmp_path: Path) -> None:
    with skip_without_library():
        backend, rest = BACKENDS.load(name), MODELS[name].rest(tmp_path)
        with pytest.raises(ConfigError, match="no_such_setting"):
            backend.from_spec(rest, {"no_such_setting": 1}, Config())


@pytest.mark.parametrize("name", COMPOSITES)
def test_a_composite_refuses_a_setting_it_does_not_have(name: str) -> None:
    with pytest.raises(ConfigError, match="no_such_setting"):
        declared(name, fails=False, no_such_setting=1)


@pytest.mark.parametrize("name", COMPOSITES)
def test_a_composite_says_who_answered_and_why(name: str, tmp_path: Path) -> None:
    with COMPOSITES[name].works(tmp_path) as composite:
        for request in REQUESTS:
            answer = wait(composite.complete(request))
            decision = answer.decisions[-1]
            assert (decision.by, decision.chose) == (composite.name, answer.model)
            assert decision.reason


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_gives_probabilities(name: str, tmp_path: Path) -> None:
    classifier = CLASSIFIERS[name](tmp_path)
    assert isinstance(classifier, Classifier)
    proba = classifier.predict_proba(["refund my invoice", "password login", ""])
    assert proba.shape == (3, len(classifier.classes))
    assert np.all((proba >= 0) & (proba <= 1))
    assert classifier.predict_proba([]).shape == (0, len(classifier.classes))


@pytest.mark.parametrize("name", CONFIDENCES)
def test_a_confidence_reads_what_came_with_the_answer(name: str) -> None:
    confidence = REGISTRIES["pilotfish.infer.CONFIDENCES"].load(name)
    tokens = tuple({"token": "x", "logprob": math.log(p)} for p in (0.9, 0.4))
    probs = {"a": 0.2, "b": 0.7, "c": 0.1}
    answer = Completion("b", "m", logprobs=tokens, label_probs=probs)
    assert confidence(answer) == pytest.approx(CONFIDENCES[name])
    assert confidence(Completion("b", "m")) in (None, 0.0), "nothing to judge by is no confidence"


# What every encoder promises

TEXTS = [
    *(
        "cheap flights to Rome",
        "Wie wird das Wetter morgen?",
        "refund",
        "",
        "   ",
        "\x00",
        "\ud800",
    ),
    *("👋" * 50, "word " * 5000, "日本語のテキスト", "a"),
]


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> Encoder:
    with skip_without_library():
        return ENCODERS[request.param](tmp_path)
    raise AssertionError("unreachable")


def test_an_encoder_gives_unit_or_zero_rows(encoder: Encoder) -> None:
    assert isinstance(encoder, Encoder)
    assert encoder.name
    rows = encoder.encode(TEXTS)
    assert rows.shape == (len(TEXTS), encoder.dim)
    assert rows.dtype == np.float32
    lengths = np.linalg.norm(rows, axis=1)
    assert np.all(np.isclose(lengths, 1, atol=1e-4) | (lengths == 0)), lengths
    assert lengths[0] > 0
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_a_texts_vector_depends_on_it_alone(encoder: Encoder) -> None:
    rows = encoder.encode(TEXTS)
    assert np.array_equal(encoder.encode(TEXTS), rows)
    for position, text in enumerate(TEXTS):
        assert np.allclose(encoder.encode([text])[0], rows[position], atol=1e-4), text
    assert np.allclose(encoder.encode(TEXTS[::-1]), rows[::-1], atol=1e-4)
    with ThreadPoolExecutor(4) as pool:
        for again in pool.map(encoder.encode, [TEXTS] * 4):
            assert np.allclose(again, rows, atol=1e-4)


def test_different_texts_differ(encoder: Encoder) -> None:
    rows = encoder.encode(TEXTS[:3])
    assert np.all(rows @ rows.T - np.eye(3) < 0.999)


# What every student promises


def lesson(row: StudentRow, n: int = 240) -> tuple[Inputs, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, n)
    words = [
        [*rng.choice(TOPICS[list(TOPICS)[t]], 2), *rng.choice(["my", "a"], 2)] for t in targets
    ]
    texts = [" ".join(map(str, chosen)) for chosen in words]
    if row.tabular:
        amounts = [float(t * 10 + rng.normal()) for t in targets]
        return Inputs(
            texts, {"text": texts, "amount": amounts, "odd": [None, "x"] * (n // 2)}
        ), targets
    return Inputs(texts), targets


@pytest.fixture(scope="module")
def static() -> Encoder:
    return load_encoder("static", Config())


@functools.cache
def fitted(name: str, static: Encoder) -> Any:
    return fit(name, static)


def fit(name: str, static: Encoder, **changes: Any) -> tuple[Student, Inputs, np.ndarray[Any, Any]]:
    inputs, targets = lesson(STUDENTS[name])
    settings: dict[str, Any] = {"classes": tuple(TOPICS), "encoder": static, "targets": targets}
    student = fit_student(name, inputs, **(settings | changes))
    return student, inputs, targets


@pytest.fixture(params=STUDENTS)
def student_name(request: pytest.FixtureRequest) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        with skip_without_library():
            stack.enter_context(STUDENTS[request.param].prepared())
        yield str(request.param)


def test_a_student_learns_and_gives_probabilities(student_name: str, static: Encoder) -> None:
    student, inputs, targets = fitted(student_name, static)
    assert student.classes == tuple(TOPICS)
    proba = student.predict_proba(inputs)
    assert proba.shape == (len(inputs), 2)
    assert np.all((proba >= 0) & (proba <= 1))
    assert np.allclose(proba.sum(axis=1), 1, atol=1e-5)
    assert np.mean(proba.argmax(axis=1) == targets) > 0.9
    assert np.mean(np.max(proba, axis=1)) > 0.6
    assert student.predict_proba(inputs.take([])).shape == (0, 2)
    single = np.vstack([student.predict_proba(inputs.take([i])) for i in range(5)])
    assert np.allclose(single, proba[:5], atol=1e-5)


def test_a_student_is_the_same_after_storing(student_name: str, static: Encoder) -> None:
    student, inputs, _ = fitted(student_name, static)
    card, arrays, files = student_files(student)
    assert not files
    card, arrays = json.loads(json.dumps(card)), load(save(arrays)) if arrays else {}
    again = restore_student(card, arrays, lambda name: static)
    assert np.array_equal(again.predict_proba(inputs), student.predict_proba(inputs))
    assert again.classes == student.classes


def test_a_student_is_the_same_for_the_same_seed(student_name: str, static: Encoder) -> None:
    first, inputs, _ = fitted(student_name, static)
    second, _, _ = fit(student_name, static)
    assert np.array_equal(first.predict_proba(inputs), second.predict_proba(inputs))


def test_a_student_bears_classes_it_never_saw(student_name: str, static: Encoder) -> None:
    _, targets = lesson(STUDENTS[student_name])
    student, inputs, _ = fit(student_name, static, classes=("never", *TOPICS), targets=targets + 1)
    proba = student.predict_proba(inputs)
    assert proba.shape == (len(inputs), 3)
    assert np.allclose(proba.sum(axis=1), 1, atol=1e-5)
    assert np.mean(proba.argmax(axis=1) == targets + 1) > 0.9


def test_a_student_of_several_labels_at_once(student_name: str, static: Encoder) -> None:
    _, targets = lesson(STUDENTS[student_name])
    several = np.stack([targets == 0, targets == 1, np.ones(len(targets), bool)], axis=1)
    student, inputs, _ = fit(
        student_name, static, classes=("a", "b", "always"), targets=several, multilabel=True
    )
    proba = student.predict_proba(inputs)
    assert np.all((proba >= 0) & (proba <= 1))
    assert np.mean((proba > 0.5) == several) > 0.9


def test_a_student_bears_odd_texts_and_one_answer(student_name: str, static: Encoder) -> None:
    student, inputs, targets = fitted(student_name, static)
    odd = Inputs(TEXTS, {name: [column[0]] * len(TEXTS) for name, column in inputs.fields.items()})
    assert np.isfinite(student.predict_proba(odd)).all()
    constant, _, _ = fit(student_name, static, targets=np.zeros_like(targets))
    assert np.all(constant.predict_proba(odd).argmax(axis=1) == 0)
