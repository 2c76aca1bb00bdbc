"""What a policy may ask of tokens of NRAS, beside its rules for the device: `policy.nras`. Strict by default."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class NrasRules(BaseModel):
    """That the kind `nvidia-nras` is accepted at all, a policy says in its `kinds`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificates_required: bool = True  # false: a device may be known by its token only, and change its name
