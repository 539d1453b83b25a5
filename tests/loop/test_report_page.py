"""The report's page: nothing from outside, plots for every outcome, readable at any width and printed."""

from __future__ import annotations

import dataclasses
import html
import http.server
import json
import re
import subprocess
import threading
from html.parser import HTMLParser

import pytest

from pilotfish.loop import result as r
from pilotfish.loop.report import render_report, write_report
from tests.browser import BROWSER, QUIET, needs_browser
from tests.loop.sample_reports import bare, terminal_text, uncertified


@pytest.fixture(scope="module")
def pages():
    """A page with the longest words there can be, and others."""
    from tests.loop.conftest import sample_outcome as outcome

    word = "x" * 400
    long = outcome(
        name=word,
        warnings=[word],
        command=word,
        task=r.TaskInfo(prompt=word, labels=[word]),
        large=dataclasses.replace(outcome().large, name=word),
        per_class=[r.ClassRow(label=word, share=1.0, served=0.5, agreement=0.9, n=3)],
        disagreements=[r.Disagreement(text=word, small=word, large=word, score=0.3)],
        race=[r.RaceEntry(student=word, coverage=0.5, agreement=0.5, chosen=True)],
    )
    return [render_report(made) for made in (outcome(), uncertified(outcome), long, bare())]


def test_texts_are_escaped_everywhere(outcome):
    evil = "<img src=x onerror=alert(1)>\"'&</script></style>{{ 7*7 }}$x^2$"
    made = outcome(
        name=evil,
        warnings=[evil],
        command=evil,
        artifact=evil,
        task=r.TaskInfo(prompt=evil, labels=[evil]),
        large=r.LargeModel(name=evil, p50_ms=3.0),
        per_class=[r.ClassRow(label=evil, share=1.0, served=0.5, agreement=0.9, n=3)],
        disagreements=[r.Disagreement(text=evil * 20, small=evil, large=evil, score=0.3)],
        race=[r.RaceEntry(student=evil, note=evil)],
        hardware={"cpu": evil},
        versions={evil: evil},
        seconds={evil: 1.0},
    )
    page = render_report(made)

    found = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.add(tag)
            assert not [name for name, _ in attrs if name.startswith("on")]

    Tags().feed(page)
    assert not found & {"img", "script", "iframe", "object"}
    assert "{{ 7*7 }}" in page
    assert html.escape("<img src=x", quote=False) in page


def test_the_page_asks_nobody_for_anything(pages):
    page = pages[0]
    urls = set(re.findall(r"https?://[^\s\"'<>)]+", page))
    assert urls == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }  # names, not links
    assert "@import" not in page
    assert "url(" not in re.sub(r"url\(#\w+\)", "", page)
    assert "default-src 'none'" in page


def test_plots_follow_the_theme_and_say_what_they_show(outcome, pages):
    page = pages[0]
    plots = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    assert len(plots) == 10  # five, each for wide and for narrow screens
    for plot in plots:
        assert re.search(r'role="img" aria-label="[^"]{40,}"', plot)
        assert not re.search(r"#[0-9a-f]{6}\b", plot), "a colour that no theme can change"
        assert "<text" in plot
        assert "DejaVu" not in plot
        assert "<style" not in plot
    ids = re.findall(r'<(?:clipPath|path|g) id="(m[0-9a-f]{8,}|p[0-9a-f]{8,})"', page)
    assert ids
    assert len(ids) == len(set(ids)), "two plots share an id"
    assert "card_arrival" in plots[2]
    assert page == render_report(outcome())


@pytest.mark.parametrize("number", [0, 1, 64])
def test_plots_degrade_with_any_number_of_classes(number):
    rows = [r.ClassRow(label=f"class {i} $", share=0.1, served=0.5) for i in range(number)]
    page = render_report(dataclasses.replace(bare(), per_class=rows))
    assert page.count("<svg") == (2 if number else 0)
    assert ("No classes were recorded." in page) == (number == 0)
    assert ("16 most frequent of 64" in page) == (number == 64)
    assert page.count("<tr><td>class ") == number


def test_an_empty_outcome_still_makes_a_page_and_a_table(tmp_path):
    page = render_report(bare())
    for said in ("There is no curve", "No times were measured", "Nothing was accounted"):
        assert said in page
    assert "<svg" not in page
    assert "No threshold could be certified" in terminal_text(bare(), 60)
    write_report(bare(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text("utf-8") == page


def test_broken_figures_do_not_break_the_plots(outcome):
    curve = [{"threshold": 0.5, "coverage": 0.5, "risk": None, "bound": None}] * 3
    made = outcome(
        latency=r.Latency(
            small=r.Percentiles(p50_ms=0.0), large=r.Percentiles(p50_ms=5.0, p95_ms=2.0)
        ),
        waterfall=[
            r.WaterfallItem(item="always-large", calls=0),
            r.WaterfallItem(item="net", calls=0),
        ],
    )
    made.certificate["curve"] = curve
    page = render_report(made)
    assert "There is no curve" in page
    assert "Time of one answer, logarithmic axis. gpt-4.1: 5 ms" in page


def test_long_texts_are_folded_and_many_are_cut():
    one = r.Disagreement(text="ab " * 500_000, small="a", large="b", score=0.5)
    page = render_report(dataclasses.replace(bare(), disagreements=[one] * 25))
    assert len(page) < 1_500_000
    assert page.count('class="example"') == 20
    assert "5 more are in the result" in page
    assert "Full text, 1,500,000 characters" in page


def browse(tmp_path, target, *options):
    done = subprocess.run(
        [BROWSER, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", *options, target],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def requests_of_the_page(log):
    """URLs that a document asked for; the browser's own errands have no origin."""
    found = set()
    for event in json.loads(log.read_text("utf-8"))["events"]:
        params = event.get("params", {})
        if params.get("initiator", "not an origin") != "not an origin":
            found.add(params.get("url", ""))
    return {url for url in found if url.startswith(("http", "ws"))}


@needs_browser
def test_chromium_shows_every_page_without_sideways_scrolling(tmp_path, pages):
    measure = (
        "<script>onload = () => { const d = document.documentElement; parent.postMessage("
        "{id: window.name, over: d.scrollWidth - d.clientWidth, "
        "head: document.getElementById('headline').getBoundingClientRect().height, "
        "plots: [...document.querySelectorAll('svg')].filter(s => s.clientHeight > 20).length}, '*')}"
        "</script>"
    )
    frames = []
    for width in (320, 400, 800, 1200):
        for number, page in enumerate(pages):
            page = re.sub(r"<meta http-equiv=.Content-Security-Policy.*?>", "", page) + measure
            source = html.escape(page, quote=True)
            frames.append(
                f'<iframe name="{number}@{width}" style="width:{width}px" srcdoc="{source}"></iframe>'
            )
    wrapper = tmp_path / "all.html"
    listen = (
        "<pre id=o></pre><script>onmessage = e => "
        "{ document.getElementById('o').textContent += JSON.stringify(e.data) + '\\n' }</script>"
    )
    wrapper.write_text("<!DOCTYPE html>" + listen + "".join(frames), "utf-8")
    dom = browse(tmp_path, wrapper.as_uri(), "--dump-dom", "--virtual-time-budget=8000")
    body = re.search(r'<pre id="o">(.*?)</pre>', dom, re.S)
    assert body is not None
    seen = [json.loads(html.unescape(line)) for line in body[1].splitlines() if line]
    assert len(seen) == len(frames)
    assert [one for one in seen if one["over"] > 0] == []
    assert all(one["head"] > 20 for one in seen)
    assert {one["plots"] for one in seen if one["id"].startswith("0@")} == {5}


@needs_browser
def test_the_printed_page_is_laid_out_for_paper(tmp_path, outcome):
    """Not as on a telephone, one plot to a page, which took seven pages."""
    page, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    page.write_text(render_report(outcome(disagreements=[])), "utf-8")
    browse(tmp_path, page.as_uri(), f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    pages = len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))
    assert 1 <= pages <= 4


@needs_browser
def test_chromium_makes_no_request_for_the_page(tmp_path, pages):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        image = f'<img src="http://127.0.0.1:{server.server_port}/leak.png">'
        control, real, guarded = (tmp_path / name for name in ("c.html", "r.html", "g.html"))
        control.write_text(f"<!DOCTYPE html>{image}", "utf-8")
        real.write_text(pages[0], "utf-8")
        guarded.write_text(pages[0].replace("</main>", image + "</main>"), "utf-8")
        found = {}
        for path in (control, real, guarded):
            log = tmp_path / "net.json"
            browse(tmp_path, path.as_uri(), "--dump-dom", f"--log-net-log={log}")
            found[path.name] = requests_of_the_page(log)
    finally:
        server.shutdown()
        server.server_close()
    assert found["r.html"] == set()
    assert [url[-9:] for url in found["c.html"]] == ["/leak.png"]
    assert asked == ["/leak.png"]  # the page's policy stops even an image that was planted in it
