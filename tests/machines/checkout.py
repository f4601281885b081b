"""This checkout's files as they are now, uncommitted changes included: what a machine is given to run."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT = ("results/sample/", "results/boundaries/", "notebooks/")
"""Large, and nothing asks for them in a machine."""


def files(left_out: tuple[str, ...] = LEFT_OUT) -> list[Path]:
    """Relative to the checkout: what git tracks or would add."""
    listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT, *listing], capture_output=True, text=True, check=True
    )
    names = sorted(set(filter(None, done.stdout.split("\0"))))
    return [Path(name) for name in names if not name.startswith(left_out) and (ROOT / name).is_file()]


def archive() -> bytes:
    """A tar of them, modes kept, owners not."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name in files():
            tar.add(ROOT / name, arcname=str(name), recursive=False, filter=_nobodys)
    return buffer.getvalue()


def bundle(target: Path) -> None:
    """The commit that is checked out, for ``git clone target``: what a newcomer gets."""
    git = ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT]
    subprocess.run([*git, "bundle", "create", "--quiet", target, "HEAD"], check=True, capture_output=True)


def extract(directory: Path) -> None:
    """Put them into a new directory."""
    directory.mkdir(parents=True)
    subprocess.run(["tar", "-xz", "--no-same-owner", "-C", directory], input=archive(), check=True)


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
