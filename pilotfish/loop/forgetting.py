"""Take versions out of service that hold what was forgotten.

A student that learned from a text does not contain it; a version that reuses answers does, word for
word. So such a version is withdrawn as a whole when one of its sources is forgotten: no pointer names it
any more (within a second no worker gives its answers), and its folder is deleted. Taking out single
entries instead would leave an index that its certificate was not made for. The next learning makes a new
one from what is left, and pays for no verdict again that is not about what was forgotten.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pilotfish.store.card import CARD_NAME
from pilotfish.store.store import Store
from pilotfish.store.versions import Pointer, Version

WITHDRAWN = "withdrawn"  # the kind of the event
PLACES = ("shadow", "canary", "serving", "previous")


def withdraw_reused(store: Store, versions: Iterable[tuple[str, int]]) -> list[str]:
    """Withdraw those of the versions that give out recorded answers; their names are returned.

    Args:
        store: Where they are.
        versions: Task and number of each.
    """
    gone = []
    for task, number in versions:
        version = store.versions.version(task, number)
        if version.settings.get("kind") == "text":
            withdraw(store, version, "forgotten")
            gone.append(version.name)
    return gone


def withdraw(store: Store, version: Version, why: str) -> None:
    """Take a version out of all places and delete its folder; done again, it changes nothing.

    One that is in no place is marked as well, so that it does not enter later.

    Raises:
        StoreError: The pointer could not be changed.
        OSError: The folder could not be deleted; the version is out of service all the same.
    """
    task, number = version.task, version.version
    while True:
        pointer = store.versions.pointers().get(task) or Pointer(task)
        changes = _without(pointer, number)
        known = {event.version for event in store.versions.events(task, kind=WITHDRAWN)}
        if number in known and not changes:
            break
        if store.versions.move(
            task, WITHDRAWN, version=number, evidence={"why": why}, serial=pointer.serial, **changes
        ):
            break
    folder = Path(version.artifact)
    try:
        card = json.loads((folder / CARD_NAME).read_bytes())
    except (OSError, ValueError):
        return  # it is gone, or no artifact of ours
    if card.get("name") == version.task and card.get("task", {}).get("kind") == "text":
        shutil.rmtree(folder)


def _without(pointer: Pointer, number: int) -> dict[str, Any]:
    changes: dict[str, Any] = {place: None for place in PLACES if getattr(pointer, place) == number}
    if "canary" in changes:
        changes["share"] = 0.0
    return changes
