"""Amounts in cents, which are whole numbers."""

from fractions import Fraction


def share(cents: int, parts: int) -> list[int]:
    """``cents`` in ``parts`` that differ by one at most and add up to it."""
    whole, rest = divmod(cents, parts)
    return [whole + 1] * rest + [whole] * (parts - rest)


def percent(cents: int, rate: int) -> int:
    """``rate`` % of ``cents``, half a cent rounded to the even one."""
    return round(Fraction(cents * rate, 100))
