"""How much of the web is in which language: what to expect of a text before it is read.

Percent of the pages of Common Crawl's archive CC-MAIN-2024-42 by their main language, as its operators
count them with CLD2 (github.com/commoncrawl/cc-crawl-statistics, plots/languages.csv). Their "nor" is
Bokmål, ``no`` here; languages that they do not tell apart from others count as rare.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# fmt: off
PERCENT = {
    "en": 43.4241, "ru": 6.0444, "de": 5.3038, "ja": 5.0419, "zh": 4.8129, "es": 4.5387,
    "fr": 4.396, "it": 2.5282, "pt": 2.3146, "nl": 1.8145, "pl": 1.8065, "tr": 1.2422,
    "id": 1.1235, "cs": 1.063, "vi": 1.0454, "ko": 0.7388, "fa": 0.7051, "ar": 0.6709,
    "sv": 0.6649, "uk": 0.6037, "ro": 0.5978, "el": 0.5728, "hu": 0.5649, "da": 0.464,
    "th": 0.4071, "sk": 0.3705, "fi": 0.3444, "no": 0.306, "bg": 0.2992, "he": 0.2473,
    "sr": 0.2161, "hr": 0.2149, "hi": 0.2089, "ca": 0.2085, "lt": 0.1668, "sl": 0.1558,
    "et": 0.1326, "bn": 0.1186, "la": 0.1007, "lv": 0.0942, "ms": 0.0787, "az": 0.0687,
    "bs": 0.0523, "sq": 0.0497, "ne": 0.0493, "ta": 0.0473, "ka": 0.0422, "eu": 0.0401,
    "is": 0.0398, "mk": 0.0383, "gl": 0.0365, "hy": 0.034, "ur": 0.0306, "uz": 0.0293,
    "kk": 0.0282, "ml": 0.0269, "mr": 0.0258, "te": 0.022, "be": 0.0162, "mn": 0.0161,
    "kn": 0.0142, "my": 0.014, "nn": 0.013, "cy": 0.0117, "gu": 0.0113, "km": 0.0106,
    "af": 0.0103, "ky": 0.0098, "sw": 0.0096, "si": 0.009, "tl": 0.0088, "tt": 0.0087,
    "eo": 0.0084, "pa": 0.0079, "ku": 0.0074, "ga": 0.0071, "tg": 0.0064, "or": 0.0057,
    "so": 0.005, "mt": 0.0049, "fo": 0.0048, "lb": 0.004, "lo": 0.0037, "mg": 0.0036,
    "ps": 0.0035, "br": 0.0034, "oc": 0.0034, "sa": 0.0034, "am": 0.003, "ba": 0.0029,
    "fy": 0.0029, "ha": 0.0027, "zu": 0.0025, "as": 0.0024, "rw": 0.0023, "xh": 0.0023,
    "jv": 0.0022, "tk": 0.0021, "ht": 0.0019, "gd": 0.0014, "ug": 0.001, "yo": 0.001,
    "gug": 0.0007, "ig": 0.0007, "sn": 0.0006, "st": 0.0006, "om": 0.0005, "qu": 0.0005,
    "vo": 0.0005, "ln": 0.0003, "lg": 0.0002, "dz": 0.0001, "nso": 0.0001,
}
# fmt: on
RARE = 0.0001  # percent: the least that the table shows


def log_shares(languages: Sequence[str]) -> NDArray[np.float32]:
    """Logarithms of the languages' shares among each other, ``[n]``.

    >>> [round(float(x), 2) for x in log_shares(["en", "de"])]
    [-0.12, -2.22]
    """
    percent = np.array([max(PERCENT.get(code, RARE), RARE) for code in languages])
    found: NDArray[np.float32] = np.log(percent / percent.sum()).astype(np.float32)
    return found
