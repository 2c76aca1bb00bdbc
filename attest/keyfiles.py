"""
Private keys in files: PKCS#8 PEM, readable by their owner only. A key is never overwritten and never printed.

It lies in this room because the rooms above may use it, and none below has to.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

KEY_FILE_BYTES_MAX = 4096

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class KeyFileError(Exception):
    """A key file cannot be used. The message says why and what to do; it never quotes the file."""


def save(key: PrivateKey, path: Path) -> None:
    """Write a new key file with mode 0600. KeyFileError if the file exists or cannot be written."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyFileError(f"{path} exists, and a key is not overwritten: use it, or name another file") from None
    except OSError as e:
        raise KeyFileError(f"{path} cannot be written ({e.strerror}): make its folder, or name another file") from None
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(fd)
    except OSError as e:
        path.unlink(missing_ok=True)  # half a key is worse than none
        raise KeyFileError(f"{path} cannot be written ({e.strerror}): free some space, or name another file") from None


def load(path: Path, curve: type[ec.EllipticCurve]) -> ec.EllipticCurvePrivateKey:
    """Read a private key of one curve. KeyFileError if others may read the file, or it holds anything else."""
    key = load_any(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, curve):
        raise KeyFileError(f"{path} holds a key of another kind; a {curve.name} key is needed: name another file")
    return key


def load_any(path: Path) -> PrivateKey:
    """Read a private key, of any elliptic curve or Ed25519. KeyFileError as `load` has it."""
    pem = _read(path)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileError(f"{path} holds no private key in plain PKCS#8 PEM: name another file") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds a key of another kind; one of an elliptic curve is needed: name another file")
    return key


def _read(path: Path) -> bytes:
    try:
        # Without blocking, since the path may name a pipe.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as e:
        raise KeyFileError(f"{path} cannot be read ({e.strerror}): name the file of the key, or make one") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path} is no regular file: name the file of the key")
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyFileError(f"{path} is open to others than its owner: run `chmod 600 {path}`")
        pem = os.read(fd, KEY_FILE_BYTES_MAX + 1)
    finally:
        os.close(fd)
    if len(pem) > KEY_FILE_BYTES_MAX:
        raise KeyFileError(f"{path} is too large for a key: name the file of the key")
    return pem
