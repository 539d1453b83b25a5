"""The dashboard in a real Chromium: complete, quiet, refreshed in place, readable at every width."""

from __future__ import annotations

import html
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from pilotfish.gateway.pages import POLICY
from pilotfish.records import Completion, Decision, Request
from pilotfish.store import open_store
from pilotfish.store.feedback import Check, Feedback
from pilotfish.store.ledger import Day
from pilotfish.store.traffic_rows import Exchange
from tests.browser import chromium, needs_browser
from tests.gateway.sample_traffic import sample_traffic
from tests.gateway.serving import Running, serving

MODELS = {name: {"backend": "fake"} for name in ("tickets", "chat", "code")}
EVIL = "<img src=x onerror=alert(1)>\"'&</script>{{ 7*7 }}"


def fill(running: Running, minutes: int = 50) -> None:
    """An hour of traffic, a newest request full of markup, checks and feedback."""
    now = time.time()
    with open_store(running.store_url) as store:
        exchanges = list(sample_traffic(now - 5, minutes))
        small = [x for x in exchanges if x.completion and x.completion.model == "tickets-small"]
        store.traffic.add([*exchanges, evil(now - 2)])
        for number, one in enumerate(small[:60]):
            store.checks.add(
                Check(one.id, "tickets", "tickets-small", "gpt-4.1", number % 20 > 0, cost=0.00013)
            )
        store.ledger.commit({}, books(int(now // 86_400)))
        for number, one in enumerate(small[:12]):
            store.feedback.add(Feedback(one.id, score=0.0 if number == 3 else 1.0))


def books(today: int) -> list[Day]:
    """Three tasks: one that saves, one whose large model has no price, one that was only paid for."""
    busy = [
        Day(
            "which-team-handle-ticket", today - i, 4000 - 90 * i, 3100, 0.117, 0.52, 3, 155, 2, 0.02
        )
        for i in range(9)
    ]
    local = [
        Day("summary-of-the-call", today - i, 800, 640, 0, 0, 800, 32, 1, 0, 0, 0, 0, 32)
        for i in (0, 2)
    ]
    return [
        *busy,
        *local,
        Day("urgency-of-message", today, 60, 0, 0.0078, 0.0078, checks=4, checks_cost=0.4),
    ]


def evil(moment: float, **changes: Any) -> Exchange:
    values: dict[str, Any] = {
        "id": "req_e" + "0" * 23,
        "time": moment,
        "caller": "",
        "task": EVIL,
        "asked": "chat",
        "endpoint": "chat",
        "streamed": False,
        "status": 200,
        "error": "",
        "latency": 0.2,
        "first_byte": 0.2,
        "request": Request.of(EVIL),
        "completion": Completion(
            EVIL, EVIL, cost=0.001, decisions=(Decision(EVIL, EVIL, EVIL, 0.5, 0.6, (EVIL,)),)
        ),
        "baseline": 0.002,
    }
    return Exchange(**(values | changes))


class Tags(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes.update(name for name, _ in attrs)


def seen_text(page: str) -> str:
    page = re.sub(r"<(style|script|svg)\b.*?</\1>", " ", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_the_page_shows_everything_and_escapes_what_it_shows() -> None:
    with serving(MODELS) as running:
        fill(running)
        answer = running.client.get("/dashboard", params={"range": "1h"})
        assert answer.headers["content-security-policy"] == POLICY
        page = answer.text
        said = seen_text(page)
        for words in (
            "tickets-small",
            "Net saving",
            "for always large; net of failures and checks",
            "95% interval",
            "60 3 5.0% 1.7% to 13.7%",  # checked, differed, share, Wilson's interval
            "model_unavailable",
            "Feedback: 12 entries, mean score 0.92, 8.3% below 0.5",
            "did not keep tickets-small",
        ):
            assert words in said, words
        assert "{{ 7*7 }}" in page
        tags = Tags()
        tags.feed(page)
        assert not {"img", "style", "iframe", "form"} & tags.names
        assert not {name for name in tags.attributes if name.startswith("on") or name == "style"}
        assert set(re.findall(r"(?:src|href)=\"([^\"?]+)", page)) == {
            "data:,",
            "dashboard/style.css",
            "dashboard/script.js",
            "metrics",
            "openapi.json",
        }
        assert page.count("<th ") == len(re.findall(r'<th [^>]*scope="(?:col|row)"', page))


def test_data_holds_the_figures_and_the_same_sections() -> None:
    with serving(MODELS) as running:
        fill(running)
        data = running.client.get("/dashboard/data", params={"range": "24h"}).json()
        assert data["range"] == "24h"
        assert data["figures"]["requests"] == sum(
            row["requests"] for row in data["figures"]["answered"]
        )
        page = running.client.get("/dashboard", params={"range": "24h"}).text
        sections = re.findall(r'<section id="(\w+)"', data["html"])
        assert sections == re.findall(r'<section id="(\w+)"', page)


def test_texts_that_are_not_kept_are_not_shown() -> None:
    with serving(MODELS, store_texts=False) as running:
        answer = Completion("", "small", cost=0.1)
        with open_store(running.store_url) as store:
            store.traffic.add([evil(time.time(), task="", request=None, completion=answer)])
        said = seen_text(running.client.get("/dashboard").text)
        assert "Not kept." in said
        assert "Asked" not in said.partition("Latest requests")[2]


def test_an_empty_gateway_says_what_to_do_first() -> None:
    with serving(MODELS) as running:
        said = seen_text(running.client.get("/dashboard").text)
        assert "Nothing has been asked yet" in said
        command = re.search(r"curl (.*?)\}\]\}'", said)
        assert command is not None
        assert f"{running.base_url}/chat/completions" in command[0]
        assert '"model": "tickets"' in command[0]
        with open_store(running.store_url) as store:
            store.traffic.add([evil(time.time() - 7200)])
        time.sleep(2.1)
        said = seen_text(running.client.get("/dashboard").text)
        assert "No requests in the last hour" in said
        assert "look at a longer span" in said


MEASURED = """({
  over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  plot: document.querySelector(".plot").getBoundingClientRect().height,
  utc: [...document.querySelectorAll("time[data-epoch]")].filter(t => /UTC/.test(t.textContent)).length,
  small: [...document.querySelectorAll("td,th,dd,dt,p,span,time,b")].filter(t => t.checkVisibility() &&
    t.textContent.trim() && parseFloat(getComputedStyle(t).fontSize) < 12).length,
  paper: getComputedStyle(document.body).backgroundColor,
})"""
# Contrast of texts with what is behind them (WCAG 2.2, 1.4.3), for all that are seen.
CONTRAST = """(() => {
  const linear = x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const light = c => { const v = c.map(x => linear(x / 255));
    return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > .99) return c.slice(0, 3); } return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll("body *:not(svg *)")) {
    if (!e.checkVisibility() || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) found.push(e.tagName + "." + e.className + " " + ratio.toFixed(2));
  }
  return found;
})()"""


@needs_browser
def test_chromium_shows_it_at_every_width_in_light_and_dark(tmp_path: Path) -> None:
    with serving(MODELS) as running, chromium(tmp_path / "profile") as tab:
        fill(running)
        address = f"http://127.0.0.1:{running.port}/dashboard"
        papers = set()
        for width, span, dark in (
            (320, "1h", False),
            (390, "7d", True),
            (768, "24h", False),
            (1280, "1h", True),
        ):
            tab.open(f"{address}?range={span}", width=width, dark=dark)
            tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
            seen = tab.run(MEASURED)
            assert seen["over"] <= 0, (width, seen)
            assert seen["plot"] > 100
            assert (seen["utc"], seen["small"]) == (0, 0), (width, seen)
            assert tab.run(CONTRAST) == []
            tab.picture(tmp_path / f"{width}.png")  # for a look, should something fail
            papers.add((dark, seen["paper"]))
        assert len(papers) == 2
        assert {url.split("/")[2] for url in tab.asked} == {f"127.0.0.1:{running.port}"}
        assert tab.complaints == []


def test_the_account_of_the_tasks_is_net_and_says_what_it_does_not_know() -> None:
    with serving(MODELS) as running:
        fill(running, 3)
        page = running.client.get("/dashboard").text
        said = seen_text(page)
        assert "which-team-handle-ticket 32,760 85% $4.68 $1.05 $0.18 $3.45 27 26,505" in said
        assert "summary-of-the-call 1,600 80% unknown unknown unknown unknown 1,600 1,216" in said
        assert "urgency-of-message 60 0% $0.0078 $0.0078 $0.40 −$0.40 0 −4" in said
        assert "Together 34,420 85% $4.69 $1.06 unknown unknown 1,627 27,717" in said
        assert (
            said.index("Recurring tasks") < said.index("Day by day") < said.index("Does the small")
        )
        tasks = running.client.get("/dashboard/data").json()["tasks"]
        assert len(tasks) == 12
        assert [t["saving"] for t in tasks if t["task"] == "summary-of-the-call"] == [None, None]
        assert tasks == [day.to_dict() for day in running.gateway.store.ledger.days()]


def test_without_books_it_says_how_to_get_some() -> None:
    with serving(MODELS) as running:
        with open_store(running.store_url) as store:
            store.traffic.add([evil(time.time())])
        said = seen_text(running.client.get("/dashboard").text)
        assert "No books yet. pilotfish learn --watch beside the gateway" in said


@needs_browser
def test_chromium_shows_the_first_traffic_and_the_first_books_without_a_reload(
    tmp_path: Path,
) -> None:
    with serving(MODELS) as running, chromium(tmp_path / "profile") as tab:
        tab.open(f"http://127.0.0.1:{running.port}/dashboard?range=1h")
        assert tab.run("document.getElementById('empty') !== null")
        tab.run("document.documentElement.firstElementChild.marked = true")  # gone after a reload
        fill(running, 3)
        tab.until("document.querySelectorAll('#account tbody tr').length > 3")
        assert tab.run("document.getElementById('empty') === null")
        assert tab.run("document.documentElement.firstElementChild.marked")
        tab.run("document.querySelector('[data-key=days]').open = true")
        refreshed = tab.run("document.documentElement.dataset.refreshed")
        tab.until(f"document.documentElement.dataset.refreshed > {refreshed}")
        assert tab.run("document.querySelector('[data-key=days]').open")  # what is open stays open
        assert tab.complaints == []


@needs_browser
def test_chromium_refreshes_in_place_keeps_what_is_open_and_pauses(tmp_path: Path) -> None:
    with serving(MODELS) as running, chromium(tmp_path / "profile") as tab:
        fill(running, 3)
        tab.open(f"http://127.0.0.1:{running.port}/dashboard?range=1h")
        before = int(tab.run("document.querySelector('.tile .value').textContent"))
        tab.run("document.documentElement.firstElementChild.marked = true")  # gone after a reload
        tab.run("document.querySelector('.request').open = true")
        opened = tab.run("document.querySelector('.request').dataset.key")
        with open_store(running.store_url) as store:
            free = evil(time.time(), id="req_new", asked="code", baseline=None)
            store.traffic.add([free])
        tab.until(f"Number(document.querySelector('.tile .value').textContent) === {before + 1}")
        assert tab.run("document.documentElement.firstElementChild.marked")
        assert tab.run(
            "[...document.querySelectorAll('.request[open]')].map(d => d.dataset.key)"
        ) == [opened]
        assert tab.run("document.querySelector('.request').dataset.key") == "req_new"
        tab.run("document.getElementById('pause').click()")
        refreshed = tab.run("document.documentElement.dataset.refreshed")
        tab.run("new Promise(done => setTimeout(done, 5000))")
        assert tab.run("document.documentElement.dataset.refreshed") == refreshed
        assert tab.complaints == []


@needs_browser
def test_chromium_runs_nothing_that_a_request_brought(tmp_path: Path) -> None:
    with serving(MODELS) as running, chromium(tmp_path / "profile") as tab:
        fill(running, 2)
        tab.open(f"http://127.0.0.1:{running.port}/dashboard")
        tab.run("window.alert = () => { window.pwned = true }")
        tab.until("Number(document.documentElement.dataset.refreshed) > 0")  # by innerHTML, too
        tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert tab.run("window.pwned") is None
        assert tab.run("document.querySelectorAll('#figures img').length") == 0
        tab.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=alert(1)>')")
        tab.until("document.images.length === 1")
        tab.run("new Promise(done => setTimeout(done, 300))")
        assert tab.run("window.pwned") is None  # the policy holds where escaping would have failed
        assert any("Content Security Policy" in words for words in tab.complaints)
