"""
Base URLs of services that collateral is fetched from: which ones an operator may configure.

One spelling for each host, and https; plain http is for a mirror on loopback or in a private network, written as the
address that it has, so that nobody gets there by mistake.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_network

from orchestrator.addresses import Ranges, canonical, check_allowed
from orchestrator.reasons import Refused

PORT_MAX = 65535
URL_CHARS_MAX = 512
NAME_CHARS_MAX = 253

_BASE = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<prefix>(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*)/?"
)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Base:
    """A base URL as the operator configured it. `literal`: the host is an address, allowed by his very word."""

    scheme: str
    host: str  # without brackets
    port: int
    prefix: str  # of the path, without a slash at the end
    literal: bool
    pace_seconds: float = 0.0  # between the starts of two calls

    @classmethod
    def parse(cls, url: str, *, pace_seconds: float = 0.0) -> Base:
        """
        `https://HOST[:PORT][/PREFIX]`; plain http where HOST is a loopback or private address. ValueError otherwise.
        """
        match = _BASE.fullmatch(url) if len(url) <= URL_CHARS_MAX else None
        port = int(match["port"] or {"https": 443, "http": 80}[match["scheme"]]) if match else 0
        if match is None or port > PORT_MAX:
            raise ValueError(f"{url!r}: want https://HOST[:PORT][/PREFIX]")
        host = match["host"].strip("[]").lower()
        literal = match["host"].startswith("[") or host.rsplit(".", 1)[-1][:1].isdigit()
        try:
            host = canonical(host) if literal else _name(host)
            if literal:
                check_allowed(host, _only(host))
        except Refused as e:
            raise ValueError(f"{url!r}: {e.got or host} is no address to go to; want {e.want}") from None
        if match["scheme"] == "http" and not (literal and _is_internal(host)):
            raise ValueError(f"{url!r}: want https; plain http is for loopback and private addresses, written as such")
        return cls(match["scheme"], host, port, match["prefix"], literal, pace_seconds)

    @property
    def allowed(self) -> Ranges:
        return _only(self.host) if self.literal else ()

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"


def _name(host: str) -> str:
    labels = host.split(".")
    if len(host) > NAME_CHARS_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{host!r} is no DNS name; write international names as xn--…")
    return host


def _only(host: str) -> Ranges:
    return (ip_network(host),)


def _is_internal(host: str) -> bool:
    try:
        check_allowed(host, ())
    except Refused:
        return True
    return False
