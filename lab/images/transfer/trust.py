"""A certificate that is lent to what lab fetches and to RUN, for networks whose proxy opens TLS, and never kept.

``LAB_CA`` (``--ca FILE``) names a PEM file. What reaches out gets it together with the host's own certificates: steps
of a build as a read-only mount in /dev with the variables that programs look at, skopeo, git and downloads by the
same variables, mmdebstrap by an option of apt. Neither the image nor a cache key knows of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from lab.errors import UsageError
from lab.images.runner import BindMount

VARIABLE = "LAB_CA"
TARGET = "/dev/lab-certificates"  # a step's /dev is a file system of its own, so nothing of this gets into a layer
BUNDLE, APT = "bundle.pem", "apt.conf"
SYSTEM = Path("/etc/ssl/certs/ca-certificates.crt")
CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
LARGEST_BYTES = 8 << 20

OF_PROGRAMS = (
    "SSL_CERT_FILE",  # OpenSSL, Go: openssl-env(7)
    "CURL_CA_BUNDLE",  # curl(1)
    "REQUESTS_CA_BUNDLE",  # Python's requests, and pip
    "PIP_CERT",  # pip
    "GIT_SSL_CAINFO",  # git-config(1), http.sslCAInfo
    "NODE_EXTRA_CA_CERTS",  # node(1), npm
    "CARGO_HTTP_CAINFO",  # cargo
)
"""The variables by which programs are told of a file with certificates."""


def use(file: Path | str) -> None:
    """Lend ``file`` from now on, in this process and those it starts. Raises UsageError for what holds none."""
    _certificates(Path(file))
    os.environ[VARIABLE] = str(Path(file).resolve())


def lent() -> Path | None:
    """The file that is lent, or None. Raises UsageError for one that can't be."""
    word = os.environ.get(VARIABLE, "")
    if not word:
        return None
    _certificates(Path(word))
    return Path(word)


def write(directory: Path) -> Path | None:
    """The host's certificates and the one lent as one file below ``directory``, or None where none is lent."""
    file = lent()
    if file is None:
        return None
    folder = directory / "certificates"
    folder.mkdir(mode=0o755)
    own = SYSTEM.read_bytes().rstrip() + b"\n" if SYSTEM.exists() else b""
    bundle = folder / BUNDLE
    bundle.write_bytes(own + b"\n".join(_certificates(file)) + b"\n")
    (folder / APT).write_text(f'Acquire::https::CaInfo "{TARGET}/{BUNDLE}";\n')
    for made in (bundle, folder / APT):
        made.chmod(0o644)
    return bundle


def variables(bundle: Path | str | None) -> dict[str, str]:
    """What tells programs of ``bundle``; nothing for None."""
    return dict.fromkeys(OF_PROGRAMS, str(bundle)) if bundle else {}


def for_a_step(directory: Path) -> tuple[Mapping[str, str], tuple[BindMount, ...]]:
    """The variables and the mount of a RUN; both are empty where nothing is lent."""
    bundle = write(directory)
    if bundle is None:
        return {}, ()
    told = {**variables(f"{TARGET}/{BUNDLE}"), "APT_CONFIG": f"{TARGET}/{APT}"}
    return told, (BindMount(target=TARGET, source=bundle.parent),)


def _certificates(file: Path) -> list[bytes]:
    try:
        with file.open("rb") as opened:
            found = CERTIFICATE.findall(opened.read(LARGEST_BYTES))
    except OSError as error:
        raise UsageError(
            f"--ca {file}: {error.strerror}", hint="a PEM file with your network's certificate"
        ) from error
    if not found:
        raise UsageError(
            f"--ca {file} holds no certificate in PEM form",
            hint=f"openssl x509 -inform der -in {file} -out {file.with_suffix('.pem')}, if it is in DER form",
        )
    return found
