"""The picture of the packages shows their imports, and would not if these were others; test_style.py compares it."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
from test_style import loaded

TOOL = Path(__file__).parents[2] / "tools" / "rooms.py"
ROWS = [["lab.top"], ["lab.left", "lab.right"], ["lab.low"]]
IMPORTS = {
    "lab.top": frozenset({"lab.left", "lab.low"}),
    "lab.left": frozenset({"lab.low"}),
    "lab.right": frozenset[str](),
    "lab.low": frozenset[str](),
}


@pytest.fixture
def rooms() -> ModuleType:
    return loaded(TOOL)


def arrows(picture: str) -> set[str]:
    return set(re.findall(r"<title>(\S+ → \S+)</title>", picture))


def test_imports_are_those_of_the_sources(rooms: ModuleType) -> None:
    names = [room for row in rooms.layers() for room in row]
    found = rooms.imports(names)
    for room, there in found.items():
        path = TOOL.parents[1] / room.replace(".", "/")
        sources = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
        text = "\n".join(source.read_text(encoding="utf-8") for source in sources)
        said = set(re.findall(r"^\s*(?:from|import) (lab\.\w+)", text, re.MULTILINE))
        said |= {f"lab.{name}" for name in re.findall(r"^\s*from lab import (\w+)", text, re.MULTILINE)}
        assert said & set(names) - {room} <= there
    assert sum(map(len, found.values())) > 50


def test_an_arrow_that_follows_from_others_is_left_out_and_a_new_import_is_drawn(rooms: ModuleType) -> None:
    drawn = {"top → left", "left → low"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rooms, "what", lambda _: "A room")
        assert arrows(rooms.picture(ROWS, IMPORTS)) == drawn
        more = IMPORTS | {"lab.right": frozenset({"lab.low"})}
        assert arrows(rooms.picture(ROWS, more)) == drawn | {"right → low"}
        without = IMPORTS | {"lab.left": frozenset[str]()}
        assert arrows(rooms.picture(ROWS, without)) == {"top → left", "top → low"}


def test_no_room_lies_upon_another(rooms: ModuleType) -> None:
    boxes = [
        tuple(map(float, found))
        for found in re.findall(r'<rect x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', rooms.today())
    ]
    assert len(boxes) == sum(map(len, rooms.layers()))
    for number, (x, y, width, height) in enumerate(boxes):
        assert x >= 0
        assert x + width <= rooms.WIDTH
        for other_x, other_y, other_width, other_height in boxes[:number]:
            beside = x >= other_x + other_width or other_x >= x + width
            assert beside or y >= other_y + other_height or other_y >= y + height
