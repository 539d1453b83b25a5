"""From a name to a model: composites by configuration, shared members, cycles, plain words."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pilotfish.config import Config, load_config
from pilotfish.errors import ConfigError, UnknownName
from pilotfish.infer.cascade import Cascade
from pilotfish.models import BACKENDS
from pilotfish.models.calls import ask
from pilotfish.models.fake import FakeModel
from pilotfish.models.load import Models, load_model

FAKE = {"backend": "fake"}


def config(**models: Mapping[str, Any]) -> Config:
    return Config(models=models, path=Path("pilotfish.toml"))


def cascade(*models: str, **settings: Any) -> dict[str, Any]:
    thresholds = [0.5] * (len(models) - 1)
    return {"kind": "cascade", "models": list(models), "thresholds": thresholds, **settings}


def test_a_composite_from_the_file() -> None:
    Path("pilotfish.toml").write_text(
        """
        [models.small]
        backend = "fake"
        answers = { Hi = "Hello from small" }
        [models.both]
        kind = "cascade"
        models = ["small", "fake:Hello from large"]
        thresholds = [0.9]
        [models.outer]
        kind = "cascade"
        models = ["small", "both"]
        thresholds = ["never"]
        """
    )
    answer = ask(load_model("outer", load_config()), "Hi")
    assert answer.text == "Hello from large"
    assert [(d.by, d.reason) for d in answer.decisions] == [
        *(("both", "score<threshold"), ("both", "last")),
        *(("outer", "not-certified"), ("outer", "last")),
    ]


def test_settings_given_in_code_count_over_the_file() -> None:
    both = config(a=FAKE, b=FAKE, c=cascade("a", "b"))
    model = load_model("c", both, thresholds=[0.1])
    assert isinstance(model, Cascade)
    assert model.thresholds == [0.1]
    assert model.name == "c"


def test_each_spec_is_built_once() -> None:
    models = Models(config(a=FAKE, c=cascade("a", "fake:x"), d=cascade("a", "c", "fake:x")))
    c, d = models.load("c"), models.load("d")
    assert isinstance(c, Cascade)
    assert isinstance(d, Cascade)
    assert d.models[0] is c.models[0] is models.load("a")
    assert d.models[1] is c
    assert d.models[2] is c.models[1]
    assert set(models.built()) == {"a", "c", "d", "fake:x"}
    assert load_model("a", models.config) is not models.load("a")


@pytest.mark.parametrize(
    ("models", "path"),
    [
        ({"a": cascade("a", "fake:x")}, "a -> a"),
        ({"a": cascade("fake:x", "b"), "b": cascade("fake:x", "c"), "c": cascade("a", "b")}, ""),
        ({"a": cascade("b", "fake:x"), "b": cascade("c", "b2"), "b2": FAKE, "c": cascade("b", "b2")},
         "b -> c -> b"),
        ({"a": cascade("fake:x", "b"), "b": {"backend": "artifact", "model": "f", "large": "a"}},
         "a -> b -> a"),
    ],
)  # fmt: skip
def test_a_cycle_is_shown_before_anything_is_started(models: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError, match="is a member of itself") as caught:
        load_model("a", config(**models))
    assert path in str(caught.value)


def test_the_same_member_twice_is_no_cycle() -> None:
    both = config(a=FAKE, b=cascade("a", "fake:x"), c=cascade("a", "b", "a"))
    assert isinstance(load_model("c", both), Cascade)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "has no backend"),
        ({"backend": "fake", "kind": "cascade"}, "both backend and kind"),
        ({"kind": "cascad", "models": ["a"]}, "Did you mean 'cascade'"),
        ({"kind": "cascade"}, "models = None"),
        ({"kind": "cascade", "models": []}, r"models = \[\]"),
        ({"kind": "cascade", "models": "a"}, "models = 'a'"),
        ({"kind": "cascade", "models": ["a", "b"]}, "thresholds"),
        ({"kind": "cascade", "models": ["a", "b"], "thresholds": [0.1, 0.2]}, "2 models and 2"),
        (cascade("a", "b", threshold=0.5), "Did you mean 'thresholds'"),
        (cascade("a", "b", thresholds=["nie"]), "thresholds"),
        (cascade("a", "b", confidence="margins"), "Did you mean 'margin'"),
        (cascade("a", "nobody"), "model 'nobody'"),
    ],
)
def test_a_wrong_table_is_named(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_model("it", config(a=FAKE, b=FAKE, it=table))


def test_no_member_is_an_unknown_name() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'small'"):
        load_model("smal", config(small=FAKE))


class Slow(FakeModel):
    """Takes as long to load as the test says."""

    gates: Mapping[str, threading.Event]

    @classmethod
    def from_spec(cls, rest: str, settings: Any, config: Config) -> Slow:
        assert cls.gates[rest].wait(10)
        return cls(rest, name=rest)


def test_a_model_that_loads_slowly_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS._entries, "slow", f"{__name__}:Slow")
    monkeypatch.setattr(
        "pilotfish.models.load.BACKENDS.load", lambda name: {"slow": Slow, "fake": FakeModel}[name]
    )
    Slow.gates = {"big": threading.Event()}
    models = Models(config(c=cascade("slow:big", "fake:x")))
    built: list[Any] = []
    threads = [
        threading.Thread(target=lambda spec=spec: built.append(models.load(spec)))
        for spec in ("c", "slow:big", "c")
    ]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    models.load("fake:y")
    assert time.monotonic() - began < 5
    assert not built
    Slow.gates["big"].set()
    for thread in threads:
        thread.join()
    assert len({id(model) for model in built}) == 2


def test_an_artifact_shares_its_large_model_and_closes_no_circle() -> None:
    from tests.contract_models import artifact_folder

    artifact = {"backend": "artifact", "model": str(artifact_folder())}
    models = Models(config(topics={**artifact, "large": "b"}, b=FAKE, c=cascade("topics", "b")))
    chain = models.load("c")
    assert isinstance(chain, Cascade)
    assert chain.models[0].teacher.model is chain.models[1]  # type: ignore[attr-defined]
    # Its card names the model that it learned from, here as "large": only loading it tells.
    circle = Models(config(topics=artifact, large=cascade("topics", "fake:x")))
    for _ in range(2):
        with pytest.raises(
            ConfigError, match=r"topics -> large -> topics|large -> topics -> large"
        ):
            circle.load("large")
