"""What an outcome means, in sentences: the headline, the tiles and the honest negatives.

The page and the terminal say the same because both take their words from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pilotfish.figures import (
    UNKNOWN,
    at_least,
    at_most,
    count,
    duration,
    exact,
    money,
    percent,
    score,
)
from pilotfish.loop.result import OffloadResult, RaceEntry

WEAK = 0.7  # below this accuracy on the user's own labels the large model itself is called weak
WEAK_MARGIN = 0.05  # or when it is hardly better than always giving the most frequent label
STRONG = 0.95  # the accuracy of "a model of your own" in the what-if
REDUCTIONS = ("answered small", "repeated inputs")  # waterfall items that come off


@dataclass(frozen=True, slots=True)
class Tile:
    """One large figure: what it is, the figure, what stands behind it; ``good``, ``warn`` or ``bad``."""

    label: str
    value: str
    detail: str
    level: str = "good"


@dataclass(frozen=True, slots=True)
class Note:
    """Something that must not be overlooked: ``warn`` or ``bad``, or ``good`` news."""

    level: str
    title: str
    text: str


def certified(result: OffloadResult) -> bool:
    """Whether the small model may answer anything."""
    return result.certificate.get("threshold") is not None


def constraints(result: OffloadResult) -> list[Mapping[str, Any]]:
    """The promises that were asked for."""
    return list(result.certificate.get("constraints") or [])


def confidence(result: OffloadResult) -> str:
    """1 - delta as a percentage."""
    return exact(1 - float(result.certificate.get("delta") or 0.0))


def promise(result: OffloadResult, constraint: Mapping[str, Any]) -> str:
    """One promise as a clause that follows "with 95% probability"."""
    large, target = result.large.name, float(constraint["target"])
    label = constraint.get("label") or ""
    if constraint["kind"] == "precision":
        return (
            f"at least {exact(target)} of the inputs that it calls “{label}” are “{label}” to "
            f"{large} as well"
        )
    if constraint["kind"] == "recall":
        return (
            f"at least {exact(target)} of the inputs that {large} would have called “{label}” "
            "are still called that"
        )
    whose = "its own answers" if constraint.get("on") == "served" else "all answers"
    if result.certificate.get("population") == "file":
        whose += " for this file"
    differ = "differ from what"
    if result.task.kind == "labels":
        differ = "differ in any label from what"
    elif result.task.kind == "rating" and result.task.tolerance > 0:
        differ = f"are more than {result.task.tolerance:g} away from what"
    return f"at most {exact(1 - target)} of {whose} {differ} {large} would have said"


def headline(result: OffloadResult) -> str:
    """The outcome in one or two sentences."""
    large = result.large.name
    if certified(result):
        coverage = percent(float(result.certificate.get("coverage") or 0.0))
        kept = "; and ".join(promise(result, c) for c in constraints(result))
        return (
            f"The small model answers {coverage} of inputs itself; with {confidence(result)} "
            f"probability {kept}.{_but(result)}"
        )
    asked = count(result.certificate.get("asked") or result.asked.calibrate)
    why = {
        "no-threshold": f"No student agrees with {large} often enough for what was asked.",
        "too-few-answers": f"{asked} calibration answers are too few: even if all of them agreed, "
        "the promise would not be proven.",
        "budget": f"The budget was spent on {asked} calibration answers before anything was proven.",
    }
    reason = str(result.certificate.get("reason") or "")
    return (
        f"No threshold could be certified, so every input still goes to {large}. "
        + why.get(reason, "")
    ).strip() + _but(result)


def _but(result: OffloadResult) -> str:
    """What the headline must not leave out."""
    found = ""
    if result.gold is not None and weak_large(result):
        found += (
            f" But {result.large.name} itself is right on only {percent(result.gold.large)} of your "
            "own labels."
        )
    if certified(result) and result.saving.file_calls < 0:
        found += " On this file alone, asking cost more calls than it saved."
    return found


def weak_large(result: OffloadResult) -> bool:
    """Whether the large model itself does badly on the user's own labels."""
    gold = result.gold
    return gold is not None and gold.large < max(WEAK, gold.baseline + WEAK_MARGIN)


def in_money(result: OffloadResult) -> bool:
    """Whether every bar of the waterfall has a known price that is not nothing."""
    costs = [item.cost for item in result.waterfall]
    known = bool(costs) and all(cost is not None for cost in costs)
    return known and not result.large.local and any(costs)


def notes(result: OffloadResult) -> list[Note]:
    """The honest negatives (and what to do about each), the gravest first."""
    found = []
    large = result.large.name
    if not certified(result):
        better = (
            "a lower --agree, more answers to learn from (--budget), or a prompt that tells the labels "
            "apart more clearly"
            if result.certificate.get("reason") == "no-threshold"
            else "more answers (--budget), more inputs in the file, or a lower --agree"
        )
        found.append(
            Note(
                "bad",
                "Nothing is offloaded yet",
                f"What helps: {better}. Answers that were paid for are kept: the next run does not "
                "ask for them again.",
            )
        )
    gold = result.gold
    if gold is not None and weak_large(result):
        text = (
            f"{large} is right on only {percent(gold.large)} of {count(gold.n)} rows with your own "
            f"labels (column {gold.column!r}); always giving the most frequent label would be right "
            f"on {percent(gold.baseline)}. The certificate is about agreeing with {large}, so its "
            "mistakes are learned too."
        )
        first = next((c for c in constraints(result) if c["kind"] == "agree"), None)
        # Within a tolerance, "agrees" does not carry over from small to large to gold.
        carries = result.task.kind != "rating" or result.task.tolerance == 0
        if first is not None and first.get("on") != "served" and carries:
            floor = STRONG - (1 - float(first["target"]))
            text += (
                f" With a large model of your own that is right on {exact(STRONG)}, the same "
                f"promise keeps the cascade right on at least {exact(floor)}: run the same command "
                "with another --large."
            )
        found.append(Note("bad", f"{large} itself is weak at this task", text))
    if result.saving.file_calls < 0:
        after = result.saving.break_even
        when = (
            f"It has paid for itself after {count(after)} inputs."
            if after
            else "It never pays, as it stands."
        )
        found.append(
            Note(
                "warn",
                "On this file alone it does not pay",
                f"Asking took more calls than the small model saves here "
                f"({percent(result.saving.file_calls)}). {when}",
            )
        )
    return found


def tiles(result: OffloadResult) -> list[Tile]:
    """Served, agreement, net saving and calls; accuracy when there are gold labels."""
    certificate = result.certificate
    done = certified(result)
    coverage = float(certificate.get("coverage") or 0.0) if done else 0.0
    served = (
        f"where its score is {score(float(certificate['threshold']))} or more"
        if done
        else "nothing was certified"
    )
    found = [Tile("Answered by the small model", percent(coverage), served, _level(done))]
    if done:
        found.append(_agreement(result))
    found += [_saving(result), _calls(result)]
    if result.gold is not None:
        gold = result.gold
        found.append(
            Tile(
                "Right, by your own labels",
                percent(gold.cascade),
                f"{result.large.name} alone: {percent(gold.large)}; {count(gold.n)} rows",
                "bad" if weak_large(result) else "good",
            )
        )
    return found


def _agreement(result: OffloadResult) -> Tile:
    certificate = result.certificate
    first: Mapping[str, Any] = next(iter(constraints(result)), {"kind": "agree"})
    names = {"precision": "Precision", "recall": "Recall"}
    label = names.get(first["kind"], f"Agreement with {result.large.name}")
    if first.get("label"):
        label += f" of “{first['label']}”"
    bound, risk = certificate.get("bound"), certificate.get("risk")
    value = UNKNOWN if bound is None else f"≥ {at_least(1 - bound)}"
    estimate = UNKNOWN if risk is None else percent(1 - risk, 1)
    return Tile(
        label,
        value,
        f"{confidence(result)} sure; estimate {estimate}, target {exact(first.get('target', 0.0))}",
    )


def _saving(result: OffloadResult) -> Tile:
    saving = result.saving
    if in_money(result):
        value = money(saving.file_cost)
        later = f"later {money(saving.future_cost)} per 1,000 inputs"
        share = f"{percent(saving.file_calls)} of calls; "
    else:
        value = percent(saving.file_calls)
        later = f"later {percent(saving.future_calls)} of calls"
        share = "of calls; "
        if not result.large.local:
            share += "price unknown; "
    level = "good" if saving.file_calls > 0 else "warn"
    return Tile("Net saving on this file", value, share + later, level)


def _calls(result: OffloadResult) -> Tile:
    bars = {item.item: item for item in result.waterfall}
    always, net = bars.get("always-large"), bars.get("net")
    asked = result.asked
    parts = {
        "to find labels": asked.discover,
        "to teach": asked.train,
        "to certify": asked.calibrate,
        "to compare": asked.evaluate,
        "escalated": round(bars["escalated"].calls) if "escalated" in bars else 0,
    }
    detail = ", ".join(f"{count(n)} {why}" for why, n in parts.items() if n) or "none"
    if always is None or net is None:
        return Tile(f"Calls to {result.large.name}", count(result.large.calls), detail)
    if result.large.local and net.seconds is not None:
        detail += f"; {duration(net.seconds)} of compute instead of {duration(always.seconds)}"
    return Tile(
        f"Calls to {result.large.name}",
        count(net.calls),
        f"instead of {count(always.calls)}: {detail}",
        "good" if net.calls <= always.calls else "warn",
    )


def race_note(entry: RaceEntry, race: list[RaceEntry]) -> str:
    """Why a student won or lost: its own note, else what the figures say."""
    winner = next((other for other in race if other.chosen), None)
    if entry.chosen:
        return entry.note or "serves most at the target"
    if entry.note or winner is None or entry.coverage is None or winner.coverage is None:
        return entry.note
    gap = winner.coverage - entry.coverage
    if gap >= 0.005:
        return f"would serve {percent(gap)} of inputs less"
    if entry.log_loss is not None and winner.log_loss is not None:
        if entry.log_loss > winner.log_loss:
            return "serves as much, but its probabilities are less sharp"
        return "as good; the order of the race decided"
    return "serves as much"


def latency_words(result: OffloadResult) -> str:
    """What the dots and bars of the latency plot are."""
    seen, large = result.latency, result.large.name
    if seen.large.p50_ms is None and seen.large.mean_ms is not None:
        return (
            f"On a logarithmic axis. Small: the median of inputs answered one at a time. {large} answers "
            "many inputs at once, so of its answers, and of the cascade's, only the mean is known."
        )
    return "Median (dot) to 95th percentile (bar), on a logarithmic axis; of the cascade, the mean."


def certificate_words(result: OffloadResult) -> list[str]:
    """The certificate in plain words, a paragraph each."""
    certificate, large = result.certificate, result.large.name
    delta = exact(float(certificate.get("delta") or 0.0))
    where = (
        "for the inputs of this very file"
        if certificate.get("population") == "file"
        else "for inputs drawn like the ones in your file"
    )
    asked = count(certificate.get("asked") or 0)
    how = (
        f"It rests on {asked} answers of {large} about "
        f"{count(certificate.get('draws') or 0)} calibration rows that the student never saw, drawn "
        f"at random from your file; method: {certificate.get('method') or UNKNOWN}."
    )
    wanted = "; ".join(promise(result, c) for c in constraints(result))
    if not certified(result):
        return [
            f"What was to be shown, {where}: {wanted}." if wanted else "Nothing was promised.",
            f"It could not be shown at any threshold with {confidence(result)} confidence. {how}",
            f"Nothing is lost: without a certificate every input goes to {large}, as before.",
        ]
    bound, risk = certificate.get("bound"), certificate.get("risk")
    return [
        f"What is promised, {where}: {wanted}.",
        f"How sure: {confidence(result)}. If everything were repeated many times with new random "
        f"rows, at most {delta} of the certificates would promise too much.",
        f"How: the small model answers where its score is at least "
        f"{score(float(certificate['threshold']))}; everything else goes to {large}. The first "
        f"promise is broken for an estimated {percent(risk, 1)}, at most {at_most(bound)}. {how}",
        f"What breaks it: inputs that are unlike your file, another prompt, or another version of "
        f"{large}. It says nothing about whether {large} is right.",
    ]


def _level(good: bool) -> str:
    return "good" if good else "bad"
