"""Representative rows and MoDS against brute force over the same embeddings."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pilotfish as pf
from pilotfish.curate import Pipeline
from pilotfish.curate.scores.grade import Grade
from pilotfish.curate.selection.mods import MoDS
from pilotfish.curate.selection.representative import Representative
from pilotfish.curate.selection.vectors import embed, read_vectors
from pilotfish.curate.step import ROW, TEXT, FittedStep
from pilotfish.errors import ConfigError, InputError, Unavailable, UnknownName
from pilotfish.records import Request

TOPICS = {
    "sea": ["river", "fish", "swims", "cold", "water", "wave", "boat", "salt", "tide"],
    "law": ["court", "judge", "appeal", "contract", "party", "lawyer", "verdict", "trial"],
    "food": ["bread", "butter", "cheese", "soup", "dinner", "kitchen", "salad", "bake"],
}


def rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Most are about the sea; quality and the score of a model's answer are random."""
    draw = random.Random(seed)
    made: list[dict[str, Any]] = []
    for _ in range(n):
        topic = draw.choices(list(TOPICS), [0.8, 0.15, 0.05])[0]
        text = " ".join(draw.choices(TOPICS[topic], k=draw.randint(3, 9)))
        made.append({"text": text, "topic": topic, "good": draw.random(), "answer": draw.random()})
    made[7]["good"] = made[11]["answer"] = None
    return made


ROWS = rows(150)


def batch(first: int, last: int) -> pa.RecordBatch:
    part = ROWS[first:last]
    return pa.RecordBatch.from_pydict(
        {
            ROW: pa.array(range(first, last), pa.uint64()),
            TEXT: pa.array([row["text"] for row in part], pa.string()),
            "good": pa.array([row["good"] for row in part], pa.float64()),
            "answer": pa.array([row["answer"] for row in part], pa.float64()),
            "topic": pa.array([row["topic"] for row in part], pa.string()),
        }
    )


WHOLE = batch(0, len(ROWS))
VECTORS = read_vectors([embed(WHOLE, "static")])[1].astype(np.float64)


def kept(step: FittedStep, folder: Path) -> tuple[set[int], list[str | None]]:
    """What it keeps when the states come in the wrong order, and all reasons."""
    folder.mkdir(exist_ok=True)
    states = [step.map(batch(i, min(i + 40, len(ROWS)))) for i in range(0, len(ROWS), 40)]
    reasons = step.reduce(states[::-1], folder).apply(WHOLE).reasons
    assert reasons is not None
    found = reasons.to_pylist()
    return {i for i, reason in enumerate(found) if reason is None}, found


def farthest_first(pool: list[int], k: int, centers: list[int]) -> list[int]:
    """Greedy k-centre by brute force, from centres that are there."""
    taken = list(centers)
    for _ in range(k):
        left = [i for i in pool if i not in taken]
        distances = [
            min(float(((VECTORS[i] - VECTORS[c]) ** 2).sum()) for c in taken) for i in left
        ]
        taken.append(left[int(np.argmax(distances))])
    return taken[len(centers) :]


def radius(pool: list[int], centers: set[int]) -> float:
    return max(min(float(((VECTORS[i] - VECTORS[c]) ** 2).sum()) for c in centers) for i in pool)


def test_k_center_covers_as_brute_force_does(tmp_path: Path) -> None:
    chosen, _ = kept(Representative(rows=8, method="k-center", seed=3), tmp_path)
    first = int(np.random.default_rng(3).integers(len(ROWS)))
    other = {first, *farthest_first(list(range(len(ROWS))), 7, [first])}
    assert first in chosen
    everything = list(range(len(ROWS)))
    assert radius(everything, chosen) == pytest.approx(radius(everything, other), rel=1e-3)
    assert {ROWS[i]["topic"] for i in chosen} == set(TOPICS)


def test_facility_location_beats_random_at_what_it_maximises(tmp_path: Path) -> None:
    def value(chosen: set[int]) -> float:
        return float((VECTORS @ VECTORS[sorted(chosen)].T).max(axis=1).mean())

    best, reasons = kept(Representative(share=0.05), tmp_path / "a")
    assert len(best) == round(0.05 * len(ROWS))
    assert set(reasons) == {None, "representative.not_chosen"}
    others = [
        kept(Representative(share=0.05, method="random", seed=i), tmp_path / str(i))[0]
        for i in range(5)
    ]
    assert value(best) > max(map(value, others))


def test_nearest_takes_what_points_the_way_of_the_target(tmp_path: Path) -> None:
    (tmp_path / "target.txt").write_text("cheese soup\nbutter bread\n")
    step = Representative(rows=5, method="nearest", target=str(tmp_path / "target.txt"))
    chosen, _ = kept(step, tmp_path / "fit")
    texts = pa.array(["cheese soup", "butter bread"])
    goal = embed(pa.record_batch({ROW: pa.array([0, 1], pa.uint64()), TEXT: texts}), "static")
    direction = read_vectors([goal])[1].mean(axis=0)
    assert chosen == set(np.argsort(-(VECTORS @ direction))[:5].tolist())
    assert {ROWS[i]["topic"] for i in chosen} == {"food"}


def test_mods_is_quality_then_coverage_then_necessity(tmp_path: Path) -> None:
    good = [i for i, row in enumerate(ROWS) if row["good"] is not None and row["good"] >= 0.3]
    seed, reasons = kept(MoDS("good", 0.3, 6), tmp_path / "seed")
    low = {i for i, reason in enumerate(reasons) if reason == "mods.low_quality"}
    assert low == set(range(len(ROWS))) - set(good)
    first = good[int(np.random.default_rng(0).integers(len(good)))]
    assert radius(good, seed) == pytest.approx(
        radius(good, {first, *farthest_first(good, 5, [first])}), rel=1e-3
    )
    step = MoDS("good", 0.3, 6, answer_score="answer", max_answer_score=0.4, needed_rows=10)
    assert step.reads == {"good": "double", "answer": "double"}
    both, reasons = kept(step, tmp_path / "both")
    bad = [
        i
        for i in good
        if i not in seed and ROWS[i]["answer"] is not None and ROWS[i]["answer"] < 0.4
    ]
    assert seed < both
    assert both - seed <= set(bad)
    assert len(both) == 16
    picked = farthest_first(bad, 10, sorted(seed))
    assert radius(bad, both) == pytest.approx(radius(bad, seed | set(picked)), rel=1e-3)
    needless = {i for i, reason in enumerate(reasons) if reason == "mods.not_needed"}
    unjudged = {i for i, reason in enumerate(reasons) if reason == "mods.not_judged"}
    assert unjudged == {i for i in good if i not in seed and ROWS[i]["answer"] is None}
    assert needless == set(good) - seed - set(bad) - unjudged


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[pf.FakeModel, pf.FakeModel]:
    """A student that knows nothing of law, and a judge; and a store of their own."""
    monkeypatch.setenv("PILOTFISH_STORE", f"sqlite:///{tmp_path}/answers.db")
    topics = {row["text"]: row["topic"] for row in ROWS}

    def answer(request: Request) -> str:
        return "no idea" if topics[request.prompt] == "law" else f"all about {request.prompt}"

    def grade(request: Request) -> str:
        return "1" if "no idea" in request.prompt else "4"

    student, judge = pf.FakeModel(answer, name="student"), pf.FakeModel(grade, name="judge")
    models = {"student": student, "judge": judge}
    for module in ("scores.grading", "selection.necessity"):
        monkeypatch.setattr(
            f"pilotfish.curate.{module}.load_model", lambda spec, *more: models[spec]
        )
    return student, judge


def asking(**settings: Any) -> MoDS:
    whole: dict[str, Any] = {"needed_rows": 8, "max_answer_score": 2.0}
    whole |= {"answers_by": "student", "judge": "judge", **settings}
    return MoDS("good", 0.3, 6, **whole)


def test_mods_asks_the_model_and_its_judge(
    tmp_path: Path, people: tuple[pf.FakeModel, pf.FakeModel]
) -> None:
    """Needed are the rows on which the student fails, here those of one topic; others cover the rest."""
    student, judge = people
    seed, _ = kept(MoDS("good", 0.3, 6), tmp_path / "seed")
    both, reasons = kept(asking(), tmp_path / "both")
    good = {i for i, row in enumerate(ROWS) if row["good"] is not None and row["good"] >= 0.3}
    asked = {ROWS[i]["text"] for i in good - seed}
    assert {request.prompt for request in student.requests} == asked
    assert len(judge.requests) == len(asked)
    assert len(student.requests) == len(asked), "equal rows are asked once"
    failed = sorted(i for i in good - seed if ROWS[i]["topic"] == "law")
    assert len(failed) > 8
    assert seed < both
    assert both - seed < set(failed)
    assert len(both) == 6 + 8
    picked = farthest_first(failed, 8, sorted(seed))
    assert radius(failed, both) == pytest.approx(radius(failed, seed | set(picked)), rel=1e-3)
    assert {
        i for i, reason in enumerate(reasons) if reason == "mods.not_needed"
    } == good - seed - set(failed)
    again, _ = kept(asking(), tmp_path / "again")
    assert again == both
    assert len(student.requests) == len(asked), "nothing is paid twice"
    assert len(judge.requests) == len(asked)


def test_mods_asks_about_some_rows_by_chance(
    tmp_path: Path, people: tuple[pf.FakeModel, pf.FakeModel]
) -> None:
    student, judge = people
    both, reasons = kept(asking(ask_rows=20, reference="topic"), tmp_path / "both")
    assert len(student.requests) <= 20  # equal rows are asked once
    prompts = {request.prompt for request in student.requests}
    assert len({row["topic"] for row in ROWS if row["text"] in prompts}) > 1
    assert all("to compare with:\n" in request.prompt for request in judge.requests)
    seed, _ = kept(MoDS("good", 0.3, 6), tmp_path / "seed")
    assert {ROWS[i]["text"] for i in both - seed} <= prompts
    judged = sum(reason in ("mods.not_judged", None) for reason in reasons)
    assert "mods.not_judged" in reasons
    assert judged < len(ROWS)


def test_mods_goes_on_after_answers_that_fail(
    tmp_path: Path, people: tuple[pf.FakeModel, pf.FakeModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer or grade that fails leaves its row out; only if all fail is that an error."""
    student, judge = people
    student._faults = iter([Unavailable("down")] * 5)
    _, reasons = kept(asking(), tmp_path / "some")
    assert 5 <= reasons.count("mods.not_judged") < 60
    monkeypatch.setattr(judge, "_answers", "who knows")
    monkeypatch.setenv("PILOTFISH_STORE", f"sqlite:///{tmp_path}/others.db")
    with pytest.raises(InputError, match="who knows"):
        kept(asking(), tmp_path / "none")


def test_a_rehearsal_of_mods_asks_nobody(
    tmp_path: Path, people: tuple[pf.FakeModel, pf.FakeModel]
) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    pipeline = Pipeline([asking(answer_tokens=10)])
    result = pipeline.sample(tmp_path / "in.jsonl")
    assert not any(model.requests for model in people)
    assert result.rows_kept == 6, "the seed"
    assert "requests to student" in result.notes[0]
    assert "requests to judge" in result.notes[0]
    asked = pipeline.sample(tmp_path / "in.jsonl", ask=True)
    assert all(model.requests for model in people)
    assert asked.rows_kept == 6 + 8
    assert not asked.notes


def test_a_rehearsal_counts_what_follows_grades_that_nobody_gave(
    tmp_path: Path, people: tuple[pf.FakeModel, pf.FakeModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without grades every row may be good, and all but the seed would be asked about."""
    judge = people[1]
    monkeypatch.setattr("pilotfish.curate.scores.grade.load_model", lambda spec, *more: judge)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    settings: dict[str, Any] = {"needed_rows": 8, "max_answer_score": 2.0}
    settings |= {"answers_by": "student", "judge": "judge"}
    graded = Grade("judge", tag=True)
    result = Pipeline([graded, MoDS("grade", 2.5, 6, **settings)]).sample(tmp_path / "in.jsonl")
    assert not any(model.requests for model in people)
    assert result.rows_kept == 6, "the seed"
    first, second = result.notes
    assert "150 requests to judge" in first
    assert "No row has a number in 'grade' yet" in second
    assert "144 requests to student" in second
    assert "144 requests to judge" in second
    alone = Pipeline([graded, MoDS("grade", 2.5, 6)]).sample(tmp_path / "in.jsonl")
    assert alone.rows_kept == 6
    assert "all count as good" in alone.notes[1]


@pytest.mark.parametrize(
    "step",
    [
        Representative(rows=40),
        Representative(share=40 / 150),
        MoDS("good", 0.3, 20, answer_score="answer", max_answer_score=0.9, needed_rows=20),
    ],
)
def test_a_rehearsal_keeps_as_many_rows_as_the_sample_is_of_the_whole(
    step: Representative | MoDS, tmp_path: Path
) -> None:
    """Of a quarter of the rows a quarter of the number, and the share that was asked for."""
    ready, note = step.rehearse([step.map(batch(0, 40))], tmp_path, 40 / 150, ask=False)
    reasons = ready.apply(batch(0, 40)).reasons
    assert reasons is not None
    assert reasons.null_count == pytest.approx(40 * 40 / 150, abs=1)
    assert not note


def test_mods_in_a_pipeline_reads_the_scores_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "pipeline.toml").write_text(
        '[[steps]]\nstep = "mods"\nquality = "good"\nmin_quality = 0.3\nseed_rows = 6\n'
    )
    result = Pipeline.from_file(tmp_path / "pipeline.toml").run(
        tmp_path / "in.jsonl", tmp_path / "out"
    )
    seed, _ = kept(MoDS("good", 0.3, 6), tmp_path / "seed")
    lines = (tmp_path / "out" / "part-00000.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == [ROWS[i]["text"] for i in sorted(seed)]
    assert result.rows_kept == 6


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for settings in (
        {},
        {"rows": 3, "share": 0.1},
        {"rows": 3, "method": "nearest"},
        {"rows": 3, "target": "x.txt"},
    ):
        with pytest.raises(ConfigError, match="representative"):
            Representative(**settings)  # type: ignore[arg-type]
    for half in (
        {"answer_score": "answer"},
        {"answers_by": "fake:", "needed_rows": 3, "max_answer_score": 2.0},
        {"judge": "fake:", "answers_by": "fake:"},
        {"needed_rows": 3, "max_answer_score": 2.0},
        {"ask_rows": 3},
    ):
        with pytest.raises(ConfigError, match="answers_by and judge"):
            MoDS("good", 0.3, 6, **half)  # type: ignore[arg-type]
    whole = {"needed_rows": 3, "max_answer_score": 2.0, "answers_by": "fake:", "judge": "fake:"}
    with pytest.raises(ConfigError, match="expected one"):
        MoDS("good", 0.3, 6, answer_score="answer", **whole)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="nobody"):
        MoDS("good", 0.3, 6, **whole | {"judge": "nobody"})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="seed_rows"):
        MoDS("good", 0.3, 0)
    (tmp_path / "target.jsonl").write_text('{"body": "soup"}\n')
    step = Representative(rows=5, method="nearest", target=str(tmp_path / "target.jsonl"))
    with pytest.raises(InputError, match="target_text"):
        kept(step, tmp_path / "fit")
