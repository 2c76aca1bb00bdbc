"""What may be wrong with a SEV-SNP report."""

from __future__ import annotations

from attest.reasons import REPORT_SIGNATURE
from attest.reasons import snp as reasons
from nodeprobe.emulator.snp_defect import SnpDefect, afterwards, changed_byte, of_report, older, policy_bit
from nodeprobe.emulator.snp_draft import SnpDraft

SIGNATURE_AT = 0x2A0


def _other_chip(draft: SnpDraft) -> None:
    draft.report.chip_id = bytes([draft.report.chip_id[0] ^ 1]) + draft.report.chip_id[1:]


def _masked_key(draft: SnpDraft) -> None:
    draft.report.flags |= 2
    draft.report.after_signing.append(lambda data: data[:SIGNATURE_AT] + bytes(512))


def _unsigned(draft: SnpDraft) -> None:
    draft.report.flags = 7 << 2
    draft.report.after_signing.append(lambda data: data[:SIGNATURE_AT] + bytes(512))


def _other_measurement(draft: SnpDraft) -> None:
    draft.report.measurement = bytes(48)


def _nothing_carried(draft: SnpDraft) -> None:
    draft.report.version = 2
    draft.carries = 0


def _masked_and_nothing_carried(draft: SnpDraft) -> None:
    draft.report.chip_id = bytes(64)
    draft.carries = 0


_R = reasons
REPORT_DEFECTS = (
    SnpDefect("debug-allowed", "the host may debug the guest", _R.SNP_DEBUG, policy_bit(19)),
    SnpDefect("migration-agent-allowed", "a migration agent may move it", _R.SNP_MIGRATION_AGENT, policy_bit(18)),
    SnpDefect("cxl-allowed", "CXL memory may be given to it", _R.SNP_CXL, policy_bit(21)),
    SnpDefect("policy-bit-unknown", "bit 40 of the guest policy is set", _R.SNP_POLICY_UNKNOWN, policy_bit(40)),
    SnpDefect("policy-bit-17-clear", "the bit that must be one is not", _R.SNP_REPORT_MALFORMED, policy_bit(17)),
    SnpDefect("vmpl-1", "asked from VMPL 1", _R.SNP_VMPL, of_report(vmpl=1)),
    SnpDefect("host-asked", "the host asked, not the guest", _R.SNP_VMPL, of_report(vmpl=0xFFFFFFFF)),
    SnpDefect("version-1", "a version before the first", _R.SNP_VERSION_UNSUPPORTED, of_report(version=1)),
    SnpDefect("version-6", "a version to come", _R.SNP_VERSION_UNSUPPORTED, of_report(version=6)),
    SnpDefect("version-2-without-certificate", "nothing says which chip line", _R.SNP_VEK_MISSING, _nothing_carried),
    SnpDefect("algorithm-2", "another signature algorithm", _R.SNP_REPORT_MALFORMED, of_report(algorithm=2)),
    SnpDefect("flags-reserved", "a reserved flag is set", _R.SNP_REPORT_MALFORMED, of_report(flags=1 << 5)),
    SnpDefect("truncated", "the last byte is missing", _R.SNP_REPORT_MALFORMED, afterwards(lambda data: data[:-1])),
    SnpDefect("trailing-byte", "a byte too many", _R.SNP_REPORT_MALFORMED, afterwards(lambda data: data + b"\0")),
    SnpDefect("reserved-in-use", "a reserved byte before the signature", _R.SNP_REPORT_MALFORMED, changed_byte(0x29F)),
    SnpDefect("r-too-long", "a bit above the 48 bytes of r", _R.SNP_REPORT_MALFORMED, changed_byte(SIGNATURE_AT + 48)),
    SnpDefect("after-signature-in-use", "a byte after s", _R.SNP_REPORT_MALFORMED, changed_byte(1183)),
    SnpDefect("signature-bad", "one bit of r is wrong", REPORT_SIGNATURE, changed_byte(SIGNATURE_AT)),
    SnpDefect("data-after-signing", "report data changed since", REPORT_SIGNATURE, changed_byte(0x50)),
    SnpDefect("measurement-after-signing", "measurement changed since", REPORT_SIGNATURE, changed_byte(0x90)),
    SnpDefect("chip-key-masked", "the host withholds the key", REPORT_SIGNATURE, _masked_key),
    SnpDefect("unsigned", "no key signed, and the report says so", _R.SNP_SIGNING_KEY, _unsigned),
    SnpDefect("signing-key-other", "it says VLEK beside a VCEK", _R.SNP_SIGNING_KEY, of_report(flags=1 << 2)),
    SnpDefect("chip-wrong", "another chip than the certificate's", _R.SNP_CHIP_MISMATCH, _other_chip),
    SnpDefect("chip-masked", "the host hides the chip", _R.SNP_CHIP_MASKED, of_report(chip_id=bytes(64))),
    SnpDefect(
        "chip-masked-without-certificate", "nothing says which chip", _R.SNP_VEK_MISSING, _masked_and_nothing_carried
    ),
    SnpDefect("cpuid-unknown", "a line to come", _R.SNP_PRODUCT_UNSUPPORTED, of_report(cpuid=(0x1A, 0x50, 0))),
    SnpDefect("cpuid-zero", "no processor at all", _R.SNP_PRODUCT_UNSUPPORTED, of_report(cpuid=(0, 0, 0))),
    SnpDefect(
        "cpuid-other", "Genoa beside other certificates", _R.SNP_PRODUCT_MISMATCH, of_report(cpuid=(0x19, 0x11, 1))
    ),
    SnpDefect("tcb-mismatch", "report older than its certificate", _R.SNP_TCB_MISMATCH, older("reported")),
    SnpDefect("tcb-of-certificate-older", "certificate of older firmware", _R.SNP_TCB_MISMATCH, older("vek")),
    SnpDefect("tcb-stale", "report and certificate are of old firmware", _R.SNP_TCB_TOO_OLD, older("vek", "reported")),
    SnpDefect("tcb-uncommitted", "the host may go back to old firmware", _R.SNP_TCB_TOO_OLD, older("committed")),
    SnpDefect("tcb-launch-stale", "launched by old firmware", _R.SNP_TCB_TOO_OLD, older("launch")),
    SnpDefect(
        "firmware-old", "an old SEV firmware is committed", _R.SNP_FIRMWARE_TOO_OLD, of_report(firmware=(1, 51, 1))
    ),
    SnpDefect("abi-old", "the guest accepts an old ABI", _R.SNP_ABI_TOO_OLD, of_report(policy=0x30000)),
    SnpDefect("guest-svn-low", "an old image", _R.SNP_GUEST_SVN, of_report(guest_svn=1)),
    SnpDefect("alias-unchecked", "memory not checked for aliases", _R.SNP_ALIAS_CHECK, of_report(platform=0x5)),
    SnpDefect("measurement-other", "another image", _R.SNP_MEASUREMENT, _other_measurement),
    SnpDefect("host-data-other", "other host data", _R.SNP_HOST_DATA, of_report(host_data=bytes(32))),
)
