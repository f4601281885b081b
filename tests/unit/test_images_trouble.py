"""One sentence out of a page of a program's output: what the network or the disk had."""

from __future__ import annotations

import pytest

from lab.images.dockerfile.instructions import Run
from lab.images.stages.run_step import StepFailed
from lab.images.transfer.trouble import find

PIP = """Looking in indexes: https://index.example/simple
WARNING: Retrying (Retry(total=4)) after connection broken by 'SSLError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]
WARNING: Retrying (Retry(total=3)) after connection broken by 'SSLError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]
ERROR: Could not find a version that satisfies the requirement flask
"""


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
    ],
)
def test_what_programs_say(said: str, what: str, helps: str) -> None:
    found = find(said)
    assert found
    assert what in found.what
    assert helps in found.hint
    assert "\n" not in found.line


@pytest.mark.parametrize(
    "said", ["", "make: *** [all] Error 2", "404 tests passed", "406\n407\n408", "certificate: OK"]
)
def test_what_is_no_trouble_of_these(said: str) -> None:
    assert find(said) is None


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
