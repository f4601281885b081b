"""Images from a registry, through skopeo: it knows authentication, mirrors and manifest lists."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from lab.errors import CommandError, ImageError
from lab.host.command import run
from lab.images.ociconfig import architecture
from lab.images.progress import Note, Progress
from lab.images.store import ORIGIN, Image, Origin, Store

ANSWER_SECONDS = 8.0
FETCH_SECONDS = 900.0
REGISTRY_DIGEST = "lab.registry.digest"


class Unreachable(Exception):
    """No registry gave the image; the text says why."""


def fetch(name: str, store: Store, progress: Progress) -> Image:
    """Copy the image into the store. Raises Unreachable when no registry answers soon, or none has it."""
    try:
        answer = run(
            ["skopeo", f"--command-timeout={ANSWER_SECONDS:g}s", "inspect", "--raw", f"docker://{name}"],
            timeout_seconds=ANSWER_SECONDS + 1,
        )
    except CommandError as error:
        raise Unreachable(_reason(error)) from error
    progress(Note(text=f"fetching {name}"))
    with store.scratch("fetch") as directory:
        layout = directory / "oci"
        run(
            [
                "skopeo", "--insecure-policy", "--override-os=linux", f"--override-arch={architecture()}",
                "copy", "--quiet", f"docker://{name}", f"oci:{layout}:image",
            ],
            timeout_seconds=FETCH_SECONDS, hint="check the network, then try again",
        )  # fmt: skip
        notes = {REGISTRY_DIGEST: f"sha256:{hashlib.sha256(answer.stdout).hexdigest()}"}
        return adopt(layout, name, store, Origin.REGISTRY, notes)


def adopt(layout: Path, name: str, store: Store, origin: Origin, annotations: dict[str, str] | None = None) -> Image:
    """Take the one image of another OCI layout into the store, checking every digest. Raises ImageError."""
    try:
        described = json.loads((layout / "index.json").read_bytes())["manifests"][0]
        manifest = json.loads(_blob(layout, described["digest"]).read_bytes())
        parts = [manifest["config"], *manifest["layers"]]
        digests = [part["digest"] for part in parts]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ImageError(f"{layout} is not an OCI image layout with one image", hint="fetch it again") from error
    for digest in (*digests, described["digest"]):
        store.adopt_blob(_blob(layout, digest), digest)
    return store.tag(name, described, {ORIGIN: origin.value, **(annotations or {})})


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:").replace("/", "_")


def _reason(error: CommandError) -> str:
    """skopeo logs one long line; what matters is at its end."""
    lines = error.detail.splitlines()
    last = lines[-1] if lines else error.message
    return last.rpartition('msg="')[2].rstrip('"').replace("\\", "")
