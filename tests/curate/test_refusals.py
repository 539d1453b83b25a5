"""What a pipeline refuses: wrong files and settings, unusable input and places, broken promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pilotfish as pf
from pilotfish.curate import STEPS, Pipeline, Verdict
from pilotfish.curate.dedup.exact import Exact
from pilotfish.curate.scores.buckets import Buckets
from pilotfish.curate.scores.length import Length
from pilotfish.curate.selection.mods import MoDS
from pilotfish.errors import ConfigError, InputError, UnknownName
from tests.curate.corpus import documents
from tests.curate.runs import STEPPED, by_hand, rows


@pytest.mark.parametrize(
    ("toml", "error", "words"),
    [
        ('[[steps]]\nstep = "lenght"', UnknownName, "Did you mean 'length'"),
        ('[[steps]]\nstep = "length"\nmin_char = 5', UnknownName, "Did you mean 'min_chars'"),
        ('[[steps]]\nstep = "length"\nmin_chars = "5"', ConfigError, "Expected `int`, got `str`"),
        ('[[steps]]\nstep = "length"\nmin_chars = -5', ConfigError, "min_chars=-5"),
        ("[[steps]]\nmin_chars = 5", ConfigError, "step = "),
        (
            '[[steps]]\nstep = "dsir"\nrows = 5',
            ConfigError,
            r"'dsir' needs target\.\n(?s:.*)ngrams",
        ),
        ('[[steps]]\nstep = "mods"\nmin_quality = 5', ConfigError, "needs quality, seed_rows"),
        (
            '[[steps]]\nstep = "representative"\nrows = 5\nmethod = "k-centre"',
            UnknownName,
            "Did you mean 'k-center'",
        ),
        ('[[step]]\nstep = "length"', UnknownName, "Did you mean 'steps'"),
        ('txt = "a"', UnknownName, "Did you mean 'text'"),
        ("text = 5", ConfigError, "without steps|expected a column"),
        ("steps = 3", ConfigError, r"\[\[steps\]\] tables"),
        ("", ConfigError, "without steps"),
        ("[[steps", ConfigError, "not TOML"),
    ],
)
def test_a_wrong_pipeline_file_is_told(
    tmp_path: Path, toml: str, error: type[Exception], words: str
) -> None:
    (tmp_path / "p.toml").write_text(toml)
    with pytest.raises(error, match=words):
        Pipeline.from_file(tmp_path / "p.toml")


def test_a_pipeline_file_makes_the_steps(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(
        'text = "body"\n[[steps]]\nstep = "length"\nmin_chars = 5\n[[steps]]\nstep = "length"\n'
    )
    pipeline = Pipeline.from_file(tmp_path / "p.toml")
    assert pipeline.text == "body"
    assert pipeline.labels == ("length", "length (2)")
    assert [vars(step)["min_chars"] for step in pipeline.steps] == [5, 1]
    with pytest.raises(ConfigError, match="Cannot read"):
        Pipeline.from_file(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"engine": "rey"}, "Did you mean 'ray'"),
        ({"format": "josnl"}, "Did you mean 'jsonl'"),
        ({"compression": "zst"}, "Did you mean 'zstd'"),
        ({"input_format": "xml"}, "Got format 'xml'"),
        ({"workers": 0}, "workers=0"),
    ],
)
def test_wrong_settings_are_told(
    corpus: Path, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Pipeline([Length()]).run(corpus, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", b'{"content": "a", "id": 1}\n', 'Did you mean text = "content"'),
        ("a.jsonl", b"", "no usable row"),
        ("a.jsonl", b"\n\n", "no usable row"),
        ("a.json", b'[{"text": "a"},\n {"text": "b"}]', "jq -c"),
        ("a.csv", b"content,id\na,1\n", 'Did you mean text = "content"'),
        ("a.parquet", b"PAR1", "damaged-file"),
    ],
)
def test_unusable_input_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=words):
        Pipeline([Length()]).run(tmp_path / name, tmp_path / "out")
    assert not list((tmp_path / "out").glob("part-*"))


def test_inputs_that_name_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.weird").write_text("text")
    with pytest.raises(InputError, match=r"holds no file whose name says(?s:.*)--input-format"):
        Pipeline([Length()]).run(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="no input, but expected files"):
        Pipeline([Length()]).run([], tmp_path / "out")


def test_a_column_of_the_wrong_type_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "stars": "many"}\n')
    step = Exact(keep="highest", column="stars")
    with pytest.raises(InputError, match="reads 'stars' as double; name another column"):
        Pipeline([step]).run(tmp_path / "a.jsonl", tmp_path / "out")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_the_text_may_be_read_by_its_own_name_but_not_as_a_number(
    tmp_path: Path, name: str
) -> None:
    """As a question is, or groups that are whole texts."""
    data = {"body": ["first", "second"], "stars": [1, 2]}
    if name == "a.parquet":
        pq.write_table(pa.table(data), tmp_path / name)
    elif name == "a.csv":
        (tmp_path / name).write_text("body,stars\nfirst,1\nsecond,2\n")
    else:
        lines = [json.dumps({"body": text, "stars": 1}) for text in data["body"]]
        (tmp_path / name).write_text("\n".join(lines))
    by_text = Buckets("stars", quantiles=(0.5,), names=("low", "high"), by="body")
    result = Pipeline([by_text], text="body").run(tmp_path / name, tmp_path / "out")
    assert result.rows_kept == 2
    with pytest.raises((ConfigError, InputError), match="'body' as double"):
        Pipeline([Buckets("body")], text="body").run(tmp_path / name, tmp_path / "none")
    with pytest.raises(ConfigError, match="reads the text as double"):
        Pipeline([MoDS("text", 0.5, 3)])


def test_a_column_that_no_row_has_is_told_but_not_one_that_a_step_adds(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "stars": 1}\n{"text": "b"}\n')
    steps = [Length(column="chars")]
    for column, said in (("stars", 0), ("chars", 0), ("starz", 1)):
        pipeline = Pipeline([*steps, Exact(keep="highest", column=column)])
        for result in (
            pipeline.run(tmp_path / "a.jsonl", tmp_path / column),
            pipeline.sample(tmp_path / "a.jsonl"),
        ):
            assert len(result.notes) == said, column
            assert all(note.startswith("exact: it reads") for note in result.notes)
            assert all(repr(column) in note for note in result.notes)


def test_what_stands_in_the_folder_for_unfinished_work_stays(corpus: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    pipeline = Pipeline([Length(min_chars=10**6)])
    for output in ("out", "again"):
        pipeline.run(corpus, tmp_path / output, work=mine)
        assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    pipeline.run(corpus, tmp_path / "third", work=tmp_path / "made" / "for it")
    assert not (tmp_path / "made" / "for it").exists()


def test_places_that_cannot_be_written(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="is a file"):
        Pipeline([Length()]).run(corpus, tmp_path / "file")
    with pytest.raises(InputError, match="Cannot write"):
        Pipeline([Length()]).run(corpus, tmp_path / "file" / "out")
    with pytest.raises(InputError, match="Cannot write '/proc"):
        Pipeline([Length()]).run(corpus, "/proc/pilotfish")
    with pytest.raises(ConfigError, match="lies in the output folder"):
        Pipeline([Length()]).run(corpus, corpus)


def test_an_output_folder_inside_the_input_folder(tmp_path: Path) -> None:
    """Its shards are no input of the run that goes on; a file that was named is one."""
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 10)
    done = Pipeline([Length()]).run(tmp_path, tmp_path / "curated")
    again = Pipeline([Length()]).run(tmp_path, tmp_path / "curated")
    assert (done.rows_read, again.created) == (10, done.created)
    shard = tmp_path / "curated" / "part-00000.jsonl"
    with pytest.raises(ConfigError, match="lies in the output folder"):
        Pipeline([Length()]).run([tmp_path / "a.jsonl", shard], tmp_path / "curated")


def test_a_disk_that_fills_up_is_told_and_what_is_finished_is_kept(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pilotfish.curate.formats import writing

    real = writing.merged
    calls = 0

    def full(*given: Any) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(28, "No space left on device")
        return real(*given)

    monkeypatch.setattr(writing, "merged", full)
    with pytest.raises(InputError, match=r"No space left on device(?s:.*)same command again"):
        Pipeline(STEPPED).run(corpus, tmp_path / "out", shard_bytes=50_000)
    assert len(list((tmp_path / "out").glob("part-*"))) == 2
    assert not list((tmp_path / "out").glob(".writing-*"))
    result = Pipeline(STEPPED).run(corpus, tmp_path / "out", shard_bytes=50_000)
    assert result.resumed > 2
    assert rows(tmp_path / "out") == by_hand(documents(3000))


class _Wrong:
    name = "wrong"

    def __init__(self, verdict: Any) -> None:
        self.verdict = verdict

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        return self.verdict(batch)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (lambda batch: Verdict({"x": pa.array([1])}), "1 column 'x' values for 2 rows"),
        (lambda batch: Verdict({}, pa.array(["a"])), "1 reasons values for 2 rows"),
        (lambda batch: Verdict({}, None, pa.array([0.5])), "1 margin values for 2 rows"),
        (lambda batch: Verdict({"row": batch["row"]}), "reserved"),
        (lambda batch: Verdict({"text": pa.array([1, 2])}), "texts of type int64"),
    ],
)
def test_a_step_that_breaks_its_promise_is_named(tmp_path: Path, verdict: Any, words: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    with pytest.raises(ConfigError, match=f"'wrong'.*{words}"):
        Pipeline([_Wrong(verdict)]).run(tmp_path / "a.jsonl", tmp_path / "out")


def test_a_sample_has_rows(corpus: Path) -> None:
    with pytest.raises(ConfigError, match="sample of 0 rows"):
        Pipeline([Length()]).sample(corpus, rows=0)


def test_an_error_in_a_step_says_where(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(ZeroDivisionError) as raised:
        Pipeline([_Wrong(lambda batch: 1 // 0)]).run(tmp_path / "a.jsonl", tmp_path / "out")
    assert raised.value.__notes__ == ["In the step 'wrong', on 1 rows from 0 to 0."]


def test_a_step_that_cannot_be_sent_to_workers_is_told(corpus: Path, tmp_path: Path) -> None:
    class Local(_Wrong):
        pass

    step = Local(lambda batch: Verdict({}))
    with pytest.raises(ConfigError, match=r"cannot be sent(?s:.*)top of a module"):
        Pipeline([step]).run(
            corpus, tmp_path / "out", engine="processes", workers=2, shard_bytes=50_000
        )


def test_things_that_are_no_steps() -> None:
    with pytest.raises(ConfigError, match="as a step"):
        Pipeline([np.mean])  # type: ignore[list-item]
    assert pf.curate.Pipeline is Pipeline
    assert "length" in STEPS
