"""``lab image``: what the store holds, and the ways in and out of it (image_transfer.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.images import transfer as image_transfer
from lab.commands.completion import complete_image
from lab.commands.output import JsonTo, write_json
from lab.commands.privilege import become_root, become_root_if_possible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.images.store import Image
    from lab.images.upkeep.prune import Collected

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

DIGEST_CHARACTERS = len("sha256:") + 12
IMAGE = typer.Argument(
    metavar="IMAGE", help="A name, a digest, or twelve digits of one.", autocompletion=complete_image
)
FORMAT = typer.Option(
    "--format", metavar="TEMPLATE", help="Print {{.Field}}s, as docker does; '{{json .}}' shows all."
)


@app.callback()
def image() -> None:
    """Images: look at them, move them, remove them."""


@app.command("ls")
def list_images(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Digests alone.")] = False,
    as_json: JsonTo = "",
    template: Annotated[str, FORMAT] = "",
) -> None:
    """List the images: name, digest, where the bits came from, size, age."""
    from lab.commands.console.template import render
    from lab.images.store import Store

    images = Store.view().images()
    rows = [_row(one) for one in images]
    if template:
        print("\n".join(render(template, row) for row in rows))
    elif as_json:
        write_json(rows, as_json)
    elif quiet:
        print("\n".join(dict.fromkeys(one.digest for one in images)))
    else:
        _table(("NAME", "DIGEST", "ORIGIN", "SIZE", "CREATED"), [_words(one) for one in images])


@app.command()
def inspect(
    images: Annotated[list[str], IMAGE],
    template: Annotated[str, FORMAT] = "",
) -> None:
    """Show all about images as JSON: configuration, layers, sizes, where they are used."""
    from lab.commands.console.template import render
    from lab.images.store import Store
    from lab.images.upkeep.describe import describe

    store = Store.view()
    found = [describe(store, store.find(name)) for name in images]
    if template:
        print("\n".join(render(template, one) for one in found))
    else:
        write_json(found, "-")


@app.command()
def history(
    name: Annotated[str, IMAGE],
    as_json: JsonTo = "",
    template: Annotated[str, FORMAT] = "",
    no_trunc: Annotated[bool, typer.Option("--no-trunc", help="Whole instructions and digests.")] = False,
) -> None:
    """Show what made an image: its steps, the newest first, with the size of what each added."""
    from lab.commands.console.template import render
    from lab.host.units import format_bytes
    from lab.images.store import Store
    from lab.images.upkeep.describe import steps

    store = Store.view()
    found = steps(store, store.find(name))
    if template:
        print("\n".join(render(template, one) for one in found))
        return
    if as_json:
        write_json(found, as_json)
        return
    rows = []
    for one in found:
        layer, text = str(one["Layer"]), " ".join(str(one["CreatedBy"]).split())
        took = "" if one["Seconds"] is None else f"{one['Seconds']:.1f} s"
        if not no_trunc:
            layer, text = layer[:DIGEST_CHARACTERS], text if len(text) <= 60 else text[:58] + " …"
        rows.append((layer or "–", "" if one["Empty"] else format_bytes(one["Size"]), took, text))
    _table(("LAYER", "SIZE", "TOOK", "CREATED BY"), rows)


@app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", autocompletion=complete_image)],
    new: Annotated[str, typer.Argument(metavar="NEW", autocompletion=complete_image)],
    as_json: JsonTo = "",
) -> None:
    """Show how two images differ: files added (A), changed (C), deleted (D), and the configuration."""
    from lab.images.store import Store
    from lab.images.upkeep.diff import compare

    store = Store.view()
    found = compare(store, store.find(old), store.find(new))
    if as_json:
        rows = [{"kind": one.kind, "path": one.path, "what": list(one.what)} for one in found]
        write_json(rows, as_json)
        return
    for one in found:
        print(f"{one.kind} {one.path}" + (f"  ({', '.join(one.what)})" if one.what else ""))


@app.command()
def rm(images: Annotated[list[str], IMAGE]) -> None:
    """Take names away, and remove what no other name leads to. An image that runs is kept."""
    from lab.images.store import Store
    from lab.images.upkeep.prune import remove

    become_root_if_possible()
    store = Store.open()
    names = list(dict.fromkeys(name for word in images for name in store.select(word)))
    collected = remove(store, names)
    for name in names:
        print(f"untagged {name}")
    _tell(collected, "removed")


@app.command()
def prune(
    cache: Annotated[bool, typer.Option("--cache", help="Forget the build cache too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove what no name, no build cache and no running instance leads to."""
    from lab.host.units import format_bytes
    from lab.images.store import Store
    from lab.images.upkeep.prune import cache_only, collect

    become_root_if_possible()
    store = Store.open()
    verb = "would be removed" if dry_run else "removed"
    _tell(collect(store, cache=cache, dry_run=dry_run), verb, nothing="nothing to remove")
    if not cache:
        count, size = cache_only(store)
        if size:
            kept = f"{count} layers that no image has; with RUN's cache mounts and downloads {format_bytes(size)}"
            print(f"the build cache keeps {kept}: lab image prune --cache")


@app.command()
def verify(
    mend: Annotated[
        bool, typer.Option("--repair", help="Remove what is broken and can be made again from the blobs.")
    ] = False,
    as_json: JsonTo = "",
) -> None:
    """Prove every digest in the store, and every unpacked layer against its archive."""
    from dataclasses import asdict

    from lab.images.store import Store
    from lab.images.upkeep import verify as proof

    become_root() if mend else become_root_if_possible()
    store = Store.open() if mend else Store.view()
    verdict = proof.verify(store)
    left = proof.repair(store, verdict.problems) if mend else list(verdict.problems)
    if as_json:
        write_json({**asdict(verdict), "problems": [asdict(one) for one in left]}, as_json)
    else:
        for problem in verdict.problems:
            print(f"{'✗' if problem in left else 'removed'} {problem.what}\n    {problem.where}")
        skipped = f"; {verdict.skipped} unpacked layers need root to be read" if verdict.skipped else ""
        counted = (verdict.images, "image"), (verdict.blobs, "blob"), (verdict.unpacked, "unpacked layer")
        print(", ".join(f"{count} {noun}{'s' * (count != 1)}" for count, noun in counted) + skipped)
    if left:
        raise typer.Exit(1)


for _command in (
    image_transfer.pull, image_transfer.push, image_transfer.save, image_transfer.load, image_transfer.import_,
    image_transfer.export, image_transfer.disk,
):  # fmt: skip
    app.command(_command.__name__.rstrip("_"))(_command)


def _row(one: Image) -> dict[str, Any]:
    """The fields of ``ls``, under docker's names where docker has them."""
    repository, _, tag = one.name.partition("@")[0].rpartition(":")
    return {
        "Name": one.name,
        "Repository": repository or one.name,
        "Tag": tag if repository else "",
        "ID": one.digest,
        "Digest": one.digest,
        "Origin": str(one.origin),
        "Base": one.base.name if one.base else "",
        "Size": one.size_bytes,
        "CreatedAt": one.created.isoformat(),
    }


def _words(one: Image) -> tuple[str, ...]:
    from lab.host.units import format_bytes

    origin = f"{one.origin} on {one.base.name} ({one.base.origin})" if one.base else str(one.origin)
    created = one.created.astimezone().strftime("%Y-%m-%d %H:%M")
    return one.name, one.digest[:DIGEST_CHARACTERS], origin, format_bytes(one.size_bytes), created


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _tell(collected: Sequence[Collected], verb: str, *, nothing: str = "") -> None:
    from lab.host.units import format_bytes

    for one in collected:
        print(f"{verb}: {one.count} {one.kind}, {format_bytes(one.size_bytes)}")
    if not collected and nothing:
        print(nothing)
