"""Reading the user's file: what is accepted, what is refused and why, and what ends the run."""

from __future__ import annotations

import csv
import decimal
import gzip
import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotfish.errors import InputError
from pilotfish.loop.rows import Reject, Template, read_rows, write_rejects
from pilotfish.sources import likely_encoding

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(
    lambda text: text.strip() != ""
)
GERMAN = "Die Größe der Straße überrascht Käufer, sagt Jörg. "
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. "


def lay(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def rejected(rows):
    return [(reject.line, reject.reason) for reject in rows.rejects]


def test_jsonl_refuses_each_bad_row_for_its_own_reason(tmp_path):
    lines = [
        b'{"text": "good", "n": 1}',
        b"{broken",
        b"[1, 2]",
        b'{"other": 1}',
        b'{"text": null}',
        b'{"text": ["a"]}',
        b'{"text": "  \\n "}',
        b'{"text": "caf\xe9"}',
        b'{"text": "half \\ud83d pair"}',
        b'{"text": "a\\u0000b"}',
        b"",
        b'{"text": "' + b"x" * 2000 + b'"}',
        b'{"text": 3.5, "late": NaN}',
        b'{"text": true}\r',
        b'{"text": "raw\x00nul"}',
        b'{"text": NaN}',
        b"[" * 50_000,
    ]
    rows = read_rows(lay(tmp_path, "a.jsonl", b"\n".join(lines)), fields=["text"], max_bytes=1000)
    assert rows.columns["text"] == ["good", 3.5, True]
    assert rows.columns["n"] == [1, None, None]
    assert rows.line == [1, 13, 14]
    assert rows.read == len(lines) - 1  # the blank line is no row
    assert rejected(rows) == [
        (2, "not-json"),
        (3, "not-an-object"),
        (4, "missing-field:text"),
        (5, "missing-field:text"),
        (6, "not-text"),
        (7, "empty-text"),
        (8, "bad-encoding"),
        (9, "bad-encoding"),
        (10, "not-text"),
        (12, "too-long"),
        (15, "not-json"),
        (16, "missing-field:text"),
        (17, "too-long"),
    ]
    assert rows.reasons["bad-encoding"] == 2
    assert all(len(reject.text) <= 200 for reject in rows.rejects)


def test_deep_nesting_is_refused_not_followed(tmp_path):
    deep = '{"text": "ok"}\n' + '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}\n"
    rows = read_rows(lay(tmp_path, "a.jsonl", deep), fields=["text"])
    assert rejected(rows) == [(2, "not-json")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gz"])
def test_text_formats_and_encodings_give_the_same_rows(tmp_path, name, encoding):
    texts = ["Größe", "日本語 😀", 'with "quotes", commas; and more', "plain"]
    out = io.StringIO()
    if name == "a.jsonl":
        out.writelines(json.dumps({"text": t, "k": "v"}, ensure_ascii=False) + "\n" for t in texts)
    elif name == "a.json":
        json.dump([{"text": t, "k": "v"} for t in texts], out, indent=1, ensure_ascii=False)
    else:
        writer = csv.writer(out, delimiter="\t" if name == "a.tsv" else ",")
        writer.writerows([["text", "k"], *([t, "v"] for t in texts)])
    if encoding == "gz":
        path = lay(tmp_path, name + ".gz", gzip.compress(out.getvalue().encode()))
    else:
        path = lay(tmp_path, name, out.getvalue().encode(encoding))
    rows = read_rows(path, fields=["text"])
    assert rows.columns == {"text": texts, "k": ["v"] * 4}
    assert rows.rejects == []


def test_parquet_with_every_scalar_and_a_broken_string(tmp_path):
    broken = pa.Array.from_buffers(
        pa.string(), 2, pa.array([b"caf\xe9", b"ok"], pa.binary()).buffers()
    )
    path = tmp_path / "a.parquet"
    columns = {
        "text": pa.concat_arrays([broken, pa.array(["x", None, " "])]),
        "price": pa.array([decimal.Decimal("1.50")] * 5),
        "topic": pa.array(["a", "b", "a", "b", "a"]).dictionary_encode(),
        "tags": [["p"], [], None, [], []],
        "raw": pa.array([b"ok"] * 5),
    }
    pq.write_table(pa.table(columns), path)
    rows = read_rows(path, fields=["text"])
    assert rejected(rows) == [(1, "bad-encoding"), (4, "missing-field:text"), (5, "empty-text")]
    assert rows.row(0) == {"text": "ok", "price": "1.50", "topic": "b", "tags": [], "raw": "ok"}
    assert rows.line == [2, 3]
    only = read_rows(path, fields=["text"], keep=["topic"])
    assert list(only.columns) == ["text", "topic"]


def test_csv_newlines_in_quotes_line_numbers_and_wrong_columns(tmp_path):
    data = 'text,label\n"two\nlines",a\nx,y,z\n"He said ""hi""",b\nshort\n\n,\nlast,c\n'
    rows = read_rows(lay(tmp_path, "a.csv", data), fields=["text"])
    assert rows.columns["text"] == ["two\nlines", 'He said "hi"', "last"]
    assert rows.line == [2, 5, 9]
    assert rejected(rows) == [(4, "wrong-columns"), (6, "wrong-columns"), (8, "empty-text")]


def test_an_unclosed_quote_costs_one_row_not_the_rest(tmp_path):
    data = 'text,label\none,a\n"two,b\nthree,c\nfour,d\n'
    rows = read_rows(lay(tmp_path, "a.csv", data), fields=["text"])
    assert rows.columns["text"] == ["one", "three", "four"]
    assert rejected(rows) == [(3, "unclosed-quote")]
    long = "text,label\n" + '"two,b\n' + "more,c\n" * 500
    rows = read_rows(lay(tmp_path, "b.csv", long), fields=["text"], max_bytes=1000)
    assert len(rows) == 500
    assert rejected(rows) == [(2, "unclosed-quote")]


def test_tsv_lines_with_stray_quotes_stay_apart(tmp_path):
    data = 'text\tlabel\n"hello\ta\n"world\tb\n"a ""b"""\tc\n"new\nline"\td\n'
    rows = read_rows(lay(tmp_path, "a.tsv", data), fields=["text"])
    assert rows.columns["text"] == ['"hello', '"world', 'a "b"', "new\nline"]
    assert rows.line == [2, 3, 4, 5]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_finds_its_delimiter(tmp_path, delimiter):
    data = f"id{delimiter}my text\n1{delimiter}hello\n"
    rows = read_rows(lay(tmp_path, "a.csv", data), fields=["my text"])
    assert rows.columns == {"id": ["1"], "my text": ["hello"]}


def test_csv_prefers_the_delimiter_that_finds_the_fields(tmp_path):
    rows = read_rows(lay(tmp_path, "a.csv", "a,b,c;text\n1;x\n"), fields=["text"])
    assert rows.columns == {"a,b,c": ["1"], "text": ["x"]}


def test_latin_1_rows_are_refused_and_the_rest_is_kept(tmp_path):
    good = b"text,k\n" + b"plain,1\n" * 3 + "Stra\xdfe,2\n".encode("latin-1") + b"end,3\n"
    rows = read_rows(lay(tmp_path, "a.csv", good), fields=["text"])
    assert len(rows) == 4
    assert rejected(rows) == [(5, "bad-encoding")]


@pytest.mark.parametrize(
    ("encoding", "text", "name"),
    [
        ("latin-1", GERMAN, "WINDOWS-1252"),
        ("cp1251", RUSSIAN, "WINDOWS-1251"),
        ("shift_jis", "これは日本語の文章です。とても短いです。", "SHIFT_JIS"),
        ("gb18030", "这是一个用于测试的中文句子。", "GB18030"),
    ],
)
def test_a_file_in_another_encoding_is_named_with_the_remedy(tmp_path, encoding, text, name):
    data = b"text\n" + (text * 3 + "\n").encode(encoding) * 5
    with pytest.raises(InputError, match=f"5 of 5 rows.*not UTF-8[^$]*iconv -f {name} ") as caught:
        read_rows(lay(tmp_path, "a.csv", data), fields=["text"])
    assert likely_encoding((text * 3).encode(encoding)) == name
    assert str(tmp_path / "a.csv") in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\n \n", "holds no rows"),
        ("a.csv", b"text,label\n", "holds no rows"),
        ("a.csv", b"text,text\na,b\n", "names a column twice: text"),
        ("a.csv", b"hello there,3\nmore,4\n", r"column 'text'[^$]*must name the columns"),
        ("a.csv", b"Text,label\na,b\n", r"No row .* 'text'. Did you mean 'Text'"),
        ("a.jsonl", b'{"txt": "a"}\n{"title": "b"}\n', r"Did you mean 'txt'.*\n.*title, txt"),
        ("a.jsonl", b'{"text": null}\n', "None of the 1 rows.*missing-field:text"),
        ("a.jsonl", b"text,label\na,b\n", "None of the 2 rows.*not-json"),
        ("a.jsonl", b"PAR1\x15\x04\x00", "is a Parquet file"),
        ("a.csv", b"PK\x03\x04\x14\x00xxxx", "ZIP archive or an Excel"),
        ("a.csv", bytes(range(256)) * 8, "binary file"),
        ("a.csv", "text\nhello\n".encode("utf-16-le"), "looks like UTF-16LE"),
        ("a.csv", "text\nhello\n".encode("utf-32"), "is UTF-32"),
        ("a.csv", b"text,label\ra,b\rc,d\r", "carriage returns alone"),
        ("a.csv", b"text,l\xe4bel\na,b\n", "first line.*not UTF-8"),
        ("a.json", b'[{"text": "a"}', "not a JSON array"),
        ("a.json", b"[" * 100_000, "not a JSON array"),
        ("a.parquet", b"text,label\n", "cannot be read as Parquet"),
        ("a.xlsx", b"PK", "does not say which format"),
        ("a", b"text", "does not say which format"),
        ("a.jsonl.gz", b"no gzip", "not a complete gzip"),
        ("a.jsonl.gz", gzip.compress(os.urandom(9999))[:5000], "complete gzip|binary"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, name, data, said):
    with pytest.raises(InputError, match=said):
        read_rows(lay(tmp_path, name, data), fields=["text"])


def test_no_file_a_folder_and_an_unknown_format(tmp_path):
    with pytest.raises(InputError, match="No file at"):
        read_rows(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a folder"):
        read_rows(tmp_path)
    with pytest.raises(InputError, match="expected one of jsonl"):
        read_rows(lay(tmp_path, "a.csv", "a"), format="xml")
    with pytest.raises(InputError, match="looks like data"):
        read_rows(lay(tmp_path, "a.csv", "12,hello\n13,there\n"))


def test_columns_keep_the_order_of_the_file(tmp_path):
    names = [f"column {i}" for i in range(30)]
    data = json.dumps(dict.fromkeys(names, 1)) + "\n" + json.dumps({"late": 1, "later": 2})
    rows = read_rows(lay(tmp_path, "a.jsonl", data))
    assert list(rows.columns) == [*names, "late", "later"]
    assert rows.columns["late"] == [None, 1]


def test_format_overrides_the_suffix_and_limit_stops_early(tmp_path):
    data = "".join(f'{{"text": "t{i}"}}\n' for i in range(50)) + "broken"
    rows = read_rows(lay(tmp_path, "a.log", data), fields=["text"], format="jsonl", limit=7)
    assert rows.columns["text"] == [f"t{i}" for i in range(7)]
    assert rows.read == 7


def test_rejects_file_has_line_reason_and_text(tmp_path):
    rejects = [Reject(3, "not-json", 'a "b" ü\n'), Reject(9, "empty-text", "")]
    write_rejects(rejects, tmp_path / "r.jsonl")
    found = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text("utf-8").splitlines()]
    assert found == [
        {"line": 3, "reason": "not-json", "text": 'a "b" ü\n'},
        {"line": 9, "reason": "empty-text", "text": ""},
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
def test_a_line_of_100_mb_is_refused_without_holding_it(tmp_path, name):
    path = tmp_path / name
    with path.open("wb") as out:
        out.write(b'{"text": "first"}\n' if name == "a.jsonl" else b"text\nfirst\n")
        for _ in range(100):
            out.write(b"x" * 1_000_000)
        out.write(b'\n{"text": "last"}\n' if name == "a.jsonl" else b"\nlast\n")
    code = (
        "import resource, sys; from pilotfish.loop.rows import read_rows; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "rows = read_rows(sys.argv[1], fields=['text']); "
        "assert rows.columns['text'] == ['first', 'last'], rows.columns; "
        "assert [r.reason for r in rows.rejects] == ['too-long']; "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scale = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * scale < 16e6


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDS, st.text(st.characters(codec="utf-8"))), min_size=1, max_size=8))
def test_any_unicode_survives_jsonl(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    with path.open("w", encoding="utf-8", newline="") as out:
        for text, other in pairs:
            out.write(json.dumps({"text": text, "o": other}, ensure_ascii=False) + "\n")
    rows = read_rows(path, fields=["text"])
    assert rows.columns == {"text": [t for t, _ in pairs], "o": [o for _, o in pairs]}


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8))
def test_any_unicode_survives_csv_and_parquet(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("rows")
    columns = {"text": [t for t, _ in pairs], "o": [o for _, o in pairs]}
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([("text", "o"), *pairs])
    pq.write_table(pa.table(columns), folder / "a.parquet")
    assert read_rows(folder / "a.csv", fields=["text"]).columns == columns
    assert read_rows(folder / "a.parquet", fields=["text"]).columns == columns


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=400), suffix=st.sampled_from(["jsonl", "json", "csv", "tsv"]))
def test_any_bytes_give_rows_or_an_input_error(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("rows") / f"a.{suffix}"
    path.write_bytes(data)
    try:
        rows = read_rows(path, max_bytes=100)
    except InputError:
        return
    assert rows.read == len(rows) + len(rows.rejects) > 0
    assert all(len(column) == len(rows) for column in rows.columns.values())


NAMES = st.lists(
    st.text(st.characters(categories=["L", "N"], include_characters=" _-"), min_size=1)
    .map(str.strip)
    .filter(bool),
    min_size=1,
    max_size=4,
)


@given(
    names=NAMES,
    values=st.lists(st.text("abc {}\n"), min_size=4, max_size=4),
    separators=st.lists(st.text("XYZ{}|", min_size=1), min_size=5, max_size=5),
)
def test_match_inverts_render_when_separators_are_not_in_the_values(names, values, separators):
    # A separator of braces alone could be in a value, so each carries one capital letter.
    separators = [s + "X" for s in separators]
    places = [
        separators[i].replace("{", "{{").replace("}", "}}") + "{" + name + "}"
        for i, name in enumerate(names)
    ]
    end = separators[4].replace("{", "{{").replace("}", "}}")
    template = Template("".join(places) + end)
    row = dict(zip(names, values, strict=False))
    assert template.fields == tuple(dict.fromkeys(names))
    assert template.match(template.render(row)) == row
    assert template.match("?" + template.render(row)) is None


def test_match_of_repeated_and_adjacent_fields_and_of_text_after_the_last():
    twice = Template("{a} is {a}, says {b}")
    assert twice.match("x is x, says y") == {"a": "x", "b": "y"}
    assert twice.match("x is z, says y") is None
    assert Template("{a}{b}").match("xy") == {"a": "", "b": "xy"}
    assert Template("Q: {q}\nA:").match("Q: what\nA: no\nA:") == {"q": "what\nA: no"}
    assert Template("ab{q}ba").match("aba") is None


def test_render_and_input_text_of_scalars():
    template = Template("Price {{eur}} of {item} is {price}: {sold}")
    row = {"item": "fish", "price": 2.5, "sold": False, "more": 1}
    assert template.render(row) == "Price {eur} of fish is 2.5: false"
    assert template.input_text(row) == "item: fish\nprice: 2.5\nsold: false"
    with pytest.raises(InputError, match=r"uses \{item\}, but the row has \['price'\]"):
        template.render({"price": 1})


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("Classify {text", "unbalanced '{' at character 10"),
        ("Classify text}", "unbalanced '}'"),
        ("{{text}", "unbalanced '}'"),
        ("Say {text!r}", "expected a plain column name"),
        ("Say {text:>10}", "expected a plain column name"),
        ('Answer {"label": 1} for {text}', "expected a plain column name"),
        ("Say {}", "expected a plain column name"),
        ("Say {row[0]}", "expected a plain column name"),
        ("No place", r"has no \{field\}"),
        ("", r"has no \{field\}"),
        ("{{text}}", r"has no \{field\}"),
    ],
)
def test_a_prompt_that_is_no_template_says_what_to_write(prompt, said):
    with pytest.raises(InputError, match=said) as caught:
        Template(prompt)
    assert caught.value.remedy


@given(st.text("{}a!:[ \n"))
def test_any_prompt_is_a_template_or_an_input_error(prompt):
    try:
        template = Template(prompt)
    except InputError:
        return
    row = dict.fromkeys(template.fields, "v")
    assert template.match(template.render(row)) is not None
