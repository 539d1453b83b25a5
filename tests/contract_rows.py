"""One table over every registered thing: how to build a real, small instance of each.

A new technique adds one row here, and tests/test_contracts.py holds it to the promises of its kind.
Nothing is downloaded: a server on loopback, files written on the spot.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pilotfish as pf
from pilotfish.config import Config
from pilotfish.errors import MissingExtra
from pilotfish.models import ENCODERS as ENCODER_REGISTRY
from pilotfish.models import LEARNERS as LEARNERS_REGISTRY
from pilotfish.models.cached import CachedModel
from pilotfish.models.calls import wait
from pilotfish.models.fake_server import FakeServer
from pilotfish.models.load import load_classifier, load_encoder, load_model
from pilotfish.models.protocols import Classifier, Encoder, Model
from pilotfish.records import Request

PROMPTS = ("one", "two words", "Grüße 👋")
Context = Callable[[Path], AbstractContextManager[Any]]

# How to build one of each


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
_kept: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def artifact_folder() -> Path:
    """A small offload, made once; its large model follows a rule."""
    _kept.append(tempfile.TemporaryDirectory())
    folder = Path(_kept[-1].name)
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


BAD = Request.of(PROMPTS[0])


@dataclass(frozen=True)
class ModelRow:
    """A model that answers :data:`PROMPTS`, and one that answers each with an error of the tree.

    ``rest`` is what may follow the backend's name in a spec; ``bad`` is what makes it fail; ``marks`` are
    the tests'.
    """

    works: Context
    fails: Context
    rest: Callable[[Path], str] = lambda folder: "x"
    bad: Request = BAD
    marks: tuple[pytest.MarkDecorator, ...] = ()


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


MODELS = {
    "openai": ModelRow(
        lambda folder: remote("openai:m", "base_url"),
        lambda folder: remote("openai:m", "base_url", fault="bad-request"),
    ),
    "litellm": ModelRow(
        lambda folder: with_key(remote("litellm:openai/m", "api_base")),
        lambda folder: with_key(remote("litellm:openai/m", "api_base", fault="bad-request")),
        # litellm 1.x warns of its own deprecations and pydantic's while it is imported and used.
        marks=(
            pytest.mark.filterwarnings("default::DeprecationWarning"),
            pytest.mark.filterwarnings("default::UserWarning"),
            pytest.mark.filterwarnings("default::ResourceWarning"),
            pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning"),
        ),
    ),
    "llama.cpp": ModelRow(gguf, gguf, write_gguf, Request.of("far too long " * 5000)),
    "transformers": ModelRow(
        torch_model, torch_model, write_llama, Request.of("far too long " * 5000)
    ),
    "replay": ModelRow(replay, lambda folder: replay(folder, ("other",))),
    "fake": ModelRow(fake, lambda folder: fake(folder, ("other",))),
    "artifact": ModelRow(
        artifact, lambda folder: artifact(folder, fails=True), lambda folder: str(artifact_folder())
    ),
    # A cache is a model too, though no registry names it.
    "(cached)": ModelRow(cached, lambda folder: cached(folder, fails=True)),
}


def write_tiny_encoder(folder: Path) -> Path:
    from tests.models.tiny_onnx import write_encoder

    return write_encoder(folder)


def write_sentence_transformer(folder: Path) -> Encoder:
    ENCODER_REGISTRY.load("sentence-transformers")  # says which extra is missing
    from tests.models.tiny_bert import write_bert

    spec = f"sentence-transformers:{write_bert(folder / 'bert')}"
    return load_encoder(spec, Config(), device="cpu")


ENCODERS: dict[str, Callable[[Path], Encoder]] = {
    "static": lambda folder: load_encoder("static", Config()),
    "onnx": lambda folder: load_encoder(f"onnx:{write_tiny_encoder(folder)}", Config()),
    "sentence-transformers": write_sentence_transformer,
}


@dataclass(frozen=True)
class StudentRow:
    """What a student can learn from: texts, or columns beside them; and what it needs on this machine."""

    embeds: bool = False
    tabular: bool = False
    prepared: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext


@contextmanager
def tiny_transformer() -> Iterator[None]:
    """A tiny BERT in the place of the encoder that is fine-tuned."""
    from pilotfish.distill import transformer

    if transformer.unavailable_library():
        raise MissingExtra("The student 'transformer'", "torch")
    from tests.models.tiny_bert import write_bert

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        base = write_bert(Path(folder), [word for words in TOPICS.values() for word in words])
        patch.setattr(transformer, "base_folder", lambda: base)
        yield


STUDENTS = {
    "tfidf-embedding-linear": StudentRow(embeds=True),
    "tfidf-linear": StudentRow(),
    "embedding-linear": StudentRow(embeds=True),
    "knn": StudentRow(embeds=True),
    "trees": StudentRow(tabular=True),
    "transformer": StudentRow(prepared=tiny_transformer),
}


def steered_row(kind: str, members: int) -> ModelRow:
    """A composite of tiny token models, as pilotfish.toml declares it."""

    @contextmanager
    def steered(folder: Path) -> Iterator[Model]:
        from pilotfish.models.load import Models
        from tests.models import tiny_gguf

        names = [f"tiny-{seed}" for seed in range(members)]
        tables: dict[str, Any] = {"whole": {"kind": kind, "models": names}}
        for seed, name in enumerate(names):
            path = tiny_gguf.write(folder / f"{name}.gguf", tiny_gguf.random_weights(seed))
            tables[name] = {"backend": "llama.cpp", "model": str(path), "threads": 1}
        models = Models(Config(models=tables))
        yield models.load("whole")
        for model in models.built().values():
            model.close()  # type: ignore[attr-defined]

    return ModelRow(steered, steered, bad=Request.of("far too long " * 5000))


COMPOSITES = {
    "cascade": ModelRow(cascade, lambda folder: cascade(folder, fails=True)),
    "fallback": ModelRow(fallback, lambda folder: fallback(folder, fails=True)),
    "router": ModelRow(router, lambda folder: router(folder, fails=True)),
    "policy": ModelRow(policy, lambda folder: policy(folder, fails=True)),
    "learned": ModelRow(learned, lambda folder: learned(folder, fails=True)),
    "fuse": ModelRow(fuse, lambda folder: fuse(folder, fails=True)),
    "narrow": ModelRow(narrow, lambda folder: narrow(folder, fails=True)),
    "speculative": steered_row("speculative", 2),
    "contrast": steered_row("contrast", 2),
    "proxy-tuned": steered_row("proxy-tuned", 3),
    "mixed": steered_row("mixed", 2),
    "weak-to-strong-search": steered_row("weak-to-strong-search", 3),
}

CLASSIFIERS: dict[str, Callable[[Path], Classifier]] = {
    "artifact": lambda folder: load_classifier(f"artifact:{artifact_folder()}", Config()),
}

# What each confidence finds in an answer whose label is at 0.7 against 0.2 and 0.1, and whose two tokens
# had the probabilities 0.9 and 0.4.
CONFIDENCES = {
    "top_probability": 0.7,
    "margin": 0.5,
    "sequence_probability": 0.36,
    "mean_probability": 0.6,
    "least_probability": 0.4,
}


@dataclass(frozen=True)
class PredictorRow:
    """What a quality predictor needs to be fitted on a small pool; some look at no text."""

    settings: Callable[[Path], dict[str, Any]] = lambda folder: {}
    reads_texts: bool = True


def tiny_base(folder: Path) -> dict[str, Any]:
    """A BERT to fine-tune that knows the words of the small pool."""
    load_learner()
    from tests.models.tiny_bert import write_bert

    words = [word for words in TOPICS.values() for word in words]
    return {"base": str(write_bert(folder / "bert", words)), "epochs": 6}


def load_learner() -> Any:
    """The learner, or a skip that says what to install."""
    from pilotfish.distill.transformer import unavailable_library

    if unavailable_library():
        pytest.skip('needs torch: pip install "pilotfish[torch]", or make test-torch')
    return LEARNERS_REGISTRY.load("transformer")


PREDICTORS = {
    "stacked": PredictorRow(),
    "average": PredictorRow(reads_texts=False),
    "knn": PredictorRow(lambda folder: {"k": 10}),
    "linear": PredictorRow(),
    "logistic": PredictorRow(),
    "kernel": PredictorRow(),
    "forest": PredictorRow(lambda folder: {"trees": 50}),
    "hybrid": PredictorRow(lambda folder: {"reference": "generalist"}),
    "matrix-factorization": PredictorRow(),
    "bradley-terry": PredictorRow(lambda folder: {"base": 1e6}),
    "reward-distilled": PredictorRow(),
    "expert-loss": PredictorRow(),
    "agreement": PredictorRow(lambda folder: {"k": 10}),
    "transformer": PredictorRow(tiny_base),
    "tags": PredictorRow(lambda folder: {"max_share": 0.5}),
    "self-knowledge": PredictorRow(
        lambda folder: {"spec": f"llama.cpp:{write_gguf(folder)}"}, reads_texts=False
    ),
    "svm": PredictorRow(),
    "mlp": PredictorRow(lambda folder: {"epochs": 100}),
    "elo": PredictorRow(reads_texts=False),
    "contrastive": PredictorRow(),
}

JUDGES: dict[str, Callable[[Any], Any]] = {
    "confidence": lambda outcomes: load("JUDGES", "confidence")("margin"),
    "self-verification": lambda outcomes: load("JUDGES", "self-verification")(
        pf.FakeModel("Verdict: correct"), samples=2
    ),
    "sample-agreement": lambda outcomes: load("JUDGES", "sample-agreement")(
        pf.FakeModel("It is 7"), samples=2, pattern="[0-9]+"
    ),
    "model-agreement": lambda outcomes: load("JUDGES", "model-agreement").fit(outcomes),
    "learned": lambda outcomes: load("JUDGES", "learned").fit(outcomes, pattern="[0-9]+"),
    "pairwise": lambda outcomes: load("JUDGES", "pairwise").fit(outcomes, pattern="[0-9]+"),
}


def load(registry: str, name: str) -> Any:
    from pilotfish.infer.judges import JUDGES as judges
    from pilotfish.infer.policies import POLICIES as policies

    return {"JUDGES": judges, "POLICIES": policies}[registry].load(name)


def pomdp(names: tuple[str, ...]) -> Any:
    rng = np.random.default_rng(0)
    quality = rng.random((200, len(names))) < 0.6
    scores = 0.3 * quality + 0.7 * rng.random(quality.shape)
    cost, order = np.arange(1.0, len(names) + 1), tuple(range(len(names)))
    method = load("POLICIES", "verification-pomdp")
    return method.fit(names, order, quality, scores, cost, weight=0.05, bins=3)


def spread(names: tuple[str, ...]) -> Any:
    return 0.05 * np.eye(len(names), dtype=np.float32)


POLICIES: dict[str, Callable[[tuple[str, ...]], Any]] = {
    "weighted": lambda names: load("POLICIES", "weighted")(names, 0.05),
    "chain": lambda names: load("POLICIES", "chain").of(names, list(names[:2]), [0.5]),
    "cascade-routing": lambda names: load("POLICIES", "cascade-routing")(
        names, spread(names), 0.05
    ),
    "reservation": lambda names: load("POLICIES", "reservation")(names, spread(names), 0.05),
    "verification-pomdp": pomdp,
    "mixed": lambda names: load("POLICIES", "mixed")(
        POLICIES["weighted"](names), POLICIES["chain"](names), 0.5
    ),
    "certified": lambda names: load("POLICIES", "certified")(POLICIES["chain"](names), 2, 0.7),
}


@functools.cache
def target_file() -> str:
    """Texts that a selection should come close to."""
    path = Path(tempfile.mkdtemp(prefix="pilotfish-target-")) / "target.txt"
    path.write_text("The river swims under the cold light.\nSmall fish keeps under the stone.\n")
    return str(path)


@functools.cache
def key_file() -> str:
    path = Path(tempfile.mkdtemp(prefix="pilotfish-key-")) / "key"
    path.write_bytes(bytes(range(32)))
    return str(path)


@functools.cache
def made_folder() -> Path:
    """A folder for files that steps need."""
    _kept.append(tempfile.TemporaryDirectory())
    return Path(_kept[-1].name)


def labelled_file() -> str:
    """Texts to learn from; every other one is labelled as toxic."""
    path = made_folder() / "labelled.jsonl"
    texts = ["The river keeps the stone cold.", "Größe matters to a fish, naïve or not."] * 20
    rows = [{"text": text, "toxicity": i % 2} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# Curation steps: settings as they would stand in a pipeline file; the texts are CORPUS of
# tests/curate/test_step_contract.py.
STEPS: dict[str, Any] = {
    "buckets": {"score": "stars", "keep": ["middle"]},
    "c4": {"min_sentences": 1, "bad_words": ["rude"]},
    "ccnet": {"min_chars": 20},
    "dsir": lambda: {"target": target_file(), "share": 0.4, "min_words": 3, "scores": True},
    "exact": {"ignore_whitespace": True, "keep": "longest"},
    "fineweb": {"max_new_lines": 0.5, "scores": True},
    "gopher_quality": {"min_words": 3, "min_stop_words": None, "tag": True},
    "gopher_repetition": {"scores": True},
    "grade": {"model": "fake:3", "sample": 50},
    "language": {"min_confidence": 0.2, "max_chars": 500},
    "length": {"min_chars": 20, "max_chars": 400, "tag": True},
    "model_perplexity": lambda: {
        "model": f"llama.cpp:{write_gguf(made_folder())}",
        "max_tokens": 20,
    },
    "perplexity": {"order": 2},
    "quality": lambda: {"good": labelled_file(), "sample": 50},
    "toxicity": lambda: {"labels": labelled_file(), "tag": True},
    "minhash": {"words": 2, "bands": 20, "rows": 4, "tag": True},
    "mods": {"quality": "stars", "min_quality": 1.0, "seed_rows": 20, "tag": True},
    "personal_data": {"kinds": ["email", "phone", "card"]},
    "pseudonyms": lambda: {
        "key_file": key_file(),
        "mapping": tempfile.mktemp(prefix="pilotfish-mapping-"),
    },
    "representative": {"share": 0.3, "method": "k-center"},
    "semantic": {"max_similarity": 0.9, "cluster_size": 50},
}

TABLE: dict[str, dict[str, Any]] = {
    "pilotfish.curate.STEPS": STEPS,
    "pilotfish.curate.engines.ENGINES": dict.fromkeys(["local", "processes", "ray"]),
    "pilotfish.models.BACKENDS": MODELS,
    "pilotfish.models.CLASSIFIERS": CLASSIFIERS,
    "pilotfish.models.COMPOSITES": COMPOSITES,
    "pilotfish.models.LEARNERS": {"transformer": load_learner},
    "pilotfish.infer.CONFIDENCES": CONFIDENCES,
    "pilotfish.infer.predictors.PREDICTORS": PREDICTORS,
    "pilotfish.infer.judges.JUDGES": JUDGES,
    "pilotfish.infer.policies.POLICIES": POLICIES,
    "pilotfish.models.ENCODERS": ENCODERS,
    "pilotfish.models.TAGGERS": dict.fromkeys(["onnx"]),  # tests/models/test_onnx_tagger.py
    "pilotfish.distill.STUDENTS": STUDENTS,
    # What they promise needs recorded traffic: tests/loop holds them to it, kind by kind.
    "pilotfish.loop.small.SMALL": dict.fromkeys(
        ["label", "labels", "rating", "extraction", "text"]
    ),
    "pilotfish.loop.small.CANDIDATES": dict.fromkeys(["label", "labels", "rating", "extraction"]),
}
