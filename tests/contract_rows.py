"""One table over every registered thing: how to build a real, small instance of each.

A new technique adds one row here, and tests/test_contracts.py holds it to the promises of its kind.
Nothing is downloaded: a server on loopback, files written on the spot. How models are built is in
tests/contract_models.py.
"""

from __future__ import annotations

import contextlib
import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pilotfish as pf
from pilotfish.config import Config
from pilotfish.errors import MissingExtra
from pilotfish.models import ENCODERS as ENCODER_REGISTRY
from pilotfish.models import LEARNERS as LEARNERS_REGISTRY
from pilotfish.models.load import load_classifier, load_encoder
from pilotfish.models.protocols import Classifier, Encoder, Model
from pilotfish.records import Request
from tests.contract_models import (
    PROMPTS,
    TOPICS,
    Context,
    artifact,
    artifact_folder,
    cached,
    cascade,
    fake,
    fallback,
    fuse,
    gguf,
    kept,
    learned,
    narrow,
    policy,
    remote,
    replay,
    router,
    torch_model,
    with_key,
    write_gguf,
    write_llama,
)

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
    "singleton": 0.8,
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
    kept.append(tempfile.TemporaryDirectory())
    return Path(kept[-1].name)


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
