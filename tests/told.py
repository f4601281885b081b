"""What a text has to tell, whatever its words: names and numbers, in an order."""

from __future__ import annotations

import re


def tells(text: str, *facts: str) -> bool:
    """Whether the facts stand in one line of the text in this order, none of them as a part of another word."""
    whole = (rf"(?<![\w.]){re.escape(fact)}(?![\w.]*\d)" for fact in facts)
    return re.search(".*?".join(whole), text) is not None
