"""One sentence out of a page of a program's output: what the network or the disk had."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.images.dockerfile.instructions import Run
from lab.images.stages.run_step import StepFailed
from lab.images.transfer.trouble import find

PIP = """Looking in indexes: https://index.example/simple
WARNING: Retrying (Retry(total=4)) after connection broken by 'SSLError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]
WARNING: Retrying (Retry(total=3)) after connection broken by 'SSLError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]
ERROR: Could not find a version that satisfies the requirement flask
"""
BROKEN = "WARNING: Retrying (Retry(total=0)) after connection broken by '{}': /simple/flask/"
NEW = "NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f>: {}')"
FETCH = (
    "Err:407 http://x.example y\nE: Failed to fetch http://x.example/debian/y  {}\nE: Unable to fetch some archives"
)
SLOW = "('<pip.HTTPSConnection object>', 'Connection to index.example timed out. (connect timeout=15)')"

OF_APT_AND_PIP = [
    (PIP, "certificate", "--ca", "LAB_CA=FILE"),
    (FETCH.format("Certificate verification failed: The certificate is NOT trusted"), "certificate", "--ca", "_CA"),
    (FETCH.format("407  Proxy Authentication Required"), "proxy", "https_proxy", "a proxy refused"),
    (FETCH.format("Invalid response from proxy: HTTP/1.1 403 Forbidden"), "proxy", "https_proxy", "a proxy refused"),
    ("OSError('Tunnel connection failed: 403 Forbidden')", "proxy", "https_proxy", "a proxy refused"),
    ("OSError: [Errno 28] No space left on device", "disk", "df -h", "the disk is full: df -h"),
    (FETCH.format("Temporary failure resolving 'x'"), "name", "http_proxy", "a name could not be looked up"),
    (
        FETCH.format("Could not connect to 127.0.0.1:9 (127.0.0.1). - connect (111: Connection refused)"),
        "connection was refused", "check the address", "a connection was refused",
    ),
    (
        BROKEN.format(NEW.format("Failed to establish a new connection: [Errno 111] Connection refused")),
        "connection was refused", "http_proxy", "a connection was refused",
    ),
    (
        FETCH.format("Could not connect to index.example:80 (192.0.2.1), connection timed out"),
        "did not answer", "firewall", "a server did not answer",
    ),
    (BROKEN.format(f"ConnectTimeoutError{SLOW}"), "did not answer", "firewall", "a server did not answer"),
    (
        BROKEN.format("ReadTimeoutError(\"HTTPSConnectionPool(host='x'): Read timed out. (read timeout=15)\")"),
        "did not answer", "try again", "a server did not answer",
    ),
    (FETCH.format("403  Forbidden [IP: 192.0.2.1 80]"), "forbade", "mirror", "a server forbade it"),
    ("ERROR: HTTP error 403 while getting https://index.example/x.whl", "forbade", "login", "a server forbade it"),
    ("ERROR: 403 Client Error: Forbidden for url: https://x.example/", "forbade", "login", "a server forbade it"),
    (
        BROKEN.format(NEW.format("Failed to establish a new connection: [Errno 101] Network is unreachable")),
        "can't be reached", "check the network", "a server can't be reached",
    ),
]  # fmt: skip
"""What apt or pip says, what lab calls it, what helps, and what ./bootstrap says."""


@pytest.mark.parametrize(
    ("said", "what", "helps"),
    [
        (PIP, "certificate", "--ca"),
        ("curl: (60) SSL certificate problem: self-signed certificate in certificate chain", "certificate", "--ca"),
        ("tls: failed to verify certificate: x509: certificate signed by unknown authority", "certificate", "--ca"),
        (
            "Err:1 https://x\n  Certificate verification failed: The certificate is NOT trusted.",
            "certificate",
            "--ca",
        ),
        ("npm ERR! code SELF_SIGNED_CERT_IN_CHAIN", "certificate", "--ca"),
        ("fatal: server certificate verification failed. CAfile: none", "certificate", "--ca"),
        ("curl: (56) Received HTTP code 407 from proxy after CONNECT", "proxy", "https_proxy"),
        ("OSError('Tunnel connection failed: 403 Forbidden')", "proxy", "https_proxy"),
        ("cc1: fatal error: writing: No space left on device", "disk", "df -h"),
        ("W: Failed to fetch x  Temporary failure resolving 'x'", "name", "http_proxy"),
        ("curl: (6) Could not resolve host: x", "name", "http_proxy"),
        ("urllib3.exceptions.IncompleteRead(1 bytes read, 2 more expected)", "cut off", "again"),
        ("dial tcp 192.0.2.1:443: connect: connection refused", "connection was refused", "check the address"),
        ("proxyconnect tcp: dial tcp 192.0.2.1:3128: connect: connection refused", "proxy", "https_proxy"),
        ("dial tcp 192.0.2.1:443: i/o timeout", "did not answer", "firewall"),
        ("npm ERR! code E403", "forbade", "mirror"),
        ("fatal: unable to access 'https://x/': The requested URL returned error: 403", "forbade", "login"),
        ("wget: server returned error: HTTP/1.1 403 Forbidden", "forbade", "login"),
        ("Failed to connect to x port 443 after 0 ms: Couldn't connect to server", "can't be reached", "network"),
        *(case[:3] for case in OF_APT_AND_PIP),
    ],
)
def test_what_programs_say(said: str, what: str, helps: str) -> None:
    found = find(said)
    assert found
    assert what in found.what
    assert helps in found.hint
    assert "\n" not in found.line


@pytest.mark.parametrize(
    "said",
    [
        "", "make: *** [all] Error 2", "404 tests passed", "406\n407\n408", "certificate: OK", "403 tests passed",
        "test_x timed out after 60 s", "0 connections were refused",
    ],
)  # fmt: skip
def test_what_is_no_trouble_of_these(said: str) -> None:
    assert find(said) is None
    assert explained(said) == ""


def explained(said: str) -> str:
    """What ./bootstrap says after an installation that failed with these words."""
    script = 'source "$1"; log=/dev/stdin command_line="lab x"; explain'
    words = ["bash", "-c", script, "-", str(Path(__file__).parents[2] / "bootstrap")]
    done = subprocess.run(words, input=said, capture_output=True, text=True, check=True, timeout=250)
    return done.stderr


@pytest.mark.parametrize(("said", "_what", "_helps", "told"), OF_APT_AND_PIP)
def test_what_bootstrap_says_of_it(said: str, _what: str, _helps: str, told: str) -> None:
    line = explained(said)
    assert told in line
    assert line.count("\n") == 1
    assert "./bootstrap lab x" in line or "df -h" in line or "mirror" in line


def test_a_step_that_failed_says_it_once_and_keeps_it_when_the_file_is_named() -> None:
    instruction = Run(line=3, text="RUN pip install flask", command=None)  # type: ignore[arg-type,call-arg]
    error = StepFailed(instruction, 1, PIP.encode()).at("Dockerfile.dev")
    assert error.message.startswith("Dockerfile.dev:3: RUN failed")
    assert "certificate" in error.message
    assert "--ca" in error.hint
    assert error.detail.count("CERTIFICATE_VERIFY_FAILED") == 1


def test_a_certificate_that_long_output_followed_is_said_before_its_last_words() -> None:
    """pip within another program's build repeats its error, and that program adds its own."""
    instruction = Run(line=3, text="RUN make", command=None)  # type: ignore[arg-type,call-arg]
    after = "\n".join(f"note: {number}" for number in range(60)) + "\nmake: *** [wheels] Error 1\n"
    error = StepFailed(instruction, 2, (PIP + after).encode())
    assert "exit code 2, a certificate is not trusted" in error.message
    assert "--ca" in error.hint
    first, *_, last = error.detail.splitlines()
    assert "CERTIFICATE_VERIFY_FAILED" in first
    assert last == "make: *** [wheels] Error 1"
    cut = StepFailed(instruction, 2, b"curl: connection reset by peer, trying again\n" + after.encode())
    assert cut.message.endswith("exit code 2: RUN make"), "a download that was cut off may have been tried again"


def test_a_step_alone_promises_that_something_is_kept() -> None:
    instruction = Run(line=3, text="RUN make", command=None)  # type: ignore[arg-type,call-arg]
    cut = "curl: (56) Recv failure: Connection reset by peer"
    found = find(cut)
    assert found
    assert found.hint == "try again"
    assert StepFailed(instruction, 2, cut.encode()).hint == "try again: the steps before it are cached"
    assert StepFailed(instruction, 2, b"no rule").hint.endswith("build again: the steps before it are cached")
    assert "cached" not in StepFailed(instruction, 2, PIP.encode()).hint
