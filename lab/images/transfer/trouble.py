"""What a program's last words say of the network or the disk: one sentence and the option that helps.

Programs tell a certificate that they don't trust in many words, and repeat it at each of their attempts. The patterns
are those of OpenSSL, GnuTLS, Go, curl, git, apt, pip, npm and wget.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lab.host.installed import BOOTSTRAP


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """``what`` went wrong, the one ``line`` that shows it, and the remedy."""

    what: str
    line: str
    hint: str


AGAIN = "try again"
"""The remedy against what may be over by then."""
_BEHIND_A_PROXY = (
    "behind a proxy export http_proxy and https_proxy, which sudo takes away: "
    f"sudo --preserve-env=http_proxy,https_proxy {BOOTSTRAP}…"
)
_PATTERNS = (
    (
        "a certificate is not trusted",
        re.compile(
            r"certificate.verify.failed|CERTIFICATE_VERIFY_FAILED|certificate verification failed|"
            r"self.signed certificate|SELF_SIGNED_CERT|unable to get local issuer|UNABLE_TO_GET_ISSUER|"
            r"UNABLE_TO_VERIFY_LEAF|certificate signed by unknown authority|certificate is NOT trusted|"
            r"issuer certificate|SSL certificate problem|server certificate verification failed",
            re.IGNORECASE,
        ),
        "if your network's proxy opens TLS: --ca FILE (or LAB_CA=FILE) lends its certificate to steps and downloads",
    ),
    (
        "a proxy refused or can't be reached",
        re.compile(
            r"\b(code|status|error|http/[\d.]+):? 407\b|\b407 +proxy|proxy authentication required|"
            r"tunnel connection failed|proxyerror|cannot connect to proxy|could not resolve proxy|proxyconnect tcp|"
            r"unable to connect to [^ ]*proxy|received http code \d+ from proxy|invalid response from proxy",
            re.IGNORECASE,
        ),
        "check http_proxy, https_proxy and no_proxy; sudo takes them away: "
        f"sudo --preserve-env=http_proxy,https_proxy,no_proxy {BOOTSTRAP}…",
    ),
    (
        "the disk is full",
        re.compile(r"no space left on device|ENOSPC|disk quota exceeded", re.IGNORECASE),
        "free some (lab clean; lab image prune; df -h), or set LAB_HOME to a larger disk",
    ),
    (
        "a name could not be looked up",
        re.compile(
            r"temporary failure (in name resolution|resolving)|could not resolve|name or service not known|"
            r"no such host|EAI_AGAIN|ENOTFOUND|unable to resolve host",
            re.IGNORECASE,
        ),
        f"check the network; {_BEHIND_A_PROXY}",
    ),
    (
        "a connection was refused",
        re.compile(r"connection refused|ECONNREFUSED", re.IGNORECASE),
        f"check the address, its port and that its server runs; {_BEHIND_A_PROXY}",
    ),
    (
        "a server did not answer in time",
        re.compile(
            r"\b(connection|connect|operation|read) timed out|connection to \S+ timed out|i/o timeout|"
            r"tls handshake timeout|context deadline exceeded|ETIMEDOUT",
            re.IGNORECASE,
        ),
        f"try again, or check the address and the firewall; {_BEHIND_A_PROXY}",
    ),
    (
        "a server forbade it",
        re.compile(
            r"\b(code|status|error|http/[\d.]+):? 403\b|\b403:? +forbidden|\b403 client error|\bE403\b", re.IGNORECASE
        ),
        "check the address, and whether its server wants a login; a proxy that filters says the same: ask for that "
        "address to be allowed, or name a mirror that is",
    ),
    (
        "a server can't be reached",
        re.compile(
            r"network is unreachable|no route to host|could(n't| not) connect to server|ENETUNREACH|EHOSTUNREACH",
            re.IGNORECASE,
        ),
        f"check the network and the address; {_BEHIND_A_PROXY}",
    ),
    (
        "a download was cut off",
        re.compile(
            r"connection reset by peer|connection broken|incompleteread|unexpected eof|premature end|"
            r"hash sum mismatch|ECONNRESET|remote end hung up|was cut off",
            re.IGNORECASE,
        ),
        AGAIN,
    ),
)


_LASTING = 2
"""So many of the first are not over at the next attempt."""


def find(text: str, *, lasting: bool = False) -> Trouble | None:
    """The first kind of trouble, of those above in their order, that the text tells of; None if of none. ``lasting``:
    only what can't have been over before the last words, a certificate or a proxy.
    """
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for what, pattern, hint in _PATTERNS[:_LASTING] if lasting else _PATTERNS:
        telling = [line for line in lines if pattern.search(line)]
        if telling:
            return Trouble(what=what, line=telling[-1][:300], hint=hint)
    return None
