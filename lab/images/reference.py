"""Image names as people write them, brought to one form.

``python`` → ``python:latest``; ``docker.io/library/python:3.11`` → ``python:3.11``; ``NAME@sha256:…`` keeps its
digest. Grammar: the distribution project's reference grammar, as far as people use it.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from lab.errors import UsageError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
# a first part is a registry if it can't be taken for a name: it has a dot or a port, or is localhost
_HOST = r"(?:(?:localhost|[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+|[a-zA-Z0-9-]+(?=:[0-9]+/))(?::[0-9]+)?/)?"
_NAME = re.compile(
    rf"(?P<path>{_HOST}{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_IMPLIED = ("docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/")


def normalise(name: str) -> str:
    """``name`` in the form the store keeps. Raises UsageError when it is not an image name."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(
            f"{name!r} is not an image name", hint="lower-case letters, digits and . _ - /, then an optional :TAG"
        )
    path = match["path"]
    for implied in _IMPLIED:
        path = path.removeprefix(implied)
    digest = f"@{match['digest']}" if match["digest"] else ""
    tag = match["tag"] or ("" if digest else "latest")
    return path + (f":{tag}" if tag else "") + digest


def registry_of(name: str) -> str:
    """The registry that a name in `normalise`'s form leads to, as containers-auth.json(5) writes it."""
    first, slash, _ = name.partition("/")
    return first if slash and (first == "localhost" or "." in first or ":" in first) else "docker.io"


def from_folder(name: str) -> str:
    """An image name for what is built from a folder: ``My App`` → ``my-app``.

    A repository's name is of a-z and 0-9 (OCI distribution-spec, "Pulling manifests"). A name with other letters
    keeps what there is of these, and gets a digest of the whole, so that no two share an image: ``übung`` →
    ``ubung-`` and eight digits.
    """
    plain = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "image"
    if name.isascii():
        return slug
    return f"{slug}-{hashlib.sha256(unicodedata.normalize('NFC', name).encode()).hexdigest()[:8]}"
