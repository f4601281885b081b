"""Where a replay is: its round, its clock, its speed, and what the keys do to them. The moments come from outside."""

from __future__ import annotations

from lab.classroom.race.model import Race, lasts, slowed

SPEEDS = (0.01, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 100.0)
"""How fast the race's clock can run against true time."""


class Playing:
    """A race that is shown. It waits at 0 until it is started, and at its end for what comes next."""

    def __init__(self, race: Race, speed: float = 1.0) -> None:
        self.race = race
        self.speed = speed
        self.slow = slowed(race.rounds)
        self.place = 0
        self.left = False
        self._base = 0.0
        self._since: float | None = None  # None: the clock stands

    @property
    def waits(self) -> bool:
        """Whether this round was not started yet."""
        return self._since is None and self._base == 0.0

    @property
    def runs(self) -> bool:
        """Whether its clock was started and not stopped; at the end it stands by itself."""
        return self._since is not None

    def at(self, now: float) -> float:
        """Seconds after the request on the race's clock, at the moment ``now`` of a monotonic clock."""
        gone = 0.0 if self._since is None else (now - self._since) * self.speed
        return min(self._base + gone, self.end)

    @property
    def end(self) -> float:
        """When nothing of this round moves any more."""
        return lasts(self.race.rounds[self.place], self.slow)

    def is_over(self, now: float) -> bool:
        """Whether this round has been shown whole."""
        return self.at(now) >= self.end

    @property
    def is_last(self) -> bool:
        """Whether no round follows."""
        return self.place == len(self.race.rounds) - 1

    def start(self, now: float) -> None:
        """Let the clock run from where it is."""
        if self._since is None:
            self._since = now

    def finish(self) -> None:
        """Go to the end of the last round: it was seen while it happened."""
        self.place = len(self.race.rounds) - 1
        self._base, self._since = self.end, None

    def press(self, key: str, now: float) -> None:
        """Do what ``key`` stands for; any other does nothing."""
        match key:
            case "space" | "enter":
                self._toggle(now)
            case "r":
                self._go(self.place, now)
            case "+" | "=" | "up":
                self._change(now, next((each for each in SPEEDS if each > self.speed), self.speed))
            case "-" | "_" | "down":
                self._change(now, next((each for each in reversed(SPEEDS) if each < self.speed), self.speed))
            case "n" | "right":
                self._go(self.place + 1, now)
            case "p" | "left":
                self._go(self.place - 1, now)
            case "q" | "escape":
                self.left = True

    def _toggle(self, now: float) -> None:
        if self._since is not None and not self.is_over(now):
            self._base, self._since = self.at(now), None
        elif not self.is_over(now):
            self.start(now)
        elif not self.is_last:
            self._go(self.place + 1, now)

    def _change(self, now: float, speed: float) -> None:
        self._base = self.at(now)
        self._since = None if self._since is None else now
        self.speed = speed

    def _go(self, place: int, now: float) -> None:
        """To the start of a round, and start it; before the first and after the last there is none."""
        if 0 <= place < len(self.race.rounds):
            self.place, self._base, self._since = place, 0.0, now
