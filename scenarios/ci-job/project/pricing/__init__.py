"""What an order costs."""

from dataclasses import dataclass

from money import percent

TAX = 19


@dataclass(frozen=True)
class Line:
    name: str
    cents: int
    number: int = 1


def net(lines: list[Line]) -> int:
    return sum(line.cents * line.number for line in lines)


def discount(lines: list[Line]) -> int:
    """A tenth from 100.00 on."""
    amount = net(lines)
    return percent(amount, 10) if amount >= 100_00 else 0


def total(lines: list[Line]) -> int:
    amount = net(lines) - discount(lines)
    return amount + percent(amount, TAX)
