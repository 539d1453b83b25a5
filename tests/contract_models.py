"""How the models in tests/contract_rows.py are built: small, real, one that works and one that fails."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pilotfish as pf
from pilotfish.config import Config
from pilotfish.errors import MissingExtra
from pilotfish.models.cached import CachedModel
from pilotfish.models.calls import wait
from pilotfish.models.fake_server import FakeServer
from pilotfish.models.load import load_model
from pilotfish.models.protocols import Model
from pilotfish.records import Request

PROMPTS = ("one", "two words", "Grüße 👋")
Context = Callable[[Path], AbstractContextManager[Any]]


def close(model: Any) -> None:
    """Close the connections of a model that has any."""
    if hasattr(model, "aclose"):
        wait(model.aclose())


@contextmanager
def remote(spec: str, url_setting: str, fault: str | None = None) -> Iterator[Model]:
    def answer(body: dict[str, Any]) -> str:
        return "You said: " + body["messages"][-1]["content"]

    with FakeServer(answer, faults=itertools.repeat(fault)) as server:
        model = load_model(spec, Config(), max_retries=0, **{url_setting: server.base_url})
        yield model
        close(model)


@contextmanager
def with_key(model: AbstractContextManager[Model]) -> Iterator[Model]:
    """The libraries below litellm refuse to call anything without a key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "none")
        with model as built:
            yield built


@contextmanager
def replay(folder: Path, prompts: tuple[str, ...] = PROMPTS) -> Iterator[Model]:
    rows = pa.table({"prompt": prompts, "answer": [f"Recorded: {prompt}" for prompt in prompts]})
    pq.write_table(rows, folder / "answers.parquet")
    yield load_model(f"replay:{folder / 'answers.parquet'}", Config())


@contextmanager
def fake(folder: Path, prompts: tuple[str, ...] = PROMPTS) -> Iterator[Model]:
    answers = {prompt: f"An answer to {prompt}" for prompt in prompts}
    yield load_model("fake:", Config(), answers=answers)


TOPICS = {"billing": ("invoice", "refund", "card"), "account": ("password", "login", "email")}
kept: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def artifact_folder() -> Path:
    """A small offload, made once; its large model follows a rule."""
    kept.append(tempfile.TemporaryDirectory())
    folder = Path(kept[-1].name)
    rng = np.random.default_rng(0)
    with (folder / "rows.jsonl").open("w") as file:
        for _ in range(600):
            topic = str(rng.choice(list(TOPICS)))
            words = [*rng.choice(TOPICS[topic], 2), *rng.choice(["my", "the", "a", "please"], 3)]
            file.write(json.dumps({"text": " ".join(words)}) + "\n")

    def rule(request: Request) -> str:
        return max(TOPICS, key=lambda topic: sum(word in request.prompt for word in TOPICS[topic]))

    pf.offload(
        "Topic? {text}",
        folder / "rows.jsonl",
        large=pf.FakeModel(rule, name="large"),
        labels=list(TOPICS),
        out=folder / "artifact",
        store=f"sqlite:///{folder}/answers.db",
    )
    return folder / "artifact"


@contextmanager
def artifact(folder: Path, fails: bool = False) -> Iterator[Model]:
    """Prompts that are not its task's go to the large model."""
    Path("pilotfish.toml").write_text(
        "[models.teacher]\nbackend = 'fake'\n[models.teacher.answers]\n"
        + "".join(
            f"{json.dumps(prompt, ensure_ascii=False)} = 'From the large one'\n"
            for prompt in PROMPTS
            if not fails
        )
    )
    config = pf.load_config()
    yield load_model(f"artifact:{artifact_folder()}", config, large="teacher")


def declared(kind: str, fails: bool, **settings: Any) -> Model:
    """A composite as pilotfish.toml declares it; its members are ``small`` and ``large``."""
    answers = {} if fails else {prompt: f"An answer to {prompt}" for prompt in PROMPTS}
    member = {"backend": "fake", "answers": answers}
    composite = {"kind": kind, "models": ["small", "large"], **settings}
    config = Config(models={"small": member, "large": member, "both": composite})
    return load_model("both", config)


@contextmanager
def cascade(folder: Path, fails: bool = False) -> Iterator[Model]:
    yield declared("cascade", fails, thresholds=[0.9])


@contextmanager
def fallback(folder: Path, fails: bool = False) -> Iterator[Model]:
    yield declared("fallback", fails)


@contextmanager
def router(folder: Path, fails: bool = False) -> Iterator[Model]:
    yield declared("router", fails, by=[{"model": "small", "max_prompt_characters": 5}])


@contextmanager
def learned(folder: Path, fails: bool = False) -> Iterator[Model]:
    """Before anything is learned: all goes to the large model, which is the first one here."""
    model = declared("learned", fails)
    yield model
    wait(model.aclose())  # type: ignore[attr-defined]


@contextmanager
def policy(folder: Path, fails: bool = False) -> Iterator[Model]:
    """A fitted router; whom it asks does not matter here."""
    from pilotfish.infer.routing import fit_routing
    from tests.infer.test_replay import topics

    parts = (topics(60, seed=seed) for seed in range(3))
    fit_routing(*parts, policy="average").save(folder / "policy")
    yield declared("policy", fails, by=str(folder / "policy"))


@contextmanager
def fuse(folder: Path, fails: bool = False) -> Iterator[Model]:
    yield declared("fuse", fails, top=1)


@contextmanager
def narrow(folder: Path, fails: bool = False) -> Iterator[Model]:
    yield declared("narrow", fails, top=2)


@contextmanager
def cached(folder: Path, fails: bool = False) -> Iterator[Model]:
    with (
        fake(folder, () if fails else PROMPTS) as inner,
        contextlib.closing(pf.open_store(f"sqlite:///{folder}/cache.db")) as store,
    ):
        yield CachedModel(inner, store)


@contextmanager
def gguf(folder: Path) -> Iterator[Model]:
    model = load_model(f"llama.cpp:{write_gguf(folder)}", Config(), threads=1)
    with contextlib.closing(model):  # type: ignore[type-var]
        yield model


def write_gguf(folder: Path) -> str:
    from tests.models import tiny_gguf

    return str(tiny_gguf.write(folder / "tiny.gguf", tiny_gguf.random_weights()))


@contextmanager
def torch_model(folder: Path) -> Iterator[Model]:
    model = load_model(f"transformers:{write_llama(folder)}", Config(), threads=1)
    with contextlib.closing(model):  # type: ignore[type-var]
        yield model


def write_llama(folder: Path) -> str:
    if importlib.util.find_spec("torch") is None:
        raise MissingExtra("The backend 'transformers'", "torch")
    from tests.models import tiny_gguf, tiny_llama

    return str(tiny_llama.write(folder / "tiny", tiny_gguf.random_weights()))
