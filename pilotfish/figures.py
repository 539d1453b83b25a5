"""Numbers as people read them, the same in the page and in the terminal.

A share is never rounded up to 100% or down to 0% unless it is exactly that, and what is unknown is
called unknown.
"""

from __future__ import annotations

import math

UNKNOWN = "unknown"


def percent(share: float | None, digits: int = 0) -> str:
    """A share as a percentage.

    >>> percent(0.7142), percent(0.9996), percent(0.0003), percent(1.0), percent(None)
    ('71%', '99.96%', '0.03%', '100%', 'unknown')
    """
    if share is None or not math.isfinite(share):
        return UNKNOWN
    for places in range(digits, 6):
        text = f"{share * 100:.{places}f}"
        if float(text) not in (0.0, 100.0) or share in (0.0, 1.0):
            return _minus(f"{text}%")
    return _minus(f"{share * 100:g}%")


def exact(share: float) -> str:
    """A share that somebody chose, as they chose it.

    >>> exact(1 - 0.95), exact(0.975)
    ('5%', '97.5%')
    """
    return f"{round(share * 100, 6):g}%"


def at_least(share: float | None) -> str:
    """A lower bound, never rounded up.

    >>> at_least(0.95099), at_least(1 - 0.05)
    ('95.0%', '95.0%')
    """
    return UNKNOWN if share is None else f"{math.floor(share * 1000 + 1e-9) / 10:.1f}%"


def at_most(share: float | None) -> str:
    """An upper bound, never rounded down.

    >>> at_most(0.04901)
    '5.0%'
    """
    return UNKNOWN if share is None else f"{math.ceil(share * 1000 - 1e-9) / 10:.1f}%"


def score(value: float) -> str:
    """A score in [0, 1]; only 1 itself reads as 1.

    >>> score(0.73125), score(0.99996)
    ('0.731', '0.99996')
    """
    for places in range(3, 8):
        text = f"{value:.{places}f}"
        if float(text) != 1.0 or value == 1.0:
            return text
    return f"{value:g}"


def money(dollars: float | None) -> str:
    """US dollars; small amounts keep two significant digits.

    >>> money(1234.5), money(3.2), money(0.00123), money(-2), money(None)
    ('$1,234', '$3.20', '$0.0012', '−$2.00', 'unknown')
    """
    if dollars is None or not math.isfinite(dollars):
        return UNKNOWN
    size = abs(dollars)
    sign = "−" if dollars < 0 else ""
    if size >= 100:
        return f"{sign}${size:,.0f}"
    if size >= 0.1 or size == 0:
        return f"{sign}${size:.2f}"
    places = 1 - math.floor(math.log10(size))
    return f"{sign}${size:.{min(places, 9)}f}"


def count(number: float | None) -> str:
    """A whole number with thousands separated.

    >>> count(12345), count(-3), count(None)
    ('12,345', '−3', 'unknown')
    """
    if number is None or not math.isfinite(number):
        return UNKNOWN
    return _minus(f"{number:,.0f}")


def duration(seconds: float | None) -> str:
    """Seconds as people say them.

    >>> duration(0.123), duration(42), duration(200), duration(7500)
    ('0.12 s', '42 s', '3 min 20 s', '2 h 5 min')
    """
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def milliseconds(value: float | None) -> str:
    """Milliseconds, from microseconds to minutes.

    >>> milliseconds(0.0123), milliseconds(3.21), milliseconds(1234)
    ('12 µs', '3.2 ms', '1.2 s')
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value < 0.1:
        return f"{value * 1000:.2g} µs"
    if value < 1000:
        return f"{value:.2g} ms" if value < 100 else f"{value:.0f} ms"
    return duration(value / 1000)


def number(value: float | None, digits: int = 3) -> str:
    """A plain figure with so many decimals.

    >>> number(0.12345), number(None)
    ('0.123', 'unknown')
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return _minus(f"{value:,.{digits}f}")


def _minus(text: str) -> str:
    return text.replace("-", "−")
