import random
import subprocess
import sys

import pytest
from money import percent, share
from pricing import Line, discount, net, total


@pytest.mark.parametrize("parts", range(1, 41))
def test_nothing_is_lost_when_it_is_shared(parts: int) -> None:
    chance = random.Random(parts)
    for _ in range(500):
        cents = chance.randrange(1_000_000)
        shares = share(cents, parts)
        assert sum(shares) == cents
        assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize(
    ("cents", "rate", "right"), [(50, 1, 0), (150, 1, 2), (100, 19, 19), (99, 50, 50), (0, 7, 0)]
)
def test_half_a_cent_goes_to_the_even_one(cents: int, rate: int, right: int) -> None:
    assert percent(cents, rate) == right


@pytest.mark.parametrize("number", range(1, 21))
def test_an_order_of_many_lines(number: int) -> None:
    lines = [Line("pen", 250, place) for place in range(1, number + 1)]
    assert net(lines) == 250 * number * (number + 1) // 2
    assert discount(lines) == (round(net(lines) / 10) if net(lines) >= 10_000 else 0)
    assert total(lines) >= net(lines)


def test_it_works_in_a_process_of_its_own() -> None:
    program = "from pricing import Line, total; print(total([Line('book', 12_000)]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "12852\n"
