"""``lab image pull``, ``push``, ``save``, ``load``, ``import``, ``export``, ``disk``: into the store, and out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from lab.commands.completion import complete_image
from lab.commands.privilege import become_root, require_root
from lab.errors import LabError, UsageError

if TYPE_CHECKING:
    from lab.images.store import Image
    from lab.images.transfer.registry import Access

STANDARD = "-"
STORED = typer.Argument(metavar="IMAGE", autocompletion=complete_image)
AUTHFILE = typer.Option("--authfile", metavar="FILE", help="Credentials, as skopeo login keeps them.")
CREDENTIALS = typer.Option("--creds", metavar="USER:PASSWORD", help="Credentials, for this once.")
VERIFY_TLS = typer.Option("--tls-verify", metavar="true|false", help="Default: as registries.conf(5) has it.")


def pull(
    name: Annotated[str, typer.Argument(metavar="IMAGE")],
    authfile: Annotated[Path | None, AUTHFILE] = None,
    creds: Annotated[str, CREDENTIALS] = "",
    tls_verify: Annotated[str, VERIFY_TLS] = "",
) -> None:
    """Fetch an image from a registry, whether the store has it or not."""
    from lab.images.store import Store
    from lab.images.transfer.registry import pull as fetch

    _conclude(fetch(name, Store.open(), access=_access(authfile, creds, tls_verify)))


def push(
    name: Annotated[str, STORED],
    destination: Annotated[str, typer.Argument(metavar="[NAME]", help="The name there. Default: the same.")] = "",
    authfile: Annotated[Path | None, AUTHFILE] = None,
    creds: Annotated[str, CREDENTIALS] = "",
    tls_verify: Annotated[str, VERIFY_TLS] = "",
) -> None:
    """Copy an image to a registry; it keeps its digest."""
    from lab.images.reference import normalise
    from lab.images.store import Store
    from lab.images.transfer.registry import push as send

    store = Store.open()
    image = store.find(name)
    target = normalise(destination or image.name)
    digest = send(image, target, store, _access(authfile, creds, tls_verify))
    print(f"{target}  {digest}")


def save(
    names: Annotated[list[str], typer.Argument(metavar="IMAGE…", autocompletion=complete_image)],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Default: standard output.")
    ] = STANDARD,
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="oci-archive, or docker-archive.")
    ] = "oci-archive",
) -> None:
    """Write images into one file, for lab image load, skopeo, podman or docker load."""
    from lab.images.store import Store
    from lab.images.transfer import archive

    try:
        chosen = archive.Format(form)
    except ValueError:
        raise UsageError(f"--format {form} is unknown", hint="oci-archive or docker-archive") from None
    store = Store.view()
    images = [store.find(name) for name in names]
    with _written(output) as target:
        archive.save(images, store, target, chosen)


def load(
    source: Annotated[str, typer.Argument(metavar="[FILE]", help="Default: standard input.")] = STANDARD,
    name: Annotated[str, typer.Option("--name", "-t", metavar="NAME", help="For an archive that has none.")] = "",
) -> None:
    """Take in the images of an OCI or Docker archive."""
    from lab.images.store import Store
    from lab.images.transfer import archive

    with _read(source) as reader:
        for image in archive.load(reader, Store.open(), name):
            _conclude(image)


def import_(
    source: Annotated[str, typer.Argument(metavar="FILE", help="A tar, plain or compressed; - is standard input.")],
    name: Annotated[str, typer.Argument(metavar="NAME")],
) -> None:
    """Make an image of one layer from a tar of a root file system."""
    from lab.images.reference import normalise
    from lab.images.store import Store
    from lab.images.transfer.export import import_tar

    become_root()
    normalise(name)
    with _read(source) as reader:
        _conclude(import_tar(Store.open(), reader, name))


def export(
    name: Annotated[str, STORED],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="A tar. Default: standard output.")
    ] = "",
    bundle: Annotated[
        str, typer.Option("--bundle", metavar="DIR", help="An OCI bundle instead: runc run -b DIR.")
    ] = "",
) -> None:
    """Write an image's files as one tar, or as a bundle that any OCI runtime runs."""
    from lab.images.store import Store
    from lab.images.transfer.export import export_tar

    if output and bundle:
        raise UsageError("-o and --bundle exclude each other", hint="choose one of the two")
    become_root()
    store = Store.open()
    image = store.find(name)
    if bundle:
        from lab.runtime.export import export_bundle

        export_bundle(store, image, Path(bundle))
        print(f"{bundle}: run it with: runc run --bundle {bundle} {Path(bundle).resolve().name}")
        return
    with _written(output or STANDARD) as target:
        export_tar(store, image, target)


def disk(
    name: Annotated[str, STORED],
    output: Annotated[Path, typer.Argument(metavar="FILE", help="FILE.qcow2 or FILE.raw.")],
    free: Annotated[str, typer.Option("--free", metavar="SIZE", help="Room for the application to fill.")] = "1G",
) -> None:
    """Make a disk that boots by itself in any virtual machine, and runs the image's command."""
    from lab.backends.support.vmm import vmm_filter
    from lab.host.units import parse_bytes
    from lab.hypervisor.accelerator import find_accelerator
    from lab.hypervisor.guest.bootdisk import make_boot_disk
    from lab.images.store import Store

    require_root()
    store = Store.open()
    made = make_boot_disk(store, store.find(name), output, free_bytes=parse_bytes(free))
    print(made.command(find_accelerator(store.home, vmm_filter())))


def _access(authfile: Path | None, creds: str, tls_verify: str) -> Access:
    from lab.images.transfer.registry import Access

    if tls_verify not in ("", "true", "false"):
        raise UsageError(
            f"--tls-verify={tls_verify} is not understood", hint="--tls-verify=true or --tls-verify=false"
        )
    if creds and ":" not in creds:
        raise UsageError("--creds has no password", hint="--creds USER:PASSWORD, or skopeo login REGISTRY")
    if authfile is not None and not authfile.is_file():
        raise UsageError(f"there is no {authfile}", hint="skopeo login --authfile FILE REGISTRY makes one")
    return Access(authfile=authfile, credentials=creds, verify_tls=tls_verify == "true" if tls_verify else None)


@contextmanager
def _read(source: str) -> Iterator[IO[bytes]]:
    if source == STANDARD:
        if sys.stdin.isatty():
            raise UsageError("there is no archive on the terminal", hint="name a FILE, or redirect one")
        yield sys.stdin.buffer
        return
    try:
        reader = Path(source).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UsageError(f"can't read {source}: {error.strerror}", hint="name an archive") from error
    with reader:
        yield reader


@contextmanager
def _written(target: str) -> Iterator[IO[bytes]]:
    """A file that has its name once it is whole; or standard output, when that is no terminal."""
    if target == STANDARD:
        if sys.stdout.isatty():
            raise UsageError("an archive is nothing for a terminal", hint="-o FILE, or redirect it")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(target)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        writer = unfinished.open("wb")
    except OSError as error:
        raise LabError(f"can't write {target}: {error.strerror}", hint="-o FILE in a folder that exists") from error
    try:
        with writer:
            yield writer
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _conclude(image: Image) -> None:
    from lab.host.units import format_bytes

    print(f"{image.name}  {image.digest}  {format_bytes(image.size_bytes)} in {len(image.layers)} layers")
