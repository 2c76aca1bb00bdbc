"""Just enough DER to write what no library offers: firmware identities, and revocation answers that are wrong."""

from __future__ import annotations

INTEGER, OCTET_STRING, ENUMERATED, UTF8_STRING, SEQUENCE = 0x02, 0x04, 0x0A, 0x0C, 0x30
BIT_STRING = 0x03
SHA384 = bytes.fromhex("0609608648016503040202")  # OID 2.16.840.1.101.3.4.2.2


def der(tag: int, *parts: bytes) -> bytes:
    """One element of less than 64 KiB."""
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        length = bytes([size])
    else:
        digits = size.to_bytes(1 if size < 0x100 else 2, "big")
        length = bytes([0x80 | len(digits)]) + digits
    return bytes([tag]) + length + body


def context(number: int, *parts: bytes, constructed: bool = False) -> bytes:
    """One element with a context-specific tag."""
    return der((0xA0 if constructed else 0x80) | number, *parts)


def elements(data: bytes) -> list[bytes]:
    """The elements, whole, that stand one after the other in well-formed DER of our own making."""
    found = []
    while data:
        size, head = data[1], 2
        if size & 0x80:
            head += size & 0x7F
            size = int.from_bytes(data[2:head], "big")
        found.append(data[: head + size])
        data = data[head + size :]
    return found


def content(element: bytes) -> bytes:
    """What is in an element."""
    return element[2 + (element[1] & 0x7F if element[1] & 0x80 else 0) :]
