"""What a question is bound to: one call that names a quantity and arms of a run, read strictly and never executed.

    expression = name [ "@" state ] "(" [ word { "," word } ] ")"
    name       = letters, digits and "_", parts joined by "."
    word       = letters, digits and "#", ":", "=", ".", "_", "-"

``boot.ratio(vm, container)``, ``memory.pss@after-load(vm)``, ``isolation(container, kernel-release)``. What a name
can be stands in `Form` and in lab/analysis/quantities.toml; a metric's own name means its foremost quantity
(`FOREMOST`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from lab.analysis.quantities import QUANTITIES, SEGMENTS
from lab.errors import UsageError

LONGEST = 200
SHAPE = re.compile(r"([a-z]\w*(?:\.\w+)*)(?:@([a-z]+(?:-[a-z]+)*))?\(([^()]*)\)", re.ASCII)
WORD = re.compile(r"[\w#:=.-]+", re.ASCII)
HINT = "for example boot.ratio(vm, container), memory.pss(microvm) or isolation(container, kernel-release)"
FOREMOST = {
    "boot": "boot.total",
    "memory": "memory.pss",
    "load": "load.requests_per_second",
    "teardown": "teardown.total",
    "job": "job.total",
    "work": "work.seconds",
}
REACHES = ("open", "own", "closed", "unknown")
CONDITIONS = ("with-limits", "without-limits")


class Form(StrEnum):
    """What is asked of a run."""

    VALUE = "value"
    RATIO = "ratio"
    VERDICT = "verdict"
    SCATTER = "scatter"
    LONGEST = "boot.longest"
    ANSWER = "isolation"
    COUNT = "isolation.count"
    KERNEL = "kernel"
    ACCELERATOR = "accelerator"
    FILES = "files"
    IMAGE_LAYERS = "image.layers"
    IMAGE_FILES = "image.files"
    IMAGE_SIZE = "image.size"
    SLOWDOWN = "noisy.slowdown"


ARGUMENTS = {
    Form.VALUE: ("ARM",),
    Form.RATIO: ("ARM", "ARM"),
    Form.VERDICT: ("ARM", "ARM"),
    Form.SCATTER: ("ARM",),
    Form.LONGEST: ("ARM",),
    Form.ANSWER: ("ARM", "PROBE"),
    Form.COUNT: ("ARM", "REACH"),
    Form.KERNEL: ("ARM",),
    Form.ACCELERATOR: ("ARM",),
    Form.FILES: ("ARM", "ARM"),
    Form.IMAGE_LAYERS: (),
    Form.IMAGE_FILES: (),
    Form.IMAGE_SIZE: (),
    Form.SLOWDOWN: ("ARM", "KIND", "CONDITION"),
}
WORDS = {
    Form.VERDICT: ("more", "less", "same", "open"),
    Form.LONGEST: SEGMENTS,
    Form.ANSWER: REACHES,
    Form.KERNEL: ("host", "own"),
    Form.ACCELERATOR: ("native", "kvm", "tcg"),
    Form.FILES: ("same", "different"),
}
"""The words that the answer of a form can be; a form that is not here is answered by a number."""
TIMES = "×"
"""The unit of a ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """One that was read: its ``text``, and in ``form`` what it asks. ``quantity`` is "" where it asks for none."""

    text: str
    form: Form
    arguments: tuple[str, ...]
    quantity: str = ""
    state: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """What the answer can be, where it is a word."""
        return WORDS.get(self.form, ())

    @property
    def unit(self) -> str:
        """Of the answer: one of a sample's units, `TIMES`, or "" for a word."""
        if self.words:
            return ""
        if self.form in (Form.RATIO, Form.SLOWDOWN):
            return TIMES
        if self.form is Form.IMAGE_SIZE:
            return "bytes"
        return QUANTITIES[self.quantity].unit if self.form is Form.VALUE and self.quantity in QUANTITIES else "1"

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that it names."""
        return tuple(word for word, what in zip(self.arguments, ARGUMENTS[self.form], strict=True) if what == "ARM")


def parse(text: str) -> Expression:
    """Read one expression. Raises UsageError, which says what is wrong with it."""
    text = " ".join(text.split())
    found = SHAPE.fullmatch(text) if len(text) <= LONGEST else None
    if found is None:
        raise UsageError(f"{text[:LONGEST]!r} is no question to a run", hint=HINT)
    name, state, inside = found[1], found[2] or "", found[3]
    arguments = tuple(word.strip() for word in inside.split(",")) if inside.strip() else ()
    for word in arguments:
        if not WORD.fullmatch(word):
            raise UsageError(f"{text}: {word!r} is no word", hint="letters, digits and # : = . _ -, between commas")
    form, quantity = _meant(name, text)
    if state and not quantity:
        raise UsageError(f"{text}: only a quantity has a state", hint=HINT)
    wanted = ARGUMENTS[form]
    if len(arguments) != len(wanted):
        raise UsageError(f"{text}: {name} takes {len(wanted)} of what stands in brackets, not {len(arguments)}",
                         hint=f"{name}({', '.join(wanted)})")  # fmt: skip
    for word, what in zip(arguments, wanted, strict=True):
        known = {"REACH": REACHES, "CONDITION": CONDITIONS}.get(what)
        if known and word not in known:
            raise UsageError(f"{text}: {word} is none of {', '.join(known)}", hint=f"{name}({', '.join(wanted)})")
    return Expression(text=text, form=form, arguments=arguments, quantity=quantity, state=state)


def _meant(name: str, text: str) -> tuple[Form, str]:
    """The form, and the quantity it is about. Raises UsageError for a quantity that lab does not measure."""
    if name in set(Form) - {Form.VALUE, Form.RATIO, Form.VERDICT, Form.SCATTER}:
        return Form(name), ""
    quantity, _, last = name.rpartition(".")
    form = Form.VALUE
    if quantity and last in (Form.RATIO, Form.VERDICT, Form.SCATTER):
        form = Form(last)
    else:
        quantity = name
    quantity = FOREMOST.get(quantity, quantity)
    if quantity not in QUANTITIES and not quantity.startswith("work."):
        hint = f"lab/analysis/quantities.toml lists them; others: {', '.join(sorted(set(Form) - {'value'}))}"
        raise UsageError(f"{text}: lab measures no {quantity}", hint=hint)
    return form, quantity
