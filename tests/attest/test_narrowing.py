"""Narrowing: whatever passes the narrowed policy passes the base; a rule that asks for less is refused by its key."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from attest.appraise import appraise
from attest.binding import PROFILE, Binding, Strength
from attest.claims import Claims
from attest.evidence import AMD_SNP, INTEL_TDX, NVIDIA, NVIDIA_NRAS, Evidence, Nonce
from attest.narrowing import FREE, ORDERS, Widened, is_narrower, narrowed
from attest.policy import Policy, parse, shipped
from attest.result import Tier
from attest.verify import Verification
from tests.attest.test_appraise import GOOD

NOW = datetime(2030, 1, 1, tzinfo=UTC)
BASE = parse(
    """
    name = "base"
    kinds = ["nvidia", "intel-tdx", "amd-snp"]
    origins = ["vendor", "emulated"]
    devices_min = 1
    devices_max = 8
    nonce = "optional"
    revocation = "optional"
    revocation_stale_hours_max = 4
    allow_hold = true
    collateral_stale_hours_max = 4
    binding_min = "nonce"
    lifetime_seconds = 600
    [nvidia]
    architectures = ["GH100"]
    gpus_min = 1
    topology = "optional"
    driver_min = "550.54"
    vbios_min = "96.00.9F"
    fwid = "optional"
    allowed_mismatching_indices = [3, 9]
    rim_expired_days_max = 30
    [nras]
    certificates_required = false
    [tdx]
    statuses = ["UpToDate", "OutOfDate"]
    mrtd = ["{}", "{}"]
    [tdx.events]
    app-id = ["aa", "bb"]
    [snp]
    debug = true
    smt = false
    firmware_min = "1.55"
    [snp.tcb_min.milan]
    snp = 8
    """.format("a" * 96, "b" * 96)
)

NARROWER = [
    'kinds = ["nvidia"]',
    'required = ["nvidia", "intel-tdx"]',
    'origins = ["vendor"]',
    "devices_min = 8",
    "devices_max = 1",
    'nonce = "required"',
    "revocation_stale_hours_max = 0",
    "allow_hold = false",
    'binding_min = "measured"',
    "lifetime_seconds = 599",
    "[nvidia]\ngpus_min = 8",
    '[nvidia]\ndriver_min = "550.54.1"',
    '[nvidia]\nvbios_min = "96.00.A0"',
    "[nvidia]\nallowed_mismatching_indices = [9]",
    '[nvidia]\nfwid = "required"',
    "[nras]\ncertificates_required = true",
    f'[tdx]\nmrtd = ["{"a" * 96}"]',
    f'[tdx]\nrtmr3 = ["{"a" * 96}"]',
    '[tdx]\nevent_log = "required"',
    '[tdx.events]\napp-id = ["aa"]\nother = ["00"]',
    "[snp]\ndebug = false",
    '[snp]\nabi_min = "1.31"',
    '[snp]\nfirmware_min = "1.55.30"',
    "[snp.tcb_min.milan]\nsnp = 9",
]
WIDER = [
    ("kinds", 'kinds = ["nvidia", "nvidia-nras"]'),
    ("required", 'required = ["intel-tdx"]'),
    ("devices_max", "devices_max = 9"),
    ("collateral_stale_hours_max", "collateral_stale_hours_max = 5"),
    ("binding_min", 'binding_min = "none"'),
    ("lifetime_seconds", "lifetime_seconds = 601"),
    ("nvidia.architectures", '[nvidia]\narchitectures = ["GH100", "GB100"]'),
    ("nvidia.gpus_min", "[nvidia]\ngpus_min = 0"),
    ("nvidia.driver_min", '[nvidia]\ndriver_min = "550.9"'),  # nine is less than fifty-four
    ("nvidia.vbios_min", '[nvidia]\nvbios_min = "96.00.90"'),
    ("nvidia.allowed_mismatching_indices", "[nvidia]\nallowed_mismatching_indices = [3, 9, 10]"),
    ("nvidia.rim_expired_days_max", "[nvidia]\nrim_expired_days_max = 31"),
    ("tdx.mrtd", f'[tdx]\nmrtd = ["{"c" * 96}"]'),
    ("tdx.events", '[tdx.events]\nother = ["00"]'),
    ("tdx.events", '[tdx.events]\napp-id = ["aa", "cc"]'),
    ("snp.smt", "[snp]\nsmt = true"),
    ("snp.cxl", "[snp]\ncxl = true"),
    ("snp.firmware_min", '[snp]\nfirmware_min = "1.54"'),
    ("snp.tcb_min.milan.snp", "[snp.tcb_min.milan]\nsnp = 7"),
]


def keys_of(rules, above=""):
    for name, value in rules:
        if isinstance(value, BaseModel):
            yield from keys_of(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def test_every_rule_has_an_order():
    assert set(keys_of(Policy(name="any"))) == ORDERS.keys() | FREE


@pytest.mark.parametrize("rule", NARROWER)
def test_a_narrower_rule_is_taken_and_the_others_stay(rule):
    extra = parse(f'name = "extra"\n{rule}')

    policy = narrowed(BASE, extra)

    expected = BASE.model_dump() | {"name": "extra"}
    written = extra.model_dump(exclude_unset=True)
    assert policy.model_dump() == _deep(expected, written)
    assert policy != BASE.model_copy(update={"name": "extra"})


def _deep(rules, over):
    """Mappings of values by event are one rule, not a table."""
    merged = dict(rules)
    for key, value in over.items():
        table = isinstance(value, dict) and key != "events"
        merged[key] = _deep(rules[key], value) if table else value
    return merged


@pytest.mark.parametrize(("key", "rule"), WIDER)
def test_a_wider_rule_is_refused_by_its_key(key, rule):
    with pytest.raises(Widened, match=rf"^{key}: "):
        narrowed(BASE, parse(f'name = "extra"\n{rule}'))


def test_every_wider_rule_is_named():
    extra = parse('name = "extra"\nnonce = "optional"\ndevices_min = 2\n[nvidia]\nfwid = "optional"\ngpus_min = 0')

    with pytest.raises(Widened) as refused:
        narrowed(shipped("strict"), extra)

    assert {each.split(": ")[0] for each in str(refused.value).split("; ")} == {
        "nonce",
        "nvidia.fwid",
        "nvidia.gpus_min",
    }


def test_nothing_written_changes_nothing_but_the_name():
    assert narrowed(BASE, parse('name = "extra"')).model_dump() == BASE.model_dump() | {"name": "extra"}


def test_a_rule_without_an_order_cannot_change():
    assert is_narrower("nobody.knows", 1, 1)
    assert not is_narrower("nobody.knows", 1, 2)


# --- whatever passes the narrowed policy passes the base --------------------------------------------------------------
# Of each rule the values to choose among. Everything else in LAX lets pass, so that it is this rule that decides.
_sha384 = st.sampled_from(["a" * 96, "b" * 96, "c" * 96])
_asked = st.sampled_from(["required", "optional"])
_versions = {"driver_min": [None, "550", "550.90.07", "560"], "vbios_min": [None, "96.00", "96.00.9F.00.01", "97"]}
VALUES = {
    "kinds": st.frozensets(st.sampled_from([NVIDIA, INTEL_TDX, AMD_SNP, NVIDIA_NRAS]), min_size=1),
    "required": st.frozensets(st.sampled_from([NVIDIA, INTEL_TDX])),
    "origins": st.frozensets(st.sampled_from(["vendor", "emulated"]), min_size=1),
    "devices_min": st.integers(1, 3),
    "devices_max": st.integers(1, 3),
    "nonce": _asked,
    "revocation": _asked,
    "revocation_stale_hours_max": st.integers(0, 2),
    "allow_hold": st.booleans(),
    "collateral_stale_hours_max": st.integers(0, 2),
    "binding_min": st.sampled_from([str(each) for each in Strength]),
    "lifetime_seconds": st.integers(1, 3),
    "nvidia.architectures": st.frozensets(st.sampled_from(["GH100", "GB100"])),
    "nvidia.modes": st.frozensets(st.sampled_from(["spt", "mpt", "ppcie"])),
    "nvidia.gpus_min": st.integers(0, 2),
    "nvidia.topology": _asked,
    "nvidia.driver_min": st.sampled_from(_versions["driver_min"]),
    "nvidia.vbios_min": st.sampled_from(_versions["vbios_min"]),
    "nvidia.fwid": _asked,
    "nvidia.allowed_mismatching_indices": st.frozensets(st.integers(3, 5)),
    "nvidia.rim_expired_days_max": st.integers(0, 2),
    "tdx.statuses": st.frozensets(st.sampled_from(["UpToDate", "OutOfDate"]), min_size=1),
    "tdx.advisories": st.frozensets(st.sampled_from(["INTEL-SA-00001", "INTEL-SA-00002"])),
    "tdx.tcb_evaluation_min": st.integers(0, 2),
    "tdx.platform": st.frozensets(st.sampled_from(["smt_enabled", "cached_keys", "dynamic_platform"])),
    "tdx.mrtd": st.none() | st.frozensets(_sha384, min_size=1),
    "tdx.event_log": _asked,
    "tdx.events": st.dictionaries(st.sampled_from(["app", "key"]), st.frozensets(st.sampled_from(["aa", "bb"]))),
}
LAX = parse(
    """
    name = "lax"
    kinds = ["nvidia", "intel-tdx"]
    origins = ["vendor", "emulated"]
    nonce = "optional"
    revocation = "optional"
    revocation_stale_hours_max = 2
    allow_hold = true
    collateral_stale_hours_max = 3
    binding_min = "none"
    [nvidia]
    gpus_min = 0
    topology = "optional"
    fwid = "optional"
    allowed_mismatching_indices = [3, 4, 5]
    rim_expired_days_max = 2
    [tdx]
    statuses = ["UpToDate", "OutOfDate"]
    advisories = ["INTEL-SA-00001", "INTEL-SA-00002"]
    """
).model_dump()
_GPU = {
    "architecture": st.sampled_from(["GH100", "GB100"]),
    "mode": st.sampled_from(["spt", "mpt", "ppcie"]),
    "driver": st.sampled_from(["545.00", "550.90.07", "560.1"]),
    "vbios": st.sampled_from(["96.00.9F.00.01", "97.00"]),
    "rim_expired_days": st.integers(0, 2),
    "mismatching_indices": st.frozensets(st.integers(3, 5)).map(lambda found: tuple(sorted(found))),
    "revocation": st.sampled_from(["good", "hold", "not checked"]),
    "revocation_stale_hours": st.integers(0, 2),
}
_CPU = {
    "tcb_status": st.sampled_from(["UpToDate", "OutOfDate"]),
    "advisories": st.sampled_from(["", "INTEL-SA-00001", "INTEL-SA-00001,INTEL-SA-00002"]),
    "tcb_evaluation": st.integers(0, 2),
    "smt_enabled": st.sampled_from(["yes", "no"]),
    "mrtd": _sha384,
    "rtmr_replay": st.sampled_from(["match", "partial", "not supplied"]),
    "event.app": st.sampled_from(["aa", "bb"]),
    "event.key": st.sampled_from(["aa", "bb"]),
}
_QUOTE = {
    **dict.fromkeys(("dynamic_platform", "cached_keys", "smt_enabled"), "no"),
    **{f"rtmr{index}": "a" * 96 for index in range(4)},
    "mrconfigid": "a" * 96,
    "collateral_stale_hours": 0,
    "attributes": "sept_ve_disable",
    "revocation": "good",
    "nonce": "match",
}


@st.composite
def _gpus(draw):
    values = GOOD | draw(st.fixed_dictionaries(_GPU))
    old = values["driver"].startswith("545")
    values["fwid"] = "absent" if old and draw(st.booleans()) else "match"
    values["measurements"] = "mismatch" if values["mismatching_indices"] else "match"
    return _claims(draw, NVIDIA, values)


@st.composite
def _cpus(draw):
    return _claims(draw, INTEL_TDX, _QUOTE | draw(st.fixed_dictionaries(_CPU)))


def _claims(draw, kind, values):
    hours = draw(st.none() | st.integers(0, 2))
    since = None if hours is None else NOW - timedelta(hours=hours)
    ends = NOW + timedelta(days=1)
    return Claims(kind, f"a {kind}", draw(st.booleans()), ends, values, {}, stale_since=since)


def test_values_are_tried_of_every_rule_of_nodes_gpus_and_tdx():
    alike = {
        "tdx.collateral_stale_hours_max",
        "tdx.attributes",
        "tdx.mrconfigid",
        *(f"tdx.rtmr{n}" for n in range(4)),
    }
    wanted = {key for key in ORDERS if not key.startswith(("snp.", "nras."))}
    assert VALUES.keys() == wanted - alike


@pytest.mark.parametrize("key", VALUES)
@given(data=st.data())
def test_whatever_passes_the_narrowed_passes_the_base(key, data):
    before, after = data.draw(VALUES[key], "of the base"), data.draw(VALUES[key], "narrowed to")
    base = Policy.model_validate(_over(LAX, key, before))
    extra = Policy.model_validate(_over({"name": "extra"}, key, after))
    if not is_narrower(key, _value(extra, key), _value(base, key)):
        with pytest.raises(Widened, match=rf"^{key}: "):
            narrowed(base, extra)
        return
    policy = narrowed(base, extra)
    claims = (data.draw(_gpus()), *data.draw(st.lists(_cpus(), max_size=1)))
    bundle = tuple(Evidence(claim.kind, b"payload", b"chain") for claim in claims)
    binding = Binding(PROFILE, data.draw(st.sampled_from(list(Strength))), covers_cpu=True)
    nonce = data.draw(st.sampled_from([None, Nonce(bytes(32))]))

    narrow, wide = (
        appraise(Verification(claims, ()), each, bundle=bundle, nonce=nonce, now=NOW, binding=binding)
        for each in (policy, base)
    )

    if narrow.tier is Tier.AFFIRMING:
        assert (wide.tier, wide.failed) == (Tier.AFFIRMING, ())
        assert narrow.expires_at <= wide.expires_at


def _over(rules, key, value):
    """The rules with one of them changed."""
    *tables, rule = key.split(".")
    if not tables:
        return {**rules, rule: value}
    (table,) = tables
    return {**rules, table: {**rules.get(table, {}), rule: value}}


def _value(policy, key):
    for name in key.split("."):
        policy = getattr(policy, name)
    return policy
