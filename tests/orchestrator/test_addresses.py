"""Addresses and endpoints: one spelling each, and no way into networks that a worker has no business in."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import reasons
from orchestrator.addresses import (
    ADDRESS_CHARS_MAX,
    RANGES_MAX,
    canonical,
    check_allowed,
    check_endpoint,
    parse_ranges,
)
from orchestrator.reasons import Problem, Refused

SPKI = "ab" * 32
PUBLIC, PUBLIC6 = "8.8.4.4", "2606:4700::1111"
EVERYTHING = parse_ranges(["0.0.0.0/0", "::/0"])


def refusal(call, *args, **kwargs) -> Problem:
    with pytest.raises(Refused) as caught:
        call(*args, **kwargs)
    return caught.value.problem


# --- one spelling -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("8.8.4.4", "8.8.4.4"),
        ("::ffff:8.8.4.4", "8.8.4.4"),
        ("::FFFF:808:404", "8.8.4.4"),
        ("0:0:0:0:0:ffff:8.8.4.4", "8.8.4.4"),
        ("2606:4700:0000:0::1111", "2606:4700::1111"),
        ("2606:4700::00AB", "2606:4700::ab"),
        ("::1", "::1"),
        ("::", "::"),
    ],
)
def test_an_address_has_one_spelling(text: str, wanted: str) -> None:
    assert canonical(text) == wanted
    assert canonical(wanted) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8.8.4.04",  # leading zero: octal to some
        "010.8.4.4",
        "0x8.8.4.4",
        "0x08080404",
        "134743044",  # decimal
        "8.8.1028",  # short forms
        "8.1",
        "8",
        "8.8.4.4.",
        "8.8.4.256",
        " 8.8.4.4",
        "8.8.4.4 ",
        "8.8.4.4\n",
        "8.8.4.4\x00",
        "8.8.4.4:443",
        "8.8.4.4/32",
        "８.8.4.4",  # full-width digit
        "8。8.4.4",  # ideographic full stop
        "[::1]",
        "fe80::1%eth0",  # zone
        "2606:4700::1111%1",
        "::ffff:8.8.4.4%1",
        "::8.8.4.4",  # IPv4-compatible
        "::808:404",
        "::ffff:0:8.8.4.4",  # IPv4-translated
        "2002:808:404::1",  # 6to4
        "2001:0:808:404::1",  # Teredo
        "64:ff9b::8.8.4.4",  # NAT64
        "64:ff9b:1::8.8.4.4",
        "::ffff:8.8.4.04",
        "1::2::3",
        "12345::",
        "localhost",
        "1" * (ADDRESS_CHARS_MAX + 1),
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    assert refusal(canonical, text) is reasons.ADDRESS_MALFORMED


@given(st.text(max_size=60) | st.from_regex(r"[0-9a-fx:.%\[\]/ ]{1,48}", fullmatch=True))
def test_any_text_is_canonical_or_refused(text: str) -> None:
    try:
        found = canonical(text)
    except Refused:
        return
    assert canonical(found) == found
    assert str(ipaddress.ip_address(found)) == found


@given(st.ip_addresses())
def test_what_the_standard_library_prints_is_canonical_or_embeds(address) -> None:
    try:
        found = canonical(str(address))
    except Refused:
        assert address.version == 6
    else:
        assert found in (str(address), str(getattr(address, "ipv4_mapped", "")))


# --- which addresses --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "address", [PUBLIC, PUBLIC6, "1.1.1.1", "223.255.255.255", "2a00::1", "100.128.0.1", "172.32.0.1"]
)
def test_public_addresses_are_allowed(address: str) -> None:
    check_allowed(address, ())


NEVER = {
    "unspecified": ["0.0.0.0", "::", "::ffff:0.0.0.0"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "::ffff:224.0.0.1"],
    "broadcast": ["255.255.255.255"],
    "metadata": [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "fd00:ec2::254",
        "fd20:ce::254",
    ],
}
UNLESS_ALLOWED = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"],
    "link-local": ["169.254.1.1", "fe80::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fec0::1", "::ffff:10.0.0.1"],
    "unique local": ["fc00::1", "fd12:3456::1"],
    "CGNAT": ["100.64.0.1", "100.127.255.255"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "benchmarks": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "reserved": ["0.0.0.1", "192.0.0.1", "192.88.99.1", "240.0.0.1", "100::1", "2001:10::1", "4000::1", "5f00::1"],
}


@pytest.mark.parametrize("address", [a for addresses in NEVER.values() for a in addresses])
def test_no_worker_has_these_whatever_is_allowed(address: str) -> None:
    assert refusal(check_allowed, address, ()) is reasons.ADDRESS_NOT_ALLOWED
    assert refusal(check_allowed, address, EVERYTHING) is reasons.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize("address", [a for addresses in UNLESS_ALLOWED.values() for a in addresses])
def test_special_addresses_only_if_the_operator_allows_their_range(address: str) -> None:
    assert refusal(check_allowed, address, ()) is reasons.ADDRESS_NOT_ALLOWED
    check_allowed(address, parse_ranges([canonical(address)]))
    assert refusal(check_allowed, address, parse_ranges(["10.99.0.0/16", "fd99::/16"])) is reasons.ADDRESS_NOT_ALLOWED


@given(st.ip_addresses(v=4))
def test_the_rules_are_at_least_as_strict_as_the_standard_librarys(address) -> None:
    if not address.is_global or address.is_multicast:
        assert refusal(check_allowed, str(address), ()) is reasons.ADDRESS_NOT_ALLOWED


def test_ranges() -> None:
    assert [str(r) for r in parse_ranges(["10.0.0.0/8", "::1", "fd00::/8"])] == ["10.0.0.0/8", "::1/128", "fd00::/8"]
    assert parse_ranges([]) == ()


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "fe80::%1/10", "all", "010.0.0.0/8"]
)
def test_ranges_that_are_none(text: str) -> None:
    assert refusal(parse_ranges, [text]) is reasons.FIELD_INVALID


def test_ranges_are_bounded() -> None:
    assert refusal(parse_ranges, ["10.0.0.0/8"] * (RANGES_MAX + 1)) is reasons.FIELD_INVALID


# --- endpoints --------------------------------------------------------------------------------------------------------
def endpoint(url: str, ip_address: str = PUBLIC, spki: str = SPKI, allowed=()) -> str:
    return check_endpoint(url, ip_address=ip_address, tls_spki_sha256=spki, allowed_ranges=allowed)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://8.8.4.4:21434", "https://8.8.4.4:21434"),
        ("https://[::ffff:8.8.4.4]:21434", "https://8.8.4.4:21434"),
        ("https://8.8.4.4:1/v1/chat_1.0~x", "https://8.8.4.4:1/v1/chat_1.0~x"),
        ("https://Node1.Example.COM:65535", "https://node1.example.com:65535"),
        ("https://xn--bcher-kva.example:443", "https://xn--bcher-kva.example:443"),
        ("https://127.1.example.com:443", "https://127.1.example.com:443"),
    ],
)
def test_endpoints_of_a_worker(url: str, wanted: str) -> None:
    assert endpoint(url) == wanted
    assert endpoint(wanted) == wanted


def test_an_ipv6_endpoint_is_written_canonically() -> None:
    assert endpoint("https://[2606:4700:0::1111]:443", ip_address=PUBLIC6) == "https://[2606:4700::1111]:443"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "8.8.4.4:443",
        "https://8.8.4.4",  # no port
        "https://8.8.4.4:",
        "https://8.8.4.4:0",
        "https://8.8.4.4:0443",
        "https://8.8.4.4:65536",
        "https://8.8.4.4:99999999",
        "https://8.8.4.4:443/",
        "https://8.8.4.4:443/v1/",
        "https://8.8.4.4:443//v1",
        "https://8.8.4.4:443/../v1",
        "https://8.8.4.4:443/v1/./x",
        "https://8.8.4.4:443/%2e%2e/x",
        "https://8.8.4.4:443/" + "a" * 129,
        "https://8.8.4.4:443?x=1",
        "https://8.8.4.4:443/v1?",
        "https://8.8.4.4:443#f",
        "https://user@8.8.4.4:443",
        "https://8.8.4.4:443@8.8.8.8:443",
        "https://8.8.4.4:443\\@8.8.8.8:443",
        "https:\\\\8.8.4.4:443",
        "https:8.8.4.4:443",
        "https:///8.8.4.4:443",
        "https://8.8.4.4:443\n",
        "https://8.8.4.4:443\t",
        "https://8.8.4.4 :443",
        " https://8.8.4.4:443",
        "https://8.8.4.4\x00:443",
        "https://8.8.4.%34:443",
        "https://node%2eexample.com:443",
        "ftp://8.8.4.4:443",
        "HTTPS://8.8.4.4:443",
        "javascript://8.8.4.4:443",
        "https://8.8.4.4.:443",
        "https://8.8.4.04:443",
        "https://134743044:443",
        "https://0x08080404:443",
        "https://0x8.example.0xff:443",
        "https://8.8.1028:443",
        "https://127.1:443",
        "https://example.127.1:443",
        "https://[8.8.4.4]:443",
        "https://[::8.8.4.4]:443",
        "https://[fe80::1%25eth0]:443",
        "https://8.8.8.8:443",  # another's address
        "https://[::1]:443",
        "https://127.0.0.1:443",
        "https://169.254.169.254:443",
        "https://localhost:443",
        "https://foo.localhost:443",
        "https://metadata.google.internal:443",
        "https://printer.local:443",
        "https://intranet:443",
        "https://example.com.:443",
        "https://.example.com:443",
        "https://a..example.com:443",
        "https://-a.example.com:443",
        "https://a-.example.com:443",
        "https://a_b.example.com:443",
        "https://ab--c.example.com:443",
        "https://xn--.example.com:443",
        "https://bücher.example:443",
        "https://ⓔxample.com:443",
        "https://" + "a" * 64 + ".example:443",
        "https://" + "a." * 126 + "com:443",
        "https://node.example.com:443/" + "a" * 600,
    ],
)
def test_endpoints_that_are_none_of_the_worker(url: str) -> None:
    assert refusal(endpoint, url) is reasons.ENDPOINT_NOT_ALLOWED
    assert refusal(endpoint, url, allowed=EVERYTHING) is reasons.ENDPOINT_NOT_ALLOWED


def test_a_name_needs_a_bound_tls_key_and_https() -> None:
    lab = parse_ranges([PUBLIC])
    assert endpoint("https://node.example.com:443") == "https://node.example.com:443"
    assert refusal(endpoint, "https://node.example.com:443", spki="") is reasons.ENDPOINT_NOT_ALLOWED
    assert refusal(endpoint, "http://node.example.com:80", allowed=lab) is reasons.ENDPOINT_NOT_ALLOWED
    assert refusal(endpoint, "https://node.example.com:443", spki="AB" * 32) is reasons.FIELD_INVALID


def test_plain_http_only_in_an_allowed_range() -> None:
    lab = parse_ranges(["127.0.0.0/8"])
    assert endpoint("http://127.0.0.1:8000", ip_address="127.0.0.1", spki="", allowed=lab) == "http://127.0.0.1:8000"
    assert refusal(endpoint, "http://8.8.4.4:80") is reasons.ENDPOINT_NOT_HTTPS
    assert refusal(endpoint, "http://8.8.4.4:80", allowed=lab) is reasons.ENDPOINT_NOT_HTTPS


@given(
    st.text(max_size=80)
    | st.from_regex(r"https?://[-a-z0-9.:\[\]%@\\]{1,40}:[0-9]{1,6}[-/a-z.?#%]{0,20}", fullmatch=True)
)
def test_any_text_is_an_endpoint_of_the_worker_or_refused(url: str) -> None:
    try:
        found = endpoint(url, spki="")
    except Refused:
        return
    assert found.startswith(f"https://{PUBLIC}:")
