"""Moving the pointers: a version enters in shadow, becomes a canary, serves, and is taken back on alarm.

Each move is bound to the pointer that it was decided on, and is decided on committed evidence alone; so a
process that dies before, during or after a move decides the same again, and finds it done or does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from pilotfish.loop.forgetting import WITHDRAWN
from pilotfish.loop.inputs_drift import InputsSeen
from pilotfish.loop.lessons import MARK
from pilotfish.loop.trial import SHADOW, Evidence, TaskState, verdict
from pilotfish.progress import Progress
from pilotfish.store.store import Store
from pilotfish.store.versions import Pointer

CLOSED: Mapping[str, Any] = {"shadow": None, "canary": None, "share": 0.0}


class Steps:
    """Takes every step that the evidence allows.

    Args:
        store: Where the pointers are.
        inputs: Tells at an alarm whether the inputs have changed.
        canary_share: Share of the traffic that a canary answers.
        trial_rows: Requests on which a version must prove itself in shadow, and again as a canary.
        progress: Told what happens.
    """

    def __init__(
        self,
        store: Store,
        inputs: InputsSeen,
        canary_share: float,
        trial_rows: int,
        progress: Progress,
    ) -> None:
        self._versions = store.versions
        self._inputs = inputs
        self._canary_share = canary_share
        self._trial_rows = trial_rows
        self._progress = progress

    def take(self, states: Mapping[str, TaskState], commit: Callable[[], None]) -> None:
        """Look at all tasks.

        Args:
            states: What is known of each; changed in place.
            commit: Makes the changes durable.
        """
        pointers = self._versions.pointers()
        for task, state in list(states.items()):
            if state.made is not None:
                self._enter(task, state, pointers.get(task))
                continue
            pointer = pointers.get(task)
            if pointer is None:
                continue
            serving, trial = state.serving, state.trial
            if serving is not None and serving.version != pointer.serving:
                self._leave(task, state, serving)
                state.serving = None
            if trial is not None and trial.version != getattr(pointer, trial.role):
                self._leave(task, state, trial)
                state.trial = None
            if state.serving is not None and state.serving.watch.alarm:
                self._alarm(task, state, state.serving, pointer, commit)
            elif state.trial is not None:
                self._advance(task, state.trial, pointer)

    def _leave(self, task: str, state: TaskState, evidence: Evidence) -> None:
        """A version is no longer where it was; one that was withdrawn is learned again at once."""
        if self._is_withdrawn(task, evidence.version):
            state.tried = 0

    def _is_withdrawn(self, task: str, number: int) -> bool:
        """Whether it held what was forgotten."""
        gone = self._versions.events(task, kind=WITHDRAWN)
        return any(event.version == number for event in gone)

    def _enter(self, task: str, state: TaskState, pointer: Pointer | None) -> None:
        """A version that was just learned enters in shadow, once."""
        made = state.made or {}
        number = int(made["version"])
        entered = {event.version for event in self._versions.events(task, kind=SHADOW)}
        if number not in entered and not self._is_withdrawn(task, number):
            serial = 0 if pointer is None else pointer.serial
            places = {"shadow": number}
            if not self._versions.move(
                task, SHADOW, version=number, evidence=made, serial=serial, **places
            ):
                return  # somebody else has moved the pointer: at the next look
            self._progress.say(f"{task}{MARK}{number}: shadow")
        state.made = None

    def _advance(self, task: str, trial: Evidence, pointer: Pointer) -> None:
        earned = verdict(trial, self._trial_rows)
        if earned == "refuse":
            self._step(task, "refused", pointer, trial, CLOSED)
        elif earned == "pass" and trial.role == SHADOW:
            places = {"shadow": None, "canary": trial.version, "share": self._canary_share}
            self._step(task, "canary", pointer, trial, places)
        elif earned == "pass":
            places = {**CLOSED, "serving": trial.version, "previous": pointer.serving}
            self._step(task, "promoted", pointer, trial, places)

    def _alarm(
        self,
        task: str,
        state: TaskState,
        evidence: Evidence,
        pointer: Pointer,
        commit: Callable[[], None],
    ) -> None:
        """Close the threshold; what is learned next comes from the time since the drift began."""
        artifact = self._versions.version(task, evidence.version).artifact
        inputs = self._inputs.test(task, artifact)
        known = {
            "drift_from": evidence.since,
            "inputs": None if inputs is None else asdict(inputs),
        }
        state.since, state.rows, state.tried = evidence.since, evidence.rows_since, 0
        state.attempt = None  # what is being learned now comes from before the drift
        commit()
        places = {**CLOSED, "serving": None, "previous": pointer.serving}
        self._step(task, "alarm", pointer, evidence, places, known)

    def _step(
        self,
        task: str,
        kind: str,
        pointer: Pointer,
        evidence: Evidence,
        places: Mapping[str, Any],
        known: Mapping[str, Any] | None = None,
    ) -> None:
        summary = {**evidence.summary(), **(known or {})}
        done = self._versions.move(
            task, kind, version=evidence.version, evidence=summary, serial=pointer.serial, **places
        )
        if done:
            self._progress.say(f"{task}{MARK}{evidence.version}: {kind}")
