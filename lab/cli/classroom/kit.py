"""``lab class kit``: everything that a room without internet needs, as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.commands.completion import complete_scenario
from lab.commands.output import JsonTo, write_json
from lab.commands.privilege import require_root

SCENARIOS = typer.Argument(metavar="[SCENARIO…]", help="Default: web-app.", autocompletion=complete_scenario)


def kit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="About half a gigabyte; .tar.")],
    scenarios: Annotated[list[str] | None, SCENARIOS] = None,
    install: Annotated[bool, typer.Option("--install", help="Take in the FILE; ./bootstrap --kit does it.")] = False,
    as_json: JsonTo = "",
) -> None:
    """Write everything that a room without internet needs into one file.

    lab itself, its Python packages, the scenarios' images with their bases, the guest's kernel and disks; for systems
    like this one. There: tar -xf FILE lab && cd lab && sudo ./bootstrap --kit ../FILE lab compare web-app. Debian's
    packages are not in it: ./bootstrap names those that are missing.
    """
    from lab.errors import UsageError

    require_root()
    if install:
        from lab.commands.kit.take import take

        if scenarios:
            raise UsageError("--install takes in all that the file holds", hint="leave the scenarios out")
        found = take(file)
    else:
        from lab.commands.kit.make import make
        from lab.experiment.scenarios.scenario import load

        found = make(file, [load(name) for name in scenarios or ["web-app"]])
    if as_json:
        write_json(found, as_json)
    else:
        print(f"{file}  {', '.join(found['images'])}; the guest; for {found['system']} and lab {found['lab']}")
