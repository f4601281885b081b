"""``lab image``: what the store holds, and the ways in and out of it."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

DIGEST_CHARACTERS = len("sha256:") + 12


@app.callback()
def image() -> None:
    """Look at the images in lab's store."""


@app.command("ls")
def list_images() -> None:
    """List the images: name, digest, where the bits came from, size, age."""
    from lab.host.units import format_bytes
    from lab.images.store import Store

    rows = [("NAME", "DIGEST", "ORIGIN", "SIZE", "CREATED")]
    for one in Store.open().images():
        origin = f"{one.origin} on {one.base.name} ({one.base.origin})" if one.base else str(one.origin)
        created = one.created.astimezone().strftime("%Y-%m-%d %H:%M")
        rows.append((one.name, one.digest[:DIGEST_CHARACTERS], origin, format_bytes(one.size_bytes), created))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
