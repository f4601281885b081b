"""Images from and to a registry, through skopeo: it knows authentication, mirrors and manifest lists.

Credentials are where containers' tools keep them (containers-auth.json(5)): ``--authfile``, ``$REGISTRY_AUTH_FILE``,
``${XDG_RUNTIME_DIR}/containers/auth.json``, ``~/.docker/config.json``. Those given as ``--creds`` go into such a file
of our own for as long as skopeo runs: a command line can be read by everybody on the host.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.errors import CommandError, ImageError
from lab.host.command import run
from lab.images.ociconfig import architecture
from lab.images.progress import Note, Progress, silent
from lab.images.reference import normalise, registry_of
from lab.images.store import Image, Origin, Store
from lab.images.transfer import trust
from lab.images.transfer.adopt import adopt as adopt_image
from lab.images.transfer.trouble import find as find_trouble

ANSWER_SECONDS = 8.0
FETCH_SECONDS = 900.0
REGISTRY_DIGEST = "lab.registry.digest"


class Unreachable(Exception):
    """No registry gave the image; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How to speak to a registry. ``credentials`` are ``USER:PASSWORD``; ``verify_tls`` None: as configured."""

    authfile: Path | None = None
    credentials: str = ""
    verify_tls: bool | None = None

    @contextmanager
    def options(self, prefix: str, name: str, store: Store) -> Iterator[list[str]]:
        """skopeo's options; ``prefix`` is "" or, where a command has two ends, ``src-`` or ``dest-``."""
        words = [] if self.verify_tls is None else [f"--{prefix}tls-verify={str(self.verify_tls).lower()}"]
        if not self.credentials:
            yield [*words, f"--{prefix}authfile={self.authfile}"] if self.authfile else words
            return
        with store.scratch("auth") as directory:
            secret = base64.b64encode(self.credentials.encode()).decode()
            file = directory / "auth.json"
            file.touch(mode=0o600)
            file.write_text(json.dumps({"auths": {registry_of(name): {"auth": secret}}}))
            yield [*words, f"--{prefix}authfile={file}"]


def fetch(name: str, store: Store, progress: Progress, access: Access | None = None) -> Image:
    """Copy the image into the store. Raises Unreachable when no registry answers soon, or none has it, and ImageError
    when it does not arrive whole: nothing of it is kept then.
    """
    access = access or Access()
    with store.scratch("trust") as certificates, access.options("", name, store) as options:
        trusting = trust.variables(trust.write(certificates))
        try:
            answer = run(
                [
                    "skopeo",
                    f"--command-timeout={ANSWER_SECONDS:g}s",
                    "inspect",
                    "--raw",
                    *options,
                    f"docker://{name}",
                ],
                timeout_seconds=ANSWER_SECONDS + 1,
                environment=trusting,
            )
        except CommandError as error:
            raise Unreachable(_reason(error)) from error
    progress(Note(text=f"fetching {name}"))
    with store.scratch("fetch") as directory, access.options("src-", name, store) as options:
        delivered = directory / "delivered"
        trusting = trust.variables(trust.write(directory))
        try:
            run(
                [
                    "skopeo", "--insecure-policy", "--override-os=linux", f"--override-arch={architecture()}",
                    "copy", "--quiet", "--preserve-digests", *options, f"docker://{name}", f"dir:{delivered}",
                ],
                timeout_seconds=FETCH_SECONDS,
                environment={"TMPDIR": str(directory), **trusting},
            )  # fmt: skip
            manifest = (delivered / "manifest.json").read_bytes()
        except CommandError as error:
            reason = _reason(error)
            trouble = find_trouble(reason)
            raise ImageError(
                f"{name} could not be fetched: {trouble.what if trouble else reason}",
                hint=_remedy(reason, name),
                detail=trouble.line if trouble else "",
            ) from error
        except OSError as error:
            raise ImageError(f"skopeo did not deliver {name}", hint="check the network, then try again") from error
        notes = {REGISTRY_DIGEST: f"sha256:{hashlib.sha256(answer.stdout).hexdigest()}"}
        return adopt_image(
            manifest, lambda digest: delivered / store.blob(digest).name, name, store, Origin.REGISTRY, notes
        )


def pull(name: str, store: Store, progress: Progress = silent, access: Access | None = None) -> Image:
    """`fetch`, for who will have nothing else. Raises ImageError."""
    wanted = normalise(name)
    try:
        return fetch(wanted, store, progress, access)
    except Unreachable as error:
        raise ImageError(f"no registry gave {wanted}: {error}", hint=_remedy(str(error), wanted)) from error


def push(image: Image, destination: str, store: Store, access: Access | None = None) -> str:
    """Copy the image to a registry as ``destination``; its digest, the same here and there. Raises ImageError."""
    target = normalise(destination)
    with store.scratch("push") as directory, (access or Access()).options("dest-", target, store) as options:
        layout = _layout_of(image, store, directory / "layout")
        try:
            run(
                [
                    "skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", *options,
                    f"--digestfile={directory / 'digest'}", f"oci:{layout}", f"docker://{target}",
                ],
                timeout_seconds=FETCH_SECONDS,
                environment={"TMPDIR": str(directory), **trust.variables(trust.write(directory))},
            )  # fmt: skip
        except CommandError as error:
            reason = _reason(error)
            raise ImageError(f"the registry did not take {target}: {reason}", hint=_remedy(reason, target)) from error
        digest = (directory / "digest").read_text().strip()
    if digest != image.digest:
        raise ImageError(f"the registry calls {target} {digest}, not {image.digest}", hint="push it again")
    return digest


def _layout_of(image: Image, store: Store, layout: Path) -> Path:
    """An OCI layout of one image without a name: skopeo can't tell every name from the path before it."""
    (layout / "blobs").mkdir(parents=True)
    (layout / "blobs" / "sha256").symlink_to(store.blobs.absolute())
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry = next(one for one in store.entries() if one["digest"] == image.digest)
    described = {key: entry[key] for key in ("mediaType", "digest", "size")}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    return layout


def adopt(layout: Path, name: str, store: Store, origin: Origin, annotations: dict[str, str] | None = None) -> Image:
    """Take the one image of another OCI layout into the store, checking every digest. Raises ImageError."""

    def find(digest: str) -> Path:
        return layout / "blobs" / "sha256" / store.blob(digest).name

    try:
        described = json.loads((layout / "index.json").read_bytes())["manifests"][0]
        manifest = find(described["digest"]).read_bytes()
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ImageError(f"{layout} is not an OCI image layout with one image", hint="fetch it again") from error
    return adopt_image(manifest, find, name, store, origin, annotations)


def _reason(error: CommandError) -> str:
    """skopeo logs one long line; what matters is at its end."""
    lines = error.detail.splitlines()
    last = lines[-1] if lines else error.message
    return last.rpartition('msg="')[2].rstrip('"').replace("\\", "")


def _remedy(reason: str, name: str) -> str:
    """What helps against the commonest refusals, told by skopeo's words."""
    words = reason.lower()
    host = registry_of(name)
    if "http response to https client" in words:
        return "--tls-verify=false, if that registry is yours"
    if (trouble := find_trouble(reason, lasting=True)) is not None:  # a proxy wants authentication, too
        own = "; or --tls-verify=false, if that registry is yours" if "certificate" in words else ""
        return trouble.hint + own
    if any(word in words for word in ("unauthorized", "authentication", "denied", "credentials")):
        return f"skopeo login {host}, or --creds USER:PASSWORD, or --authfile FILE"
    if "manifest unknown" in words or "not found" in words:
        return f"skopeo list-tags docker://{name.partition('@')[0].rpartition(':')[0] or name} shows what there is"
    if (trouble := find_trouble(reason)) is not None:
        return trouble.hint
    return f"check the network: skopeo inspect docker://{name}"
