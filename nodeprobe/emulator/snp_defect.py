"""What a defect of an emulated SEV-SNP guest is, and small makers of them; `snp_defects` lists them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from attest.reasons import Reason
from nodeprobe.emulator.snp_draft import Edit, Parts, SnpDraft

Spoil = Callable[[SnpDraft], None]


@dataclass(frozen=True, slots=True)
class SnpDefect:
    """One thing that is wrong."""

    name: str
    meaning: str
    reason: Reason
    spoil: Spoil
    carries: int = 3  # certificates that the guest must send for the defect to show


def of_report(**values: object) -> Spoil:
    """These fields of the report, before it is signed."""

    def spoil(draft: SnpDraft) -> None:
        for name, value in values.items():
            setattr(draft.report, name, value)

    return spoil


def of_vek(**values: object) -> Spoil:
    """These fields of the signing key's certificate, before it is signed."""

    def spoil(draft: SnpDraft) -> None:
        for name, value in values.items():
            setattr(draft.vek, name, value)

    return spoil


def policy_bit(bit: int) -> Spoil:
    """This bit of the guest's policy, the other way round."""

    def spoil(draft: SnpDraft) -> None:
        draft.report.policy ^= 1 << bit

    return spoil


def afterwards(edit: Edit) -> Spoil:
    """An edit of the report after it was signed."""
    return lambda draft: draft.report.after_signing.append(edit)


def changed_byte(at: int, xor: int = 1) -> Spoil:
    """One byte of the report, changed after it was signed."""
    return afterwards(lambda data: data[:at] + bytes([data[at] ^ xor]) + data[at + 1 :])


def older(*which: str) -> Spoil:
    """One less microcode in these TCBs of the report; "vek" is the certificate's."""

    def spoil(draft: SnpDraft) -> None:
        for each in which:
            parts: Parts = draft.vek.parts if each == "vek" else getattr(draft.report, each)
            parts["ucode"] -= 1

    return spoil


def extension(arc: str, content: bytes | None) -> Spoil:
    """Another content for an extension of AMD's, or (None) the extension left out."""

    def spoil(draft: SnpDraft) -> None:
        draft.vek.replaced[arc] = content

    return spoil


def of_certificates(edit: Callable[[list[bytes]], list[bytes]]) -> Spoil:
    """An edit of the certificates after they were signed."""
    return lambda draft: draft.edit_certificates.append(edit)


def of_documents(edit: Callable[[str], bytes | None], ending: str) -> Spoil:
    """Serve something else under the path with this ending; None: nothing."""

    def change(served: dict[str, bytes]) -> None:
        for path in [path for path in served if ending in path]:
            content = edit(path)
            del served[path]
            if content is not None:
                served[path] = content

    return lambda draft: draft.edit_documents.append(change)
