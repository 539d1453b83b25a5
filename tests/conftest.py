"""What holds for every test: no network, no touch of the user's files, the same draws on every run.

Tests marked ``pulled`` use the cache that ``pilotfish pull`` filled; all others get an empty one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.offline import sitecustomize

OFFLINE = str(Path(sitecustomize.__file__).parent)
REPOSITORY = Path(__file__).resolve().parent.parent

# A key in the user's shell must not decide what a test does; a proxy would carry a child out.
_FORGET = ("PILOTFISH_CONFIG", "PILOTFISH_STORE", "PYTEST_ADDOPTS")
_SECRETS = ("_API_KEY", "_TOKEN", "_SECRET")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy")

for _name in list(os.environ):
    if _name in _FORGET or _name.upper().endswith(_SECRETS) or _name.lower() in _PROXIES:
        del os.environ[_name]
_REAL_CACHE = os.environ.get("PILOTFISH_CACHE")
os.environ.update(
    NO_PROXY="*",
    no_proxy="*",
    # Children import this checkout, not another version that may be installed.
    PYTHONPATH=os.pathsep.join(
        filter(None, [OFFLINE, str(REPOSITORY), os.environ.get("PYTHONPATH")])
    ),
    TOKENIZERS_PARALLELISM="false",
    # On a busy machine OpenMP's spinning threads turn a fit of 0.2 s into 20 s; tests are small.
    OMP_NUM_THREADS="1",
    OMP_WAIT_POLICY="PASSIVE",
    MPLBACKEND="Agg",
    HF_HUB_OFFLINE="1",
    PIP_NO_INDEX="1",
)

# Runs are compared with one another, so examples are the same each time; no deadline, since a busy
# machine is no error. PILOTFISH_EXPLORE=1 draws new examples, and more of them.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("explore" if os.environ.get("PILOTFISH_EXPLORE") else "same")


@pytest.fixture(autouse=True)
def _own_folders(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each test works in a folder of its own, with a cache of its own."""
    folder = tmp_path_factory.mktemp("work")
    monkeypatch.chdir(folder)
    if request.node.get_closest_marker("pulled"):
        if _REAL_CACHE is not None:
            monkeypatch.setenv("PILOTFISH_CACHE", _REAL_CACHE)
    else:
        monkeypatch.setenv("PILOTFISH_CACHE", str(folder / "cache"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY
