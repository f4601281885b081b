"""What a page of docs/ tells to write: its blocks, each below a line that ends with the name of a file."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"`([^`\n]+)`:\n\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def checkout(folder: Path, *parts: str) -> Path:
    """A copy of parts of this checkout, to be changed. With what Python has compiled, which is by far the most work
    of a program that starts there; of a file that is changed it is not believed.
    """
    for part in parts:
        target = folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target)
        else:
            shutil.copy(ROOT / part, target)
    return folder


def follow(page: str, folder: Path) -> list[str]:
    """Do in ``folder`` what a page tells: write its files, add the lines of its differences. Returns their names."""
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    for name, language, text in blocks:
        path = folder / name
        if language == "diff":
            path.write_text(changed(path.read_text(encoding="utf-8"), text, name), encoding="utf-8")
        else:
            assert not path.exists(), f"{page} tells to write {name}, which is there already"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return [name for name, _, _ in blocks]


def changed(text: str, difference: str, name: str) -> str:
    """``text`` without the lines marked by a minus sign, and with those by a plus sign, behind what stands before."""
    lines = text.splitlines()
    at = None
    for line in difference.splitlines():
        if line.startswith("+"):
            assert at is not None, f"{name}: a line is added behind none"
            at += 1
            lines.insert(at, line[1:])
        else:
            assert lines.count(line[1:]) == 1, f"{name} has this line {lines.count(line[1:])} times: {line[1:]}"
            at = lines.index(line[1:])
            if line.startswith("-"):
                del lines[at]
                at -= 1
    return "\n".join(lines) + "\n"
