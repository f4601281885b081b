"""What an agent does with a sandbox: it calls tools, one after the other, and looks at every answer.

    python3 loop.py ADDRESS PORT

Prints how long each call took by this process's clock, a line each, and "all answers are right" when they were.
"""

import http.client
import json
import sys
import time

ROUNDS = 20
PROGRAM = "import csv; print(sum(int(row['amount']) for row in csv.DictReader(open('data/{name}.csv'))))"


class Wrong(Exception):
    """An answer is not the one that is known to be right."""


class Sandbox:
    """A sandbox at the other end of one connection, on which calls follow each other."""

    def __init__(self, address: str, port: int) -> None:
        self._connection = http.client.HTTPConnection(address, port, timeout=60)
        self._connection.connect()

    def call(self, tool: str, **arguments: str) -> dict[str, object]:
        """One call, from the request's first byte to the answer's last."""
        began = time.perf_counter()
        self._connection.request("POST", f"/{tool}", json.dumps(arguments))
        response = self._connection.getresponse()
        body = response.read()
        print(f"{tool}: {1000 * (time.perf_counter() - began):.3f} ms")
        answer = json.loads(body)
        if response.status != 200 or answer.get("exit_code", 0) != 0:
            raise Wrong(f"{tool} answered {response.status}: {answer}")
        return dict(answer)


def expect(what: str, found: object, right: object) -> None:
    if found != right:
        raise Wrong(f"{what} is {found!r}, not {right!r}")


def turn(sandbox: Sandbox, number: int) -> None:
    """One turn of the conversation: a table is written, a program adds it up, the result is committed and read."""
    name, amounts = f"table-{number}", [number * row for row in range(1, 101)]
    table = "amount\n" + "".join(f"{amount}\n" for amount in amounts)
    expect("the number of bytes", sandbox.call("write", path=f"data/{name}.csv", text=table)["bytes"], len(table))
    sum_of = sandbox.call("python", code=PROGRAM.format(name=name))["stdout"]
    expect("the sum", sum_of, f"{sum(amounts)}\n")
    sandbox.call("write", path=f"results/{name}.txt", text=str(sum_of))
    head = str(sandbox.call("commit", message=f"Add up {name}")["stdout"]).strip()
    expect("the length of the hash", len(head), 40)
    expect("what was committed", sandbox.call("read", path=".git/refs/heads/main")["text"], f"{head}\n")
    expect("the result", sandbox.call("read", path=f"results/{name}.txt")["text"], sum_of)


def main() -> None:
    sandbox = Sandbox(sys.argv[1], int(sys.argv[2]))
    for number in range(1, ROUNDS + 1):
        turn(sandbox, number)
    count = "import subprocess; print(len(subprocess.check_output(['git', 'log', '--oneline']).splitlines()))"
    expect("the number of commits", sandbox.call("python", code=count)["stdout"], f"{ROUNDS}\n")
    print("all answers are right")


main()
