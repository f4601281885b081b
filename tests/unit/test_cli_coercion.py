"""A command gets the same whether or not typer was spared the conversion, and pydantic is not imported for it."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command

from lab.cli import coercion


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


def called(words: list[str], *, spare: bool) -> dict[str, Any]:
    """What the command is given."""
    app = typer.Typer()
    given: dict[str, Any] = {}

    @app.command()
    def command(
        name: Annotated[str, typer.Argument()],
        rest: Annotated[list[str] | None, typer.Argument()] = None,
        label: Annotated[list[str] | None, typer.Option("--label")] = None,
        size: Annotated[Size, typer.Option("--size")] = Size.SMALL,
        count: Annotated[int, typer.Option("--count", min=1)] = 3,
        ports: Annotated[list[int] | None, typer.Option("--port")] = None,
        file: Annotated[Path | None, typer.Option("--file")] = None,
        quick: Annotated[bool, typer.Option("--quick")] = False,
        upper: Annotated[str, typer.Option("--upper", parser=str.upper)] = "a",
    ) -> None:
        given.update(
            name=name, rest=rest, label=label, size=size, count=count, ports=ports, file=file, quick=quick,
            upper=upper,
        )  # fmt: skip

    made = get_command(app)
    if spare:
        coercion.spare(made)
    made(words, standalone_mode=False)
    return given


@pytest.mark.parametrize(
    "words",
    [
        ["x"],
        ["x", "y", "z", "--label", "a=b", "--label", "c"],
        ["x", "--size", "large", "--count", "7", "--file", "/tmp", "--quick", "--upper", "b"],
        ["x", "--port", "1", "--port", "2"],
    ],
)
def test_a_command_is_given_the_same(words: list[str]) -> None:
    ours, theirs = called(words, spare=True), called(words, spare=False)
    assert ours == theirs
    assert {name: type(value) for name, value in ours.items()} == {
        name: type(value) for name, value in theirs.items()
    }


@pytest.mark.parametrize("words", [["x", "--count", "0"], ["x", "--size", "huge"], ["x", "--port", "one"]])
def test_what_is_wrong_stays_wrong(words: list[str]) -> None:
    said = []
    for spare in (True, False):
        with pytest.raises(typer.TyperException) as caught:
            called(words, spare=spare)
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("words", [["build", "/no/such/place"], ["ps", "--all"], ["image", "ls"], ["run", "--help"]])
def test_text_needs_no_pydantic(words: list[str], tmp_path: Path) -> None:
    code = (
        f"import sys; sys.argv = ['lab', *{words!r}]\n"
        "from lab.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('pydantic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"LAB_HOME": str(tmp_path)}
    )
    assert done.stdout.splitlines()[-1] == "False", done.stderr
