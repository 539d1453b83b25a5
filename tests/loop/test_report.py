"""The report: right words for every outcome, on the page and in the terminal."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish import figures
from pilotfish.loop import result as r
from pilotfish.loop import wording
from pilotfish.loop.report import render_report
from tests.loop.sample_reports import bare, page_text, terminal_text, uncertified


def promising(outcome, *constraints, **changes):
    made = outcome(**changes)
    return dataclasses.replace(
        made, certificate=made.certificate | {"constraints": list(constraints)}
    )


def test_headline_of_the_usual_promise(outcome):
    assert wording.headline(outcome()) == (
        "The small model answers 71% of inputs itself; with 95% probability at most 5% of all answers "
        "differ from what gpt-4.1 would have said."
    )


@pytest.mark.parametrize(
    ("constraint", "task", "said"),
    [
        ({"kind": "agree", "on": "served"}, {}, "at most 2.5% of its own answers differ from what"),
        ({"kind": "agree"}, {"kind": "labels"}, "of all answers differ in any label from what"),
        (
            {"kind": "agree"},
            {"kind": "rating", "tolerance": 0.5},
            "at most 2.5% of all answers are more than 0.5 away from what gpt-4.1 would have said",
        ),
        (
            {"kind": "precision", "label": "spam"},
            {},
            "at least 97.5% of the inputs that it calls “spam” are “spam” to gpt-4.1 as well",
        ),
        (
            {"kind": "recall", "label": "spam"},
            {},
            "at least 97.5% of the inputs that gpt-4.1 would have called “spam” are still called that",
        ),
    ],
)
def test_headline_of_every_promise(outcome, constraint, task, said):
    made = promising(outcome, constraint | {"target": 0.975}, task=r.TaskInfo(prompt="{t}", **task))
    assert said in wording.headline(made)
    assert " ".join(said.split()) in " ".join(terminal_text(made).split())


def test_several_promises_and_a_promise_about_this_file(outcome):
    made = promising(
        outcome,
        {"kind": "precision", "label": "a", "target": 0.9, "on": "all"},
        {"kind": "recall", "label": "a", "target": 0.8, "on": "all"},
    )
    assert re.search("at least 90%.*; and at least 80%", wording.headline(made))
    made.certificate["population"] = "file"
    made.certificate["constraints"] = [{"kind": "agree", "target": 0.95, "on": "all"}]
    assert "5% of all answers for this file differ" in wording.headline(made)


@pytest.mark.parametrize(
    ("reason", "said", "helps"),
    [
        ("no-threshold", "No student agrees with gpt-4.1 often enough", "tells the labels apart"),
        ("too-few-answers", "550 calibration answers are too few", "more answers"),
        ("budget", "budget was spent on 550 calibration answers", "more answers"),
    ],
)
def test_nothing_certified_is_said_plainly(outcome, reason, said, helps):
    made = uncertified(outcome, reason)
    assert wording.headline(made).startswith(
        "No threshold could be certified, so every input still"
    )
    texts = [" ".join(terminal_text(made).split())]
    if reason == "budget":
        texts.append(page_text(render_report(made)))
    for text in texts:
        assert said in text
        assert helps in text
        assert "It never pays, as it stands." in text
        assert "≥" not in text  # no agreement is claimed


def test_a_weak_large_model_and_a_negative_saving_are_in_the_headline(outcome):
    made = outcome(
        gold=r.Gold(column="y", n=200, large=0.61, student=0.6, cascade=0.605, baseline=0.2),
        saving=r.Saving(file_calls=-0.1, future_calls=0.7, break_even=14_000),
    )
    for text in (page_text(render_report(made)), " ".join(terminal_text(made).split())):
        assert "But gpt-4.1 itself is right on only 61% of your own labels." in text
        assert "asking cost more calls than it saved" in text
        assert "right on 95%, the same promise keeps the cascade right on at least 90%" in text
        assert "paid for itself after 14,000 inputs" in text
    rating = dataclasses.replace(made, task=r.TaskInfo(prompt="{t}", kind="rating", tolerance=1))
    assert "the same promise keeps" not in wording.notes(rating)[0].text


def test_unknown_prices_are_unknown_and_local_models_have_seconds(outcome):
    made = outcome()
    priceless = [dataclasses.replace(item, cost=None) for item in made.waterfall]
    remote = dataclasses.replace(
        made,
        waterfall=priceless,
        large=dataclasses.replace(made.large, price=None, cost=None),
        asked=dataclasses.replace(made.asked, cost=None),
    )
    text = page_text(render_report(remote))
    assert "price unknown" in text
    assert "Where the calls went" in text
    assert "$0" not in text
    assert "unknown" in terminal_text(remote)
    local = dataclasses.replace(remote, large=dataclasses.replace(remote.large, local=True))
    for text in (page_text(render_report(local)), terminal_text(local)):
        assert "unknown" not in text
        assert "$" not in text
        assert "19 min 3 s of compute" in " ".join(text.split())


def test_a_mean_is_not_called_a_median(outcome):
    """A local model answers in batches, whose mean is all that is known."""
    remote = render_report(outcome())
    assert "Median (dot) to 95th percentile (bar)" in remote
    batched = r.Latency(
        small=r.Percentiles(p50_ms=0.4), large=r.Percentiles(mean_ms=250.0), cascade_mean_ms=90.0
    )
    page = render_report(outcome(latency=batched))
    assert "95th percentile" not in page
    assert "gpt-4.1 mean: 250 ms; cascade mean: 90 ms" in page
    assert "only the mean is known" in page_text(page)


def test_race_says_why_the_others_lost(outcome):
    race = outcome().race
    notes = [wording.race_note(entry, race) for entry in race]
    assert notes == [
        "would serve 5% of inputs less",
        "serves most at the target",
        "would serve 27% of inputs less",
        "needs the torch extra",
    ]
    tie = dataclasses.replace(race[0], coverage=0.71)
    assert wording.race_note(tie, race) == "serves as much, but its probabilities are less sharp"


def test_rendering_is_quick_and_matplotlib_waits_for_it(outcome):
    started = time.process_time()
    render_report(outcome())
    assert time.process_time() - started < 4
    code = (
        "import sys, pilotfish.loop.report, pilotfish.loop.table, pilotfish.loop.result; "
        "assert not {'matplotlib', 'numpy', 'jinja2', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("width", [60, 80, 160])
def test_terminal_table_fits_its_width_and_has_no_codes_without_a_terminal(outcome, width):
    for made in (outcome(), uncertified(outcome, gold=None), bare()):
        text = terminal_text(made, width)
        assert max(map(len, text.splitlines())) <= width
        assert "\x1b" not in text
    text = " ".join(terminal_text(outcome(), width).split())
    for said in ("embedding-linear 71% 93.4%", "94.3%", "paid in all 3,810", "7 of 1650"):
        assert said in text
    assert "\x1b[" in terminal_text(outcome(), width, force_terminal=True)
    assert "[red]" in terminal_text(outcome(warnings=["[red]not markup[/red]"]), width)


@given(st.floats(0, 1))
def test_figures_never_flatter(share):
    assert float(figures.at_least(share)[:-1]) / 100 <= share + 1e-9
    assert float(figures.at_most(share)[:-1]) / 100 >= share - 1e-9
    shown = figures.percent(share)
    assert (shown == "100%") == (share == 1.0) or share > 1 - 1e-6
    assert (shown == "0%") == (share == 0.0)
