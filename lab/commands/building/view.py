"""How a build looks: plain lines that a log can keep, or a live view of what runs now."""

from __future__ import annotations

import sys
import textwrap
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lab.images.build import Event
    from lab.images.progress import StepFinished, StepStarted

WORTH_SAYING_SECONDS = 0.05
TEXT_CHARACTERS = 100
LIVE_LINES = 4  # of a step's output
LIVE_STAGES = 6


def heading(event: StepStarted) -> str:
    """``[builder 2/5] RUN make``; the stage only where there are several."""
    where = f"{event.stage} " if event.stage else ""
    return f"[{where}{event.number}/{event.total}] {textwrap.shorten(event.text, TEXT_CHARACTERS, placeholder=' …')}"


def conclusion(event: StepFinished) -> str:
    """What is worth saying of a step that has ended; "" for nothing."""
    slow = event.seconds >= WORTH_SAYING_SECONDS
    words = [event.note, "CACHED" if event.cached else f"{event.seconds:.1f} s" if slow else ""]
    return "  ".join(word for word in words if word)


class Steps:
    """Prints a build as it goes: a line per step, what RUN says below it, how long it took.

    Where several stages are built side by side, every line below a heading names its stage. ``patient`` holds
    everything back until a step is worth waiting for: it says something, or takes its time.
    """

    def __init__(self, stream: TextIO = sys.stdout, *, patient: bool = False) -> None:
        self._stream = stream
        self._held: list[str] | None = [] if patient else None
        self._at_line_start = True
        self._partial: dict[str, bytes] = {}

    def __call__(self, event: Event) -> None:
        from lab.images.build import Note, Output, StepFinished, StepStarted, Warned

        match event:
            case StepStarted():
                self._print(heading(event))
            case StepFinished(seconds=seconds, stage=stage):
                self._flush(stage)
                self._release(seconds >= WORTH_SAYING_SECONDS)
                if summary := conclusion(event):
                    self._print(f"      {summary}" if not stage else f"[{stage} {event.number}] {summary}")
            case Warned(line=line, rule=rule, text=text):
                self._print(f"warning: line {line}: {text} ({rule})")
            case Note(text=text):
                self._release(True)
                self._print(f"      {text}")
            case Output(data=data, stage=""):
                self._release(True)
                self._write(data.decode("utf-8", "replace"))
            case Output(data=data, stage=stage):
                self._release(True)
                *whole, rest = (self._partial.get(stage, b"") + data).split(b"\n")
                self._partial[stage] = rest
                for said in whole:
                    self._print(f"[{stage}] {said.decode('utf-8', 'replace')}")

    def _flush(self, stage: str) -> None:
        """A last line that no newline ended."""
        if rest := self._partial.pop(stage, b""):
            self._print(f"[{stage}] {rest.decode('utf-8', 'replace')}")

    def _release(self, now: bool) -> None:
        if now and self._held is not None:
            held, self._held = self._held, None
            self._write("".join(held))

    def _print(self, line: str) -> None:
        self._write(("" if self._at_line_start else "\n") + line + "\n")

    def _write(self, text: str) -> None:
        if not text:
            return
        self._at_line_start = text.endswith("\n")
        if self._held is not None:
            self._held.append(text)
            return
        self._stream.write(text)
        self._stream.flush()

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to draw."""


class Failures:
    """For ``--quiet``: nothing; what a step that failed has said comes with the error."""

    def __call__(self, event: Event) -> None:
        """Nothing is shown."""

    def __enter__(self) -> Failures:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to draw."""


class Live:
    """On a terminal: a line per step that has ended, and below it every stage that works now, with its output."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._console = Console(highlight=False)
        self._running: dict[str, tuple[StepStarted, float, deque[str]]] = {}
        self._live: Any = RichLive(
            console=self._console, get_renderable=self._render, refresh_per_second=8, transient=True
        )

    def __call__(self, event: Event) -> None:
        from lab.images.build import Note, Output, StepFinished, StepStarted, Warned

        match event:
            case StepStarted(stage=stage):
                self._running[stage] = (event, monotonic(), deque(maxlen=LIVE_LINES))
            case StepFinished(stage=stage):
                if begun := self._running.pop(stage, None):
                    self._line("[green]✓[/green]", heading(begun[0]), conclusion(event))
            case Warned(line=line, rule=rule, text=text):
                self._line("[yellow]![/yellow]", f"line {line}: {text}", rule)
            case Note(text=text):
                self._line(" ", text, "")
            case Output(data=data, stage=stage):
                if begun := self._running.get(stage):
                    begun[2].extend(data.decode("utf-8", "replace").replace("\r", "\n").splitlines())

    def _line(self, mark: str, text: str, said: str) -> None:
        from rich.markup import escape

        self._console.print(
            f"{mark} {escape(text)}" + (f"  [dim]{escape(said)}[/dim]" if said else ""), soft_wrap=True
        )

    def _render(self) -> RenderableType:
        from rich.text import Text

        shown = Text()
        for event, began, lines in list(self._running.values())[:LIVE_STAGES]:
            what = heading(event)[: max(10, self._console.width - 12)]
            shown.append(f"• {what}  {monotonic() - began:.1f} s\n", style="bold")
            for line in list(lines):
                shown.append(f"    {line[: self._console.width - 6]}\n", style="dim")
        shown.rstrip()
        return shown

    def __enter__(self) -> Live:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
