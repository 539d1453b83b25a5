"""Find the label set in the large model's own answers, when the user did not give one.

A few dozen inputs are asked without a closed set. Answers that differ only in case, spaces, quotes or a
final period are one label. If nearly every answer is different, the task is not a closed-label one, and
the user is told before more is paid.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from pilotfish.errors import InputError
from pilotfish.loop.population import Population
from pilotfish.loop.task import Task
from pilotfish.loop.teacher import Teacher
from pilotfish.progress import Progress

SAMPLE = 60  # a label with 5% of the inputs is missed with probability 0.95^60 < 5%
FREE_TEXT = 0.5  # more different answers than this share of the sample are no closed set
LONGEST = 60  # characters; a label is a name, not a sentence


def discover(
    population: Population, task: Task, asker: Teacher, *, seed: int, progress: Progress
) -> Task:
    """The task with its labels filled in.

    Args:
        population: A random sample of its training inputs is asked.
        task: Without labels.
        asker: Asks without a closed set.
        seed: Of the sample.
        progress: Watches.

    Raises:
        InputError: The answers are no closed set, or they are all the same.
    """
    if task.kind == "labels":
        raise InputError(
            "Tasks with several labels per input need the label set.", remedy="Add --labels a,b,c"
        )
    ids = population.train_ids
    count = min(SAMPLE, len(ids), asker.affordable(SAMPLE))
    sample = np.random.default_rng(seed).choice(ids, count, replace=False)
    with progress.stage("Discovering the labels", count) as stage:
        texts = [text for text in asker.ask([int(i) for i in sample], stage) if text is not None]
    labels = label_set(texts)
    progress.say(f"Labels found: {', '.join(labels)}")
    return dataclasses.replace(task, labels=tuple(labels))


def label_set(texts: list[str]) -> list[str]:
    """Labels in falling order of frequency, in their most frequent spelling.

    Raises:
        InputError: They are no closed set of two or more.

    >>> label_set(["Spam", "spam.", "ham", '"ham"', "ham"])
    ['ham', 'Spam']
    """
    spellings: dict[str, Counter[str]] = {}
    for text in texts:
        label = text.strip().strip("\"'`*").rstrip(".").strip()
        if label:
            spellings.setdefault(label.casefold(), Counter())[label] += 1
    sizes = {key: sum(spelling.values()) for key, spelling in spellings.items()}
    long = sum(size for key, size in sizes.items() if len(key) > LONGEST)
    if len(sizes) > max(2, FREE_TEXT * len(texts)) or long > len(texts) / 2:
        example = texts[0].strip().replace("\n", " ")[:80] if texts else ""
        raise InputError(
            f"{len(texts)} inputs got {len(sizes)} different answers (such as {example!r}): this looks "
            "like free text, but offload needs a closed set of answers.",
            remedy="Give the set with --labels a,b,c (or --rating 1-5), and name it in the prompt.",
        )
    kept = [key for key, _ in Counter(sizes).most_common() if len(key) <= LONGEST]
    if len(kept) < 2:
        raise InputError(
            f"All {len(texts)} sampled inputs got the same answer ({', '.join(kept) or 'none'}).",
            remedy="If there are other answers, name them: --labels a,b,c",
        )
    return [spellings[key].most_common(1)[0][0] for key in kept]
