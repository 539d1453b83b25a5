"""What a model still fails: it answers, and a judge grades its answers from 0 to 5.

Part of :mod:`pilotfish.curate.selection.mods`. Answers and grades are kept in the store, so that a run
that was stopped goes on where it was, and the same rows are not paid for twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pilotfish.curate.scores.grading import GRADE_TOKENS, answers, estimate, grades
from pilotfish.curate.step import ROW, TEXT, State
from pilotfish.errors import InputError
from pilotfish.models.load import load_model

TASK = "curate-mods"
PROMPT = """\
Grade the answer below from 0 to 5.

0: it is empty, harmful or about something else.
1: it tries, but is wrong or of no use.
2: part of it is right, and much is wrong or missing.
3: it does what was asked, with mistakes or gaps.
4: it is right and complete, and could be clearer.
5: it is right, complete and clear.

Answer with the grade alone: one digit.

Question:
{question}
{reference}
Answer to grade:
{answer}"""
REFERENCE = """
A good answer, to compare with:
{reference}
"""


@dataclass(frozen=True)
class Asking:
    """Whom to ask what.

    Attributes:
        answers_by: The model that answers.
        judge: The model that grades.
        question: The column of what is asked; None for the text.
        reference: The column of a good answer; None for none.
        answer_tokens: Of an answer, at most.
        concurrency: Requests under way at once.
    """

    answers_by: str
    judge: str
    question: str | None
    reference: str | None
    answer_tokens: int
    concurrency: int

    def __post_init__(self) -> None:
        for model in (self.answers_by, self.judge):
            load_model(model)  # here, not after the data were read

    @property
    def reads(self) -> dict[str, str]:
        """Columns of the user's file."""
        named = (self.question, self.reference)
        return {column: "string" for column in named if column not in (None, TEXT)}

    def added(self, state: State, batch: pa.RecordBatch) -> State:
        """The state with question and reference."""
        state = state.append_column(
            "question", batch.column(self.question or TEXT).cast(pa.string())
        )
        if self.reference is None:
            return state
        return state.append_column("reference", batch.column(self.reference).cast(pa.string()))

    def grades(self, states: Iterable[State], rows: NDArray[np.uint64]) -> NDArray[np.float64]:
        """What the judge gives the model's answers to some rows; NaN where there is no grade.

        Args:
            states: With :meth:`added`.
            rows: Their numbers, ascending.

        Raises:
            InputError: There is no grade at all.
            StoreError: The store cannot be opened or written.
        """
        found = np.full(len(rows), np.nan)
        if not len(rows):
            return found
        pairs = self._texts(states, rows)
        said = answers(
            self.answers_by,
            [question for question, _ in pairs],
            TASK,
            self.concurrency,
            self.answer_tokens,
        )
        at = [i for i, text in enumerate(said.texts) if text is not None]
        prompts = [_prompt(*pairs[i], said.texts[i] or "") for i in at]
        given, wrong = grades(self.judge, prompts, TASK, self.concurrency)
        found[at] = given
        if np.isnan(found).all():
            why = f"The judge said: {wrong!r:.200}" if at else f"The model said: {said.failed:.200}"
            raise InputError(
                f"The step 'mods': none of {len(rows)} rows got a grade. {why}",
                remedy="Name another model for answers_by or judge.",
            )
        return found

    def cost(self, states: Iterable[State], rows: NDArray[np.uint64], asked: int) -> str:
        """What it would take to ask about so many rows, by the lengths of some of them."""
        pairs = self._texts(states, rows)
        questions = [question for question, _ in pairs]
        graded = [_prompt(*pair, "") for pair in pairs]
        of_answers = estimate(self.answers_by, asked, questions, self.answer_tokens)
        of_grades = estimate(self.judge, asked, graded, GRADE_TOKENS, unknown=self.answer_tokens)
        return f"{of_answers}, and {of_grades}"

    def _texts(
        self, states: Iterable[State], rows: NDArray[np.uint64]
    ) -> list[tuple[str, str | None]]:
        """Question and reference of some rows, in their order."""
        found: list[tuple[str, str | None]] = [("", None)] * len(rows)
        for state in states:
            number = state.column(ROW).to_numpy()
            place = np.minimum(np.searchsorted(rows, number), max(0, len(rows) - 1))
            here = np.flatnonzero(rows[place] == number) if len(rows) else np.zeros(0, np.int64)
            for i in here.tolist():
                reference = state.column("reference")[i].as_py() if self.reference else None
                found[place[i]] = (state.column("question")[i].as_py() or "", reference)
        return found


def _prompt(question: str, reference: str | None, answer: str) -> str:
    shown = REFERENCE.format(reference=reference) if reference is not None else ""
    return PROMPT.format(question=question, reference=shown, answer=answer)
