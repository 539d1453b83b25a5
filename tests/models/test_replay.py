"""Recorded answers: from files of every kind, from the store, and at the size of a real log."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.config import Config
from pilotfish.errors import ConfigError, InputError, RequestRefused, UnknownName
from pilotfish.models.load import load_model
from pilotfish.models.replay import ReplayModel, StoreReplayModel
from pilotfish.records import Completion, Request, Usage
from pilotfish.store import open_store

ROWS = {
    "prompt": ["a", "b", "a", "péché\n🐟", "none"],
    "answer": ["1", "2", "3", "4", None],
    "dollars": [0.1, None, 0.3, 0.4, 0.5],
    "seconds": [1.0, 2.0, 3.0, None, 5.0],
}


def write(folder: Path, kind: str, rows: dict[str, Any]) -> Path:
    path = folder / f"answers.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table(rows), path)
    elif kind == "csv":
        pa.csv.write_csv(pa.table(rows), path)
    else:
        lines = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
        path.write_text("\n".join(json.dumps(line) for line in lines), "utf-8")
    return path


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "ndjson", "csv"])
async def test_answers_from_a_file(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, kind, ROWS)
    model = load_model(f"replay:{path}", Config(), cost="dollars", latency="seconds")
    assert model.name == "answers"
    got = [await model.complete(Request.of(prompt)) for prompt in ("a", "b", "péché\n🐟", "a")]
    assert [c.text for c in got] == ["1", "2", "4", "1"]
    assert [c.cost for c in got] == [0.1, None, 0.4, 0.1]
    assert [c.latency for c in got] == [1.0, 2.0, 0.0, 1.0]
    assert got[0].model == "answers"
    plain = await ReplayModel(path).complete(Request.of("a"))
    assert plain.cost is None
    with pytest.raises(RequestRefused, match=r"no answer for the prompt 'c'.*5 others"):
        await model.complete(Request.of("c"))


async def test_an_empty_answer_is_named_by_its_row(tmp_path: Path) -> None:
    model = ReplayModel(write(tmp_path, "parquet", ROWS))
    with pytest.raises(RequestRefused, match="data row 5"):
        await model.complete(Request.of("none"))


async def test_repeats(tmp_path: Path) -> None:
    path = write(tmp_path, "parquet", ROWS)
    cycle = ReplayModel(path, repeats="cycle")
    got = [(await cycle.complete(Request.of(p))).text for p in ("a", "b", "a", "a", "b")]
    assert got == ["1", "2", "3", "1", "2"]


async def test_numbers_are_texts(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl", {"prompt": [1, 2], "answer": [4, 5]})
    assert (await ReplayModel(path).complete(Request.of("2"))).text == "5"


async def test_a_megabyte_of_prompt(tmp_path: Path) -> None:
    big = "x" * (1 << 20) + "é"
    path = write(tmp_path, "jsonl", {"prompt": ["a", big], "answer": ["1", "2"]})
    model = ReplayModel(path)
    assert (await model.complete(Request.of(big))).text == "2"
    with pytest.raises(RequestRefused) as caught:
        await model.complete(Request.of(big + "!"))
    assert len(str(caught.value)) < 1000


def test_files_and_settings_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No recorded answers"):
        ReplayModel(tmp_path / "missing.parquet")
    path = write(tmp_path, "parquet", {"question": ["a"], "answer": ["1"]})
    with pytest.raises(ConfigError, match=r"\['question', 'answer'\].*\['prompt'\]"):
        ReplayModel(path)
    with pytest.raises(UnknownName, match="answer"):
        ReplayModel(path, answers="x")
    with pytest.raises(ConfigError, match="repeats"):
        ReplayModel(path, repeats="last")
    for kind in ("parquet", "jsonl"):
        broken = tmp_path / f"broken.{kind}"
        broken.write_bytes(b"\x00\x01 garbage")
        with pytest.raises(InputError, match="cannot be read"):
            ReplayModel(broken)
    with pytest.raises(ConfigError, match="replay:FILE"):
        load_model("replay:", Config())


@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b", "ab", "\x00"]), st.text("xyz")), min_size=1)
)
def test_the_first_answer_wins_like_in_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "property.parquet"
    pq.write_table(pa.table({"prompt": [p for p, _ in rows], "answer": [a for _, a in rows]}), path)
    model = ReplayModel(path)
    expected = dict(reversed(rows))
    for prompt, answer in expected.items():
        [first, *_] = model._find(prompt)
        assert model._answers[first].as_py() == answer
    assert not model._find("c")


async def test_many_rows_load_fast_and_in_flat_memory(tmp_path: Path) -> None:
    rows = 300_000
    prompts = pa.array(f"a customer asks about order {i}, please sort it" for i in range(rows))
    path = tmp_path / "many.parquet"
    pq.write_table(pa.table({"prompt": prompts, "answer": pa.array(["label"] * rows)}), path)
    bytes_of_columns = prompts.nbytes
    del prompts
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    model = ReplayModel(path)
    loaded = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    began = time.process_time()
    for i in range(0, rows, 100):
        prompt = f"a customer asks about order {i}, please sort it"
        assert (await model.complete(Request.of(prompt))).text == "label"
    asked = time.process_time() - began
    assert loaded < 3
    assert grown < 5 * bytes_of_columns
    assert asked < 5


async def test_answers_from_the_store(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    request = Request.of("2+2?", temperature=0)
    kept = Completion("4", "gpt", usage=Usage(3, 1), cost=0.5, latency=1.5)
    with open_store(url) as store:
        store.put([(request.key("gpt"), request, kept)])
        model = StoreReplayModel("gpt", store)
        assert await model.complete(request) == kept
        with pytest.raises(RequestRefused, match="temperature"):
            await model.complete(Request.of("2+2?", temperature=1))
    loaded = load_model("replay:gpt", Config(store=url), name="old")
    assert isinstance(loaded, StoreReplayModel)
    assert (await loaded.complete(request)).model == "old"
    loaded.close()
