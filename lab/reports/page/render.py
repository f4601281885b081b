"""Pages of HTML from `lab/reports/templates`: self-contained, styles and script inside, nothing fetched.

Every page extends ``base.html.j2``. A report's sections are files of their own below ``templates/report``.
"""

from __future__ import annotations

import errno
import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import ResultsError
from lab.results.store import require_no_links

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parents[1] / "templates"


def render(
    name: str,
    context: dict[str, Any],
    *,
    styles: Sequence[str] = ("report.css",),
    scripts: Sequence[str] = (),
    data: Any = None,
    beside: Path | None = None,
) -> str:
    """The template ``name`` as a page with these style sheets and scripts, all of them files in ``templates``, or in
    the folder ``beside``, which comes first.

    The scripts become one module, which finds ``data`` in the page as JSON. The page's own Content-Security-Policy
    lets that script run, by its digest, and nothing else.
    """
    from markupsafe import Markup

    # style sheets and scripts are lab's own text, and quotes in them must stay quotes
    css = Markup("\n".join(read(name, beside) for name in styles))
    script = "\n".join(read(name, beside) for name in scripts)
    page: str = (
        _environment(beside)
        .get_template(name)
        .render(context, css=css, script=Markup(script), script_digest=_digest(script), data=Markup(_json(data)))
    )
    return page


@cache
def _environment(beside: Path | None) -> jinja2.Environment:
    """It keeps what it compiled: a process may write many pages."""
    import jinja2

    return jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader([*([beside] if beside else []), TEMPLATES]),
    )


def _json(data: Any) -> str:
    """As it may stand inside a ``script`` element."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _digest(script: str) -> str:
    """How a Content-Security-Policy names an inline script (CSP level 3, section 2.3.1)."""
    return f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}"


def put(path: Path, text: str) -> Path:
    """Write a page, whole or not at all; returns ``path``."""
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(text, encoding="utf-8")
    return scratch.replace(path)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What keeps a report from being written is a ResultsError that says what to do."""
    require_no_links(folder)
    try:
        yield
    except OSError as error:
        raise ResultsError(
            f"the report can't be written into {folder}: {error.strerror}",
            hint=f"free some space, then: lab report {folder}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else "copy the run folder to where you may write, and name that copy",
        ) from error


def embedded(kind: str, path: Path) -> str:
    """A file as a data: URL of the media type ``kind``."""
    return f"data:{kind};base64,{b64encode(path.read_bytes()).decode()}"


def embedded_text(kind: str, text: str) -> str:
    """The same of text."""
    return f"data:{kind};base64,{b64encode(text.encode()).decode()}"


def read(name: str, beside: Path | None = None) -> str:
    """The text of a file in ``templates``, or in the folder ``beside``, which comes first."""
    own = beside / name if beside else None
    return (own if own and own.exists() else TEMPLATES / name).read_text(encoding="utf-8")
