"""ADD from elsewhere: a file by HTTP, with its checksum where one is given, or a git repository.

A download without a checksum is fetched at every build: only its content tells whether it has changed.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import os
import posixpath
import re
import shlex
import shutil
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from lab import __version__
from lab.errors import CommandError, DockerfileError
from lab.host.command import run
from lab.images.store import Store
from lab.images.transfer import trust
from lab.images.transfer.trouble import find as find_trouble

ANSWER_SECONDS = 60.0
CLONE_SECONDS = 900.0
CHUNK_BYTES = 1 << 20
MODE = 0o600  # as Docker has it
GIT_ADDRESS = re.compile(r"(?:git|ssh)://|git@[\w.-]+:|https?://[^#?]+\.git(?:[#?]|$)", re.IGNORECASE)
HTTP_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")


def is_git(source: str) -> bool:
    """Whether an ADD's source is a repository: by its scheme, or an HTTP address whose path ends in .git."""
    return GIT_ADDRESS.match(source) is not None


def is_http(source: str) -> bool:
    """Whether an ADD's source is a file to be downloaded."""
    return HTTP_ADDRESS.match(source) is not None and not is_git(source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A file from elsewhere; ``name`` is "" when its address has none."""

    path: Path
    name: str


def check_checksum(checksum: str, line: int) -> None:
    """Raises DockerfileError unless it is empty or ``sha256:`` and 64 hex digits."""
    if checksum and not CHECKSUM.fullmatch(checksum):
        raise DockerfileError(
            f"ADD --checksum={checksum} is not sha256: and 64 hex digits", line=line, hint="sha256sum FILE"
        )


def download(address: str, checksum: str, store: Store, directory: Path, line: int) -> Download:
    """Fetch ``address`` into ``directory``. Raises DockerfileError when it can't be had or has another checksum.

    A file whose checksum is known is kept in the store, and fetched once.
    """
    path = directory / "download"
    kept = store.home / "downloads" / checksum.removeprefix("sha256:") if checksum else None
    url = urllib.parse.urlsplit(address)
    name = posixpath.basename(urllib.parse.unquote(url.path))
    if kept is not None and kept.is_file():
        shutil.copy2(kept, path)  # with its mode and time: they are in the key of what is made of it
        path.chmod(MODE)
        return Download(path=path, name=name)
    request = urllib.request.Request(address, headers={"User-Agent": f"lab/{__version__}"})
    try:
        context = ssl.create_default_context(cafile=trust.write(directory))
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=context) as response:
            found = _receive(response, path)
            disposition = response.headers.get_filename() or name
            modified = email.utils.parsedate_tz(response.headers.get("Last-Modified", ""))
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = f"{error.code} {error.reason}" if isinstance(error, urllib.error.HTTPError) else error
        trouble = find_trouble(str(reason))
        raise DockerfileError(
            f"ADD {address}: {f'{trouble.what}: ' if trouble else ''}{reason}", line=line,
            hint=trouble.hint if trouble else f"curl -I {address}",
        ) from error  # fmt: skip
    if checksum and found != checksum:
        raise DockerfileError(
            f"ADD {address} has the checksum {found}, not {checksum}", line=line, hint="don't trust it, or correct it"
        )
    path.chmod(MODE)
    stamp = email.utils.mktime_tz(modified) if modified else 0
    os.utime(path, (stamp, stamp))
    if kept is not None:
        kept.parent.mkdir(exist_ok=True)
        fresh = directory / "kept"
        shutil.copy2(path, fresh)
        fresh.replace(kept)
    return Download(path=path, name=posixpath.basename(disposition))


def _receive(response: http.client.HTTPResponse, path: Path) -> str:
    state = hashlib.sha256()
    with path.open("wb") as file:
        while chunk := response.read(CHUNK_BYTES):
            state.update(chunk)
            file.write(chunk)
    if response.length:  # what http.client still expects: it raises nothing itself when it reads by pieces
        raise http.client.IncompleteRead(b"", response.length)
    return f"sha256:{state.hexdigest()}"


def _for_git(agent: Path | None) -> dict[str, str]:
    """What git finds of this user: no settings, no credentials, no keys but those of an ``agent`` that was offered by
    --ssh. The address may be a stranger's, in ONBUILD of a base image, and so may the steps after it. Which host has
    which key is no secret.
    """
    known = Path.home() / ".ssh/known_hosts"
    ssh = f"ssh -F /dev/null -o IdentityFile=none -o BatchMode=yes -o UserKnownHostsFile={shlex.quote(str(known))}"
    return {
        **dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL"), os.devnull),
        **dict.fromkeys(("GIT_ASKPASS", "SSH_ASKPASS"), ""),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSH_COMMAND": ssh,
        "SSH_AUTH_SOCK": str(agent or ""),
    }


def clone(
    address: str, directory: Path, *, keep_git_directory: bool, line: int, agent: Path | None = None
) -> tuple[Path, str]:
    """Fetch a repository, ``ADDRESS[#REF[:SUBDIRECTORY]]``; the folder to copy, and the commit. ``agent`` is the
    socket of an SSH agent to ask.

    Raises DockerfileError when git is missing or the repository can't be had.
    """
    repository, _, fragment = address.partition("#")
    ref, _, below = fragment.partition(":")
    work = directory / "repository"
    quiet = {**_for_git(agent), **trust.variables(trust.write(directory))}
    git = ["git", "-C", str(work)]
    try:
        run(
            ["git", "init", "--quiet", str(work)], timeout_seconds=ANSWER_SECONDS, environment=quiet,
            hint="apt-get install git",
        )  # fmt: skip
        run([*git, "remote", "add", "origin", "--", repository], timeout_seconds=ANSWER_SECONDS, environment=quiet)
        fetch = [*git, "fetch", "--quiet", "--update-head-ok"]
        wanted = ref or "HEAD"
        shallow = run(
            [*fetch, "--depth=1", "--end-of-options", "origin", wanted],
            timeout_seconds=CLONE_SECONDS,
            environment=quiet,
            check=False,
        )
        if shallow.exit_code != 0:  # a server that can't be asked for that: a commit, or plain files over HTTP
            run([*fetch, "--tags", "origin", "+refs/*:refs/lab/*"], timeout_seconds=CLONE_SECONDS, environment=quiet)
            wanted = _resolve(git, ref)
        else:
            wanted = "FETCH_HEAD"
        checkout = [*git, "-c", "advice.detachedHead=false", "checkout", "--quiet", wanted]
        run(checkout, timeout_seconds=CLONE_SECONDS, environment=quiet)
        commit = run([*git, "rev-parse", "HEAD"], timeout_seconds=ANSWER_SECONDS).stdout.decode().strip()
    except CommandError as error:
        said = error.detail.splitlines()[-1] if error.detail else error.message
        trouble = find_trouble(error.detail)
        raise DockerfileError(
            f"ADD {address}: {f'{trouble.what}: ' if trouble else ''}{said}", line=line,
            hint=trouble.hint if trouble else error.hint or f"git ls-remote {repository}",
        ) from error  # fmt: skip
    if not keep_git_directory:
        shutil.rmtree(work / ".git")
    folder = (work / below.lstrip("/")).resolve()
    if not folder.is_dir() or not folder.is_relative_to(work.resolve()):
        raise DockerfileError(f"ADD {address}: there is no folder {below} in it", line=line, hint="#REF:FOLDER")
    return folder, commit


def _resolve(git: list[str], ref: str) -> str:
    """What ``ref`` means in a repository whose every ref was fetched below refs/lab."""
    names = [f"refs/lab/heads/{ref}", f"refs/lab/tags/{ref}", ref] if ref else []
    for name in (*names, *([] if ref else ["refs/lab/heads/main", "refs/lab/heads/master"])):
        words = [*git, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"]
        found = run(words, timeout_seconds=ANSWER_SECONDS, check=False)
        if found.exit_code == 0:
            return found.stdout.decode().strip()
    raise CommandError(f"the repository has no {ref or 'main or master'}")
