"""
Bech32, the text form of wallet addresses (BIP-173): prefix, the digit 1, payload in 5-bit groups, six of checksum.

Stricter than the standard in one point: upper case is refused, so that an address has one spelling.
"""

from __future__ import annotations

from collections.abc import Iterable

TEXT_CHARS_MAX = 90
_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUE_OF = {character: value for value, character in enumerate(_ALPHABET)}
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_CHARS = 6


def encode(prefix: str, payload: bytes) -> str:
    """The address of a payload, `prefix1…`."""
    bits = int.from_bytes(payload, "big")
    groups = -(-len(payload) * 8 // 5)
    bits <<= groups * 5 - len(payload) * 8
    data = [bits >> 5 * (groups - 1 - i) & 31 for i in range(groups)]
    remainder = _polymod([*_expanded(prefix), *data, *[0] * _CHECKSUM_CHARS]) ^ 1
    checksum = [remainder >> 5 * (_CHECKSUM_CHARS - 1 - i) & 31 for i in range(_CHECKSUM_CHARS)]
    return prefix + "1" + "".join(_ALPHABET[value] for value in (*data, *checksum))


def decode(text: str) -> tuple[str, bytes]:
    """Prefix and payload of an address. ValueError if it is anything but the one spelling of them."""
    if len(text) > TEXT_CHARS_MAX:
        raise ValueError(f"longer than {TEXT_CHARS_MAX} characters")
    prefix, found, body = text.rpartition("1")
    if not found or not prefix or not all("!" <= c <= "~" and not c.isupper() for c in prefix):
        raise ValueError("no lower-case prefix before a digit 1")
    if len(body) < _CHECKSUM_CHARS or not _VALUE_OF.keys() >= set(body):
        raise ValueError("not bech32 characters in lower case")
    data = [_VALUE_OF[c] for c in body]
    if _polymod([*_expanded(prefix), *data]) != 1:
        raise ValueError("the checksum does not hold")
    groups = data[:-_CHECKSUM_CHARS]
    bits = sum(value << 5 * (len(groups) - 1 - i) for i, value in enumerate(groups))
    length, spare = divmod(len(groups) * 5, 8)
    if spare >= 5 or bits & ((1 << spare) - 1):
        raise ValueError("padding bits are not zero")
    return prefix, (bits >> spare).to_bytes(length, "big")


def _expanded(prefix: str) -> list[int]:
    return [*(ord(c) >> 5 for c in prefix), 0, *(ord(c) & 31 for c in prefix)]


def _polymod(values: Iterable[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate(_GENERATOR):
            checksum ^= generator if top >> i & 1 else 0
    return checksum
