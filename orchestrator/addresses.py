"""
Addresses of workers: one spelling for each, and which of them a worker may have.

Workers are identified by their IP address, and others will dial it. So two spellings must not make two workers, and an
address must not lead into the networks of the orchestrator or of its users (metadata services, loopback, private).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from orchestrator import reasons
from orchestrator.reasons import Refused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Ranges = tuple[Network, ...]

ADDRESS_CHARS_MAX = 45
RANGES_MAX = 256
URL_CHARS_MAX = 512
NAME_CHARS_MAX = 253
PATH_CHARS_MAX = 128


def _networks(*texts: str) -> Ranges:
    return tuple(ip_network(text) for text in texts)


# IPv6 ranges that carry an IPv4 address: a second way to write it, or a tunnel around the rules for it.
_EMBEDDING = {
    "an IPv4-compatible address": _networks("::/96"),
    "an IPv4-translated address": _networks("::ffff:0:0:0/96"),
    "a 6to4 address": _networks("2002::/16"),
    "a Teredo address": _networks("2001::/32"),
    "a NAT64 address": _networks("64:ff9b::/96", "64:ff9b:1::/48"),
}

# No host has these, or no worker: refused whatever the operator allows.
_NEVER = {
    "unspecified": _networks("0.0.0.0/32", "::/128"),
    "multicast": _networks("224.0.0.0/4", "ff00::/8"),
    "broadcast": _networks("255.255.255.255/32"),
    "a cloud's metadata service": _networks(
        "169.254.169.254/32",
        "169.254.170.2/32",
        "169.254.170.23/32",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
        "fd00:ec2::254/128",
        "fd00:ec2::23/128",
        "fd20:ce::254/128",
    ),
}

# Refused unless the operator allows a range around them. From IANA's special-purpose address registries; `ipaddress`
# has such a list too, but another one in each release of Python.
_SPECIAL = {
    "loopback": _networks("127.0.0.0/8", "::1/128"),
    "link-local": _networks("169.254.0.0/16", "fe80::/10"),
    "private": _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fec0::/10"),
    "unique local": _networks("fc00::/7"),
    "shared by carrier-grade NAT": _networks("100.64.0.0/10"),
    "for documentation": _networks("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),
    "for benchmarks": _networks("198.18.0.0/15", "2001:2::/48"),
    "reserved": _networks("0.0.0.0/8", "192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4", "2001::/23"),
}
_IPV6_UNICAST = ip_network("2000::/3")


def canonical(text: str) -> str:
    """
    The one spelling of an IP address: dotted IPv4, or IPv6 as RFC 5952 writes it. IPv4-mapped IPv6 becomes IPv4.

    Refused (address-malformed): leading zeros, octal, hexadecimal, decimal and short forms, zones, spaces, and IPv6
    addresses that embed an IPv4 address in another way.
    """
    address = _parse(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    embedding = _kind_of(address, _EMBEDDING)
    if embedding and address not in (IPv6Address("::"), IPv6Address("::1")):
        raise Refused(reasons.ADDRESS_MALFORMED, got=f"{text}, {embedding}", want="the address itself")
    return str(address)


def check_allowed(address: str, allowed_ranges: Ranges) -> None:
    """That a worker may have this address, `allowed_ranges` being the operator's. Refused: address-not-allowed."""
    parsed = ip_address(canonical(address))
    kind = _kind_of(parsed, _NEVER)
    if not kind and not _is_in(parsed, allowed_ranges):
        kind = _kind_of(parsed, _SPECIAL)
        if not kind and isinstance(parsed, IPv6Address) and parsed not in _IPV6_UNICAST:
            kind = "reserved"
    if kind:
        raise Refused(reasons.ADDRESS_NOT_ALLOWED, got=f"{address}, {kind}", want="a public unicast address")


def parse_ranges(texts: Iterable[str]) -> Ranges:
    """The operator's ranges, as `10.20.0.0/16` or one address. Refused: field-invalid."""
    ranges: list[Network] = []
    for text in texts:
        if len(ranges) == RANGES_MAX:
            raise Refused(reasons.FIELD_INVALID, "allowed ranges", want=f"at most {RANGES_MAX}")
        try:
            if not re.fullmatch(r"[0-9a-fA-F:.]+(/[0-9]{1,3})?", text):
                raise ValueError("not a range")
            ranges.append(ip_network(text))
        except ValueError as e:
            raise Refused(reasons.FIELD_INVALID, "allowed ranges", got=text, want=f"a range ({e})") from None
    return tuple(ranges)


# --- endpoints --------------------------------------------------------------------------------------------------------
_PORT_MAX = 65535
# No user info, query or fragment; no percent-encoding, backslash or control character; no empty or dotted path segment.
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]|[0-9A-Za-z.-]+):(?P<port>[1-9][0-9]{0,4})"
    r"(?P<path>(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*)"
)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# Names that mean something else on every machine, or nothing at all (RFC 6761 and its registry).
_LOCAL_NAMES = {"localhost", "local", "localdomain", "internal", "invalid", "onion", "arpa", "alt"}


def check_endpoint(url: str, *, ip_address: str, tls_spki_sha256: str, allowed_ranges: Ranges) -> str:
    """
    The canonical URL of a model endpoint: `https://HOST:PORT`, perhaps with a short path, without a trailing slash.

    HOST is the worker's own address; or a DNS name, if a TLS key is bound (`tls_spki_sha256`, 32 bytes in lower hex, or
    empty) and the scheme is https. Plain http only where the operator allows the worker's range. Refused:
    endpoint-not-allowed, endpoint-not-https, address-malformed (of `ip_address`), field-invalid (of `tls_spki_sha256`).
    """
    if tls_spki_sha256 and not re.fullmatch("[0-9a-f]{64}", tls_spki_sha256):
        raise Refused(reasons.FIELD_INVALID, "tls_spki_sha256", got=tls_spki_sha256, want="64 characters of lower hex")
    own = canonical(ip_address)
    match = _URL.fullmatch(url) if len(url) <= URL_CHARS_MAX else None
    if not match or int(match["port"]) > _PORT_MAX or len(match["path"]) > PATH_CHARS_MAX:
        raise Refused(
            reasons.ENDPOINT_NOT_ALLOWED, "url", got=url, want="https://HOST:PORT, with nothing special in it"
        )
    https = match["scheme"] == "https"
    host = _host(match["host"], own=own, names=https and bool(tls_spki_sha256))
    if not https and not _is_in(_parse(own), allowed_ranges):
        raise Refused(reasons.ENDPOINT_NOT_HTTPS, "url", got=url)
    return f"{match['scheme']}://{host}:{match['port']}{match['path']}"


def _host(text: str, *, own: str, names: bool) -> str:
    """The host as it stands in the canonical URL: the worker's own address or, if `names`, a DNS name."""
    labels = text.lower().split(".")
    if text.startswith("[") or labels[-1][:1].isdigit():  # whatever ends like a number is an IPv4 address to somebody
        try:
            found = canonical(text.strip("[]"))
        except Refused:
            found = ""
        if found != own:
            raise Refused(reasons.ENDPOINT_NOT_ALLOWED, "url", got=text, want=own)
        return f"[{own}]" if ":" in own else own
    if not names:
        raise Refused(
            reasons.ENDPOINT_NOT_ALLOWED, "url", got=text, want=f"{own}; a name needs a bound TLS key and https"
        )
    whole = len(labels) >= 2 and len(text) <= NAME_CHARS_MAX and all(_is_label(label) for label in labels)
    if not whole or labels[-1] in _LOCAL_NAMES:
        raise Refused(reasons.ENDPOINT_NOT_ALLOWED, "url", got=text, want="a public DNS name")
    return ".".join(labels)


def _is_label(label: str) -> bool:
    """Letters, digits and hyphens (RFC 5890); `--` in third place is for punycode only."""
    return bool(_LABEL.fullmatch(label)) and (label[2:4] != "--" or label.startswith("xn--"))


# --- helpers ----------------------------------------------------------------------------------------------------------
def _parse(text: str) -> Address:
    want = "dotted IPv4 or IPv6, in its plain form"
    # ipaddress reads zones, and takes what is no text for a number.
    if not re.fullmatch(f"[0-9A-Fa-f:.]{{1,{ADDRESS_CHARS_MAX}}}", text):
        raise Refused(reasons.ADDRESS_MALFORMED, got=text, want=want)
    try:
        return ip_address(text)
    except ValueError:
        raise Refused(reasons.ADDRESS_MALFORMED, got=text, want=want) from None


def _kind_of(address: Address, kinds: dict[str, Ranges]) -> str:
    return next((kind for kind, ranges in kinds.items() if _is_in(address, ranges)), "")


def _is_in(address: Address, ranges: Ranges) -> bool:
    return any(address in network for network in ranges)
