"""The application's work: facts about where it runs, and a computation."""

import os
import platform

LARGEST = 1_000_000


def facts() -> dict[str, str | int]:
    """What an instance sees of the machine it runs on."""
    return {
        "hostname": platform.node(),
        "pid": os.getpid(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "processors": os.cpu_count() or 0,
    }


def primes(below: int) -> list[int]:
    """The primes smaller than ``below``, by the sieve of Eratosthenes. Raises ValueError above `LARGEST`."""
    if not 0 <= below <= LARGEST:
        raise ValueError(f"below must be between 0 and {LARGEST}")
    sieve = bytearray([1]) * below
    sieve[:2] = bytes(min(below, 2))
    for number in range(2, int(below**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, below, number)))
    return [number for number, is_prime in enumerate(sieve) if is_prime]
