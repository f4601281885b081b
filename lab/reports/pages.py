"""Pages of HTML from the templates beside this module: self-contained, styles inside, nothing fetched.

Every page extends ``page.html.j2``. A report's sections are files of their own below ``templates/report``.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any


def render(name: str, context: dict[str, Any], *, styles: Sequence[str] = ("report.css",)) -> str:
    """The template ``name`` as a page with these style sheets, all of them files in ``templates``."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.PackageLoader("lab.reports"),
    )
    # style sheets are lab's own text, and quotes in them must stay quotes
    css = Markup("\n".join(read(name) for name in styles))
    page: str = environment.get_template(name).render(context, css=css)
    return page


def embedded(kind: str, path: Path) -> str:
    """A file as a data: URL of the media type ``kind``."""
    return f"data:{kind};base64,{b64encode(path.read_bytes()).decode()}"


def read(name: str) -> str:
    """The text of a file in ``templates``."""
    return files("lab.reports").joinpath("templates", name).read_text(encoding="utf-8")
