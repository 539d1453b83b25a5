"""Data sets: every form is read, labels are words, files can be handed on."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from pilotfish.config import Config
from pilotfish.errors import InputError, MissingModel
from pilotfish.models.catalogue import CATALOGUE, Entry, File, folder
from pilotfish.models.datasets import (
    READERS,
    TREC_NAMES,
    Row,
    load_dataset,
    materialise,
    paths,
    read,
)


def entry_of(reader: str, files: dict[str, tuple[bytes, str]], place: Path) -> Entry:
    """An entry with these files (content, split), written to their place."""
    rows = []
    for name, (content, split) in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
        rows.append(File(name, len(content), "0" * 64, split=split))
    return Entry("tiny", "data", "Tiny", "CC0-1.0", "", tuple(rows), 1, reader)


def test_tab_separated(tmp_path: Path) -> None:
    long = "x" * 300_000
    content = f'text\tlabel\n"He said ""hi"",\nloudly"\tgreeting\n{long}\tlöng\n'.encode()
    entry = entry_of("tsv", {"t.tsv": (content, "train")}, tmp_path)
    assert list(read(entry, tmp_path)) == [
        Row('He said "hi",\nloudly', "greeting", "train"),
        Row(long, "löng", "train"),
    ]


def test_trec_names_are_restored(tmp_path: Path) -> None:
    """The questions are the oracle: they say themselves what they ask for."""
    content = (
        b"text\tlabel\nWho painted Olympia ?\tENTY:color\nHow hot is lava ?\tNUM:money\n"
        b"What color is ash ?\tENTY:symbol\nWhat does NASA stand for ?\tENTY:body\n"
    )
    entry = entry_of("tsv-trec", {"t.tsv": (content, "test")}, tmp_path)
    assert [row.label for row in read(entry, tmp_path)] == [
        "person", "temperature", "color", "expansion of abbreviation",
    ]  # fmt: skip
    assert len(TREC_NAMES) == len(set(TREC_NAMES.values())) == 47


def test_the_newsgroup_in_the_text_is_cut(tmp_path: Path) -> None:
    content = (
        b"text\tlabel\nNewsgroup:sci.spaceDocument_id: 60From: a@b\tsci.space\n"
        b"Newsgroup:sci.spacedocument_id: 61Subject: sci.space\tsci.space\n"
    )
    entry = entry_of("tsv-newsgroups", {"t.tsv": (content, "train")}, tmp_path)
    assert [row.text for row in read(entry, tmp_path)] == ["From: a@b", "Subject: sci.space"]


def test_yahoo_line_breaks(tmp_path: Path) -> None:
    entry = entry_of("tsv-yahoo", {"t.tsv": (b"text\tlabel\na\\nb\tHealth\n", "train")}, tmp_path)
    assert [row.text for row in read(entry, tmp_path)] == ["a\nb"]


def test_arrow_numbers_become_names(tmp_path: Path) -> None:
    table = pa.table({"sentence": ["good ", "bad "], "label": [1, 0], "idx": [0, 1]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    entry = entry_of("arrow-sst2", {"t.arrow": (sink.getvalue().to_pybytes(), "test")}, tmp_path)
    assert list(read(entry, tmp_path)) == [
        Row("good", "positive", "test"),
        Row("bad", "negative", "test"),
    ]


def test_comma_separated_sets_are_split_by_position(tmp_path: Path) -> None:
    sms = ",spam,text\n" + "".join(f"{i},{int(i == 3)},m{i}\n" for i in range(10))
    entry = entry_of("csv-sms", {"s.csv": (sms.encode(), "")}, tmp_path)
    rows = list(read(entry, tmp_path))
    assert [row.text for row in rows if row.split == "test"] == ["m4", "m9"]
    assert [row.text for row in rows if row.label == "spam"] == ["m3"]
    imdb = "review,sentiment\n" + "a<br />b,positive\n" * 25_000 + "c,negative\n"
    entry = entry_of("csv-imdb", {"i.csv": (imdb.encode(), "")}, tmp_path)
    rows = list(read(entry, tmp_path))
    assert rows[0] == Row("a\nb", "positive", "train")
    assert rows[-1] == Row("c", "negative", "test")
    assert sum(row.split == "train" for row in rows) == 25_000


def test_every_reader_is_used_and_every_form_has_a_reader() -> None:
    used = {entry.reader for entry in CATALOGUE.values() if entry.kind == "data"}
    assert used == set(READERS)


def test_materialise_writes_json_lines_once(tmp_path: Path) -> None:
    entry = entry_of(
        "tsv",
        {
            "raw/a.tsv": ("text\tlabel\né\tx\n".encode(), "train"),
            "raw/b.tsv": (b"text\tlabel\nb\ty\n", "test"),
        },
        tmp_path,
    )
    written = materialise(entry, tmp_path)
    assert written == [tmp_path / "train.jsonl", tmp_path / "test.jsonl"] == paths(tmp_path)
    assert json.loads(written[0].read_text("utf-8")) == {"text": "é", "label": "x"}
    stamp = written[0].stat().st_mtime_ns
    assert materialise(entry, tmp_path) == written
    assert written[0].stat().st_mtime_ns == stamp, "nothing changed, nothing is written"
    other = materialise(entry, tmp_path, tmp_path / "to" / "here")
    assert [path.read_text("utf-8") for path in other] == [p.read_text("utf-8") for p in written]


def test_a_set_without_train_has_one_file(tmp_path: Path) -> None:
    entry = entry_of("tsv", {"b.tsv": (b"text\tlabel\nb\ty\n", "test")}, tmp_path)
    assert materialise(entry, tmp_path) == [tmp_path / "test.jsonl"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.tsv", "test.jsonl"]


def test_load_dataset_errors(tmp_path: Path) -> None:
    config = Config(cache_dir=tmp_path)
    with pytest.raises(MissingModel, match="pilotfish pull trec"):
        load_dataset("trec", config)
    with pytest.raises(InputError, match=r"(?s)no data set.*stackoverflow"):
        load_dataset("smollm2-135m", config)


SIZES = {
    "banking77": (9_003, 3_080, 77),
    "clinc150": (18_000, 2_250, 150),
    "hwu64": (7_712, 1_032, 64),
    "stackoverflow": (11_996, 5_991, 20),
    "trec": (4_849, 490, 47),
    "dbpedia": (7_000, 2_000, 219),
    "yahoo": (7_000, 2_000, 10),
    "20newsgroups": (7_000, 2_000, 20),
    "sst2": (0, 872, 2),
    "imdb": (25_000, 25_000, 2),
    "sms-spam": (3_870, 967, 2),
}


@pytest.mark.pulled
@pytest.mark.parametrize("name", SIZES)
def test_pulled_sets_have_their_sizes_and_labels_in_words(name: str) -> None:
    config = Config()
    if not all((folder(CATALOGUE[name], config) / f.name).exists() for f in CATALOGUE[name].files):
        pytest.skip(f"pilotfish pull {name}")
    table = load_dataset(name, config)
    assert table.column_names == ["text", "label", "split"]
    splits = table["split"].to_pylist()
    labels = set(table["label"].to_pylist())
    assert (splits.count("train"), splits.count("test"), len(labels)) == SIZES[name]
    assert all(any(c.isalpha() for c in label) for label in labels)
    assert all(text.strip() for text in table["text"].to_pylist())


@pytest.mark.pulled
def test_restored_trec_names_fit_the_questions() -> None:
    """Words in the questions decide; 9 of 10 must fit for every cue."""
    config = Config()
    table = load_dataset("trec", config)
    rows = list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
    for cue, label in {
        "Who ": {"person", "description", "group or organisation", "other"},
        "How many ": {"count"},
        "When ": {"date", "period"},
        "Why ": {"reason"},
        "What country ": {"country"},
        "What city ": {"city"},
        "What color ": {"color"},
        "How do ": {"manner"},
    }.items():
        found = [said for text, said in rows if text.startswith(cue)]
        assert len(found) > 5
        assert sum(said in label for said in found) >= 0.9 * len(found), cue
