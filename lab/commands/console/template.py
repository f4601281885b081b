"""``--format``: what people use of Go's templates with docker: ``{{.Field.Inner}}`` and ``{{json .Field}}``."""

from __future__ import annotations

import json
import re
from typing import Any

from lab.errors import UsageError

_ACTION = re.compile(r"\{\{\s*(?P<json>json\s+)?(?P<path>\.[\w.]*)\s*\}\}")
ESCAPES = {r"\t": "\t", r"\n": "\n"}


def render(template: str, values: dict[str, Any]) -> str:
    """``template`` with its actions replaced from ``values``. Raises UsageError for what is not there."""
    for written, meant in ESCAPES.items():
        template = template.replace(written, meant)
    rest = _ACTION.sub("", template)
    if "{{" in rest or "}}" in rest:
        raise UsageError(f"--format {template!r} is not understood", hint="use {{.Field}} or {{json .Field}}")

    def value(match: re.Match[str]) -> str:
        found = _look_up(match["path"], values)
        return json.dumps(found, ensure_ascii=False) if match["json"] or not isinstance(found, str) else found

    return _ACTION.sub(value, template)


def _look_up(path: str, values: dict[str, Any]) -> Any:
    found: Any = values
    for name in path.split("."):
        if not name:
            continue
        if not isinstance(found, dict) or name not in found:
            known = ", ".join(found) if isinstance(found, dict) else "none"
            raise UsageError(f"--format: there is no field {path}", hint=f"known here: {known}")
        found = found[name]
    return found
