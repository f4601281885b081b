"""Take out of a text what names this host, its users, its addresses, or what its environment holds.

Nothing is known to be in the text: whatever could be is looked for. What is taken out leaves a word in brackets, so
that a reader sees that something was there.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

HOST, USER, HOME, ADDRESS, MAC, SECRET = (
    f"[{word}]" for word in ("host name", "user", "home", "address", "MAC", "environment")
)
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASS|PWD|KEY|AUTH|CREDENTIAL|COOKIE|PROXY|DSN|URL|URI", re.IGNORECASE)
HARMLESS = re.compile(
    r"PATH|PWD|OLDPWD|LANG|LANGUAGE|LC_\w+|TERM|COLORTERM|SHELL|SHLVL|EDITOR|PAGER|LS_COLORS|DEBIAN_FRONTEND|TZ|_"
    r"|SUDO_COMMAND|SUDO_UID|SUDO_GID|XDG_\w+|PYTHON\w*|LAB_ACCELERATOR|container"
)
"""Their values are words that everybody's environment has, or paths, which are looked for by themselves."""

SHORTEST_SECRET, SHORTEST_VALUE = 4, 8
EVERYBODYS = frozenset({"", "localhost", "localdomain", "debian", "ubuntu", "root", "nobody", "linux"}) | frozenset(
    {"container", "docker", "host", "kvm", "lab", "server", "test", "user", "vm"}
)
"""Names that tell nobody from another."""

FIRST_USER, LAST_USER = 1000, 60000  # login.defs(5), UID_MIN and UID_MAX
IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)")
IPV6 = re.compile(r"(?<![\w:.])[0-9a-fA-F:]*:[0-9a-fA-F:]*:[0-9a-fA-F:.]*(?:%\w+)?(?![\w:])")
MAC_ADDRESS = re.compile(r"(?<![\w:])[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5}(?![\w:])")
USER_OF_URL = re.compile(r"(?<=://)[^/\s@]+@")
LABS_OWN = ip_network("198.18.0.0/15")  # RFC 2544: the same on every host


def anonymous(text: str, environment: Mapping[str, str] | None = None) -> str:
    """``text`` without values of the ``environment``, by default this process's, home folders, users, host names,
    addresses and MACs.
    """
    held = os.environ if environment is None else environment
    for value, word in (*_values(held), *_homes(held)):
        text = text.replace(value, word)
    text = USER_OF_URL.sub(f"{SECRET}@", text)
    text = MAC_ADDRESS.sub(MAC, text)
    text = IPV4.sub(_address, IPV6.sub(_address, text))
    for name, word in (*((name, HOST) for name in _host_names()), *((name, USER) for name in _users(held))):
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", word, text, flags=re.IGNORECASE)
    return text


def _values(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """The longest first, so that none is taken for a part of another."""
    found = []
    for name, value in environment.items():
        if HARMLESS.fullmatch(name):
            continue
        secret = bool(SECRET_NAME.search(name))
        is_folder = value.startswith("/") and not secret  # `_homes`
        if len(value) >= (SHORTEST_SECRET if secret else SHORTEST_VALUE) and not is_folder:
            found.append((value, SECRET))
    return sorted(found, key=lambda each: -len(each[0]))


def _homes(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Folders whose path tells who works here: lab's home keeps its name, the others become one word."""
    folders = {str(Path(each.pw_dir)) for each in _accounts(environment)} | {environment.get("HOME", "")}
    folders |= {path for name in ("LAB_HOME", "TMPDIR", "VIRTUAL_ENV") if (path := environment.get(name, ""))}
    folders |= {str(Path(__file__).resolve().parents[2]), str(Path.cwd())}
    real = {os.path.realpath(folder) for folder in folders if folder}
    chosen = {folder for folder in folders | real if folder.count("/") > 1 or folder == "/root"}
    return [(folder, HOME) for folder in sorted(chosen, key=len, reverse=True)]


def _users(environment: Mapping[str, str]) -> list[str]:
    names = {each.pw_name for each in _accounts(environment)}
    names |= {environment.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER", "DOAS_USER")}
    names |= {word for each in _accounts(environment) for word in each.pw_gecos.split(",")[:1]}
    return sorted((name for name in names if name.lower() not in EVERYBODYS and len(name) > 1), key=len, reverse=True)


def _accounts(environment: Mapping[str, str]) -> Iterator[pwd.struct_passwd]:
    """Of people: whoever has an ordinary number, and whoever calls."""
    yield from (each for each in pwd.getpwall() if FIRST_USER <= each.pw_uid <= LAST_USER)
    for name in ("USER", "SUDO_USER"):
        with suppress(KeyError):
            found = pwd.getpwnam(environment.get(name, ""))
            if found.pw_uid >= FIRST_USER:
                yield found


def _host_names() -> list[str]:
    """The host's name with and without its domain, and what it was once called in /etc/hostname."""
    names = {socket.gethostname(), os.uname().nodename}
    with suppress(OSError):
        names.add(Path("/etc/hostname").read_text().strip())
    with suppress(OSError):
        lines = [line.partition("#")[0].split() for line in Path("/etc/hosts").read_text().splitlines()]
        names |= {name for words in lines for name in words[1:] if not name.startswith("ip6-")}
    names |= {name.partition(".")[0] for name in names} | {name.partition(".")[2] for name in names}
    return sorted((name for name in names if name.lower() not in EVERYBODYS and len(name) > 1), key=len, reverse=True)


def _address(found: re.Match[str]) -> str:
    """The word for an address; the text itself where it is none, or one that every host has."""
    text = found[0]
    try:
        address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    everybodys = address.is_loopback or address.is_unspecified or (address.version == 4 and address in LABS_OWN)
    return text if everybodys else ADDRESS
