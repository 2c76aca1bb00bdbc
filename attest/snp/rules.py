"""What a policy may ask of a SEV-SNP guest and its platform: `policy.snp`. What is not written is the strictest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

_Part = Annotated[int, Field(ge=0, le=255)]
_Version = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){1,2}$")]
_Sha384 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{96}$")]
_HostData = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Rules(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TcbMin(_Rules):
    """The least security version of each firmware part."""

    fmc: _Part = 0  # Turin only
    bootloader: _Part = 0
    tee: _Part = 0
    snp: _Part = 0
    microcode: _Part = 0


class TcbMins(_Rules):
    """By product, since each counts its own versions."""

    milan: TcbMin = TcbMin()
    genoa: TcbMin = TcbMin()
    turin: TcbMin = TcbMin()


class SnpRules(_Rules):
    """What a SEV-SNP guest must be. `None` means that any value is accepted, since no value fits every operator."""

    products: Annotated[frozenset[Literal["Milan", "Genoa", "Turin"]], Field(min_length=1)] = frozenset(
        {"Milan", "Genoa", "Turin"}
    )
    signing_keys: Annotated[frozenset[Literal["vcek", "vlek"]], Field(min_length=1)] = frozenset({"vcek"})
    masked_chip_id: bool = False
    debug: bool = False
    migrate_ma: bool = False
    smt: bool = True  # nearly every hosted platform runs with it, and reports it
    cxl: bool = False
    vmpl: Annotated[frozenset[Annotated[int, Field(ge=0, le=3)]], Field(min_length=1)] = frozenset({0})
    alias_check_required: bool = True
    tcb_min: TcbMins = TcbMins()  # holds for the reported, the committed and the launch TCB
    firmware_min: _Version | None = None  # committed: "1.55", "1.55.29"
    abi_min: _Version | None = None  # that the guest's own policy asks for: "1.31"
    guest_svn_min: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    measurements: Annotated[frozenset[_Sha384], Field(min_length=1, max_length=1024)] | None = None
    host_data: Annotated[frozenset[_HostData], Field(min_length=1, max_length=1024)] | None = None
