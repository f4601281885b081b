"""An image as an OCI bundle on disk (runtime-spec, bundle.md): a root file system, and what to run in it."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.errors import LabError
from lab.images.image import Image
from lab.images.process import resolve
from lab.images.store import Store
from lab.images.transfer.export import export_tree
from lab.runtime import bundle


def export_bundle(store: Store, image: Image, directory: Path) -> None:
    """Make the new ``directory`` with ``config.json`` and ``rootfs``: what `lab run` would run, for any OCI runtime.

    The network is a new namespace with loopback alone, as a bundle can't know more. Needs root. Raises LabError when
    ``directory`` exists, and UsageError for an image that names no command.
    """
    process = resolve(image, store.lower_directories(image))
    try:
        directory.mkdir(parents=True, mode=0o755)
    except OSError as error:
        raise LabError(
            f"can't make {directory}: {error.strerror}", hint="--bundle DIR, which is not there yet"
        ) from error
    try:
        export_tree(store, image, directory / "rootfs")
        bundle.write(bundle.container_config(process, hostname=directory.resolve().name[:64]), directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
