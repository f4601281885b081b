"""Three jobs of numpy with known answers: floating point, memory, and branches."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np


def multiply() -> float:
    """An orthogonal matrix times its transpose is the identity, but for rounding."""
    numbers = np.arange(220)
    basis, _ = np.linalg.qr(np.cos(np.outer(numbers / 220, numbers)) + np.eye(220))
    for _ in range(6):
        product = basis @ basis.T
    return float(np.abs(product - np.eye(220)).max())


def add() -> float:
    """The sum of the first numbers: by walking through 16 MiB three times, and by Gauss."""
    numbers = np.arange(2_000_000, dtype=np.float64)
    total = sum(float(numbers.sum()) for _ in range(3)) / 3
    return abs(total - 2_000_000 * 1_999_999 / 2)


def sort() -> float:
    """A shuffled range is a range again."""
    numbers = np.random.default_rng(1).permutation(200_000)
    return float(np.abs(np.sort(numbers) - np.arange(200_000)).max())


def main() -> None:
    jobs: tuple[Callable[[], float], ...] = (multiply, add, sort)
    for job in jobs:
        began = time.monotonic()
        error = job()
        print(f"{job.__name__}: {time.monotonic() - began:.4f} s")
        if error > 1e-9:
            raise SystemExit(f"{job.__name__} is wrong by {error}")
    print("all answers are right")


main()
