"""What a text has to tell, whatever its words: names and numbers, in an order."""

from __future__ import annotations

import re

PATIENCE = "lab: preparing "
"""How the line begins that lab says once somebody has waited for two seconds: on a busy host, at any command."""


def unhurried(text: str) -> str:
    """What lab said but for that it takes a while."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(PATIENCE))


def tells(text: str, *facts: str) -> bool:
    """Whether the facts stand in one line of the text in this order, none of them as a part of another word."""
    whole = (rf"(?<![\w.]){re.escape(fact)}(?![\w.]*\d)" for fact in facts)
    return re.search(".*?".join(whole), text) is not None
