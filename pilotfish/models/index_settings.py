"""Which package indexes this user's machine installs from.

Whoever configured pip or uv for a mirror, a company index, a proxy or a certificate expects every
download to follow; so the same environment variables and files are read here, and environment
variables win over files, as they do there. pip itself is not asked: environments made by uv have none.
The default index is the one the ``unearth`` library names.
"""

from __future__ import annotations

import configparser
import os
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotfish.errors import ConfigError


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Where packages come from.

    Attributes:
        indexes: Simple-API roots in order; empty with ``no_index``, else never.
        find_links: Folders or pages with archives.
        no_index: Only ``find_links`` may be used.
        cert: A CA bundle file or folder, or "".
        client_cert: A client certificate file, or "".
        proxy: A proxy URL, or "" (the usual proxy variables count besides).
        trusted_hosts: Hosts whose certificate is not checked.
    """

    indexes: tuple[str, ...]
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    cert: str = ""
    client_cert: str = ""
    proxy: str = ""
    trusted_hosts: tuple[str, ...] = ()


def index_settings(environ: Mapping[str, str] | None = None) -> IndexSettings:
    """Read the user's settings of pip and uv.

    Args:
        environ: The environment variables; default this process's.

    Raises:
        ConfigError: A settings file of pip or uv does not parse.
    """
    env = os.environ if environ is None else environ
    pip, uv = _pip_files(env), _uv_files(env)

    def setting(name: str) -> str:
        key = f"PIP_{name.upper().replace('-', '_')}"
        return env.get(key) or pip.get(name, "")

    no_index = _true(setting("no-index")) or _true(env.get("UV_NO_INDEX", ""))
    main = [env.get(k, "") for k in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")]
    if not any(main):
        main = [pip.get("index-url", "")] if "index-url" in pip else uv["main"]
    extra = [
        *setting("extra-index-url").split(),
        *env.get("UV_EXTRA_INDEX_URL", "").split(),
        *env.get("UV_INDEX", "").split(),
        *uv["extra"],
    ]
    main = [url for url in main if url] or [default_index()]
    links = [*setting("find-links").split(), *env.get("UV_FIND_LINKS", "").split(), *uv["links"]]
    return IndexSettings(
        indexes=() if no_index else _unique(_without_name(url) for url in [*main, *extra]),
        find_links=_unique(part for link in links for part in link.split(",")),
        no_index=no_index,
        cert=setting("cert") or env.get("REQUESTS_CA_BUNDLE", "") or env.get("CURL_CA_BUNDLE", ""),
        client_cert=setting("client-cert"),
        proxy=setting("proxy"),
        trusted_hosts=_unique(
            [*setting("trusted-host").split(), *env.get("UV_INSECURE_HOST", "").split()]
        ),
    )


def default_index() -> str:
    """The index that is used when nobody configured one."""
    from unearth import PackageFinder

    return str(PackageFinder().sources[0]["url"])


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value))


def _without_name(url: str) -> str:
    """The URL of uv's ``name=url``; a plain URL has its first "=" behind "://", if any."""
    name, equals, rest = url.partition("=")
    return rest if equals and "://" not in name else url


def _true(value: str) -> bool:
    return value.strip().lower() in {"1", "true", "yes", "on", "t", "y"}


def _pip_files(env: Mapping[str, str]) -> dict[str, str]:
    """The settings files of pip merged: machine, user, environment, then PIP_CONFIG_FILE."""
    chosen = env.get("PIP_CONFIG_FILE", "")
    if chosen == os.devnull:
        return {}
    import platformdirs

    name = "pip.ini" if sys.platform == "win32" else "pip.conf"
    machine = platformdirs.site_config_dir("pip", appauthor=False, multipath=True)
    folders = [*machine.split(os.pathsep), "/etc"]
    user = [Path.home() / ("pip" if sys.platform == "win32" else ".pip")]
    user.append(Path(platformdirs.user_config_dir("pip", appauthor=False, roaming=True)))
    if sys.platform == "darwin":
        user.append(Path.home() / ".config" / "pip")
    files = [*(Path(f) / name for f in folders), *(f / name for f in user), Path(sys.prefix) / name]
    if chosen:
        files.append(Path(chosen).expanduser())
    merged: dict[str, str] = {}
    for file in files:
        if not file.is_file():
            continue
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"pip's settings file {file} does not parse: {error}.") from error
        for section in ("global", "install", "download"):
            if parser.has_section(section):
                merged |= {k.replace("_", "-"): v for k, v in parser.items(section)}
    return merged


def _uv_files(env: Mapping[str, str]) -> dict[str, list[str]]:
    """The indexes of uv's settings files; the user's come before the machine's."""
    found: dict[str, list[str]] = {"main": [], "extra": [], "links": []}
    home = Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    files = [home / "uv" / "uv.toml", Path("/etc/uv/uv.toml")]
    if chosen := env.get("UV_CONFIG_FILE"):
        files = [Path(chosen).expanduser()]
    if _true(env.get("UV_NO_CONFIG", "")):
        files = []
    for file in files:
        if not file.is_file():
            continue
        try:
            data: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"uv's settings file {file} does not parse: {error}.") from error
        for row in data.get("index", []):
            found["main" if row.get("default") else "extra"].append(str(row.get("url", "")))
        found["main"] += [data["index-url"]] if "index-url" in data else []
        found["extra"] += data.get("extra-index-url", [])
        found["links"] += data.get("find-links", [])
    return found
