"""Policies: every key has a type and a range, what is not known is named, and the digest is that of the rules."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import attest
from attest.binding import Strength
from attest.policy import (
    DEFAULT,
    POLICY_BYTES_MAX,
    SHIPPED,
    Asked,
    NvidiaRules,
    Origin,
    Policy,
    PolicyError,
    parse,
    shipped,
)

GOOD = 'name = "mine"\n'


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_parses_under_its_own_name(name):
    assert shipped(name).name == name


def test_every_file_that_ships_is_listed():
    folder = Path(attest.__file__).parent / "policies"

    assert {path.stem for path in folder.glob("*.toml")} == set(SHIPPED)
    assert DEFAULT in SHIPPED


def test_nothing_else_ships():
    for name in ("", "Production", "../policies/lab", "lab.toml"):
        with pytest.raises(PolicyError):
            shipped(name)


def test_what_is_not_written_is_the_strictest():
    policy = parse(GOOD)

    assert policy == Policy(name="mine")
    assert (policy.nonce, policy.revocation, policy.nvidia.fwid) == (Asked.REQUIRED,) * 3
    assert policy.origins == {Origin.VENDOR}
    assert policy.nvidia.allowed_mismatching_indices == frozenset()
    assert policy.nvidia.rim_expired_days_max == 0


def test_production_and_strict_want_vendors_a_challenge_and_revocation():
    for name in ("production", "strict"):
        policy = shipped(name)
        assert policy.origins == {Origin.VENDOR}
        assert (policy.nonce, policy.revocation) == (Asked.REQUIRED, Asked.REQUIRED)
        assert policy.binding_min.reaches(Strength.NONCE)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "name"),
        ('name = ""', "name"),
        ('name = "UPPER"', "name"),
        ('name = "a b"', "name"),
        ('name = "a\\u001b"', "name"),
        ("name = 1", "name"),
        (GOOD + "nonces = 1", "nonces"),
        (GOOD + "[nvidia]\nmode = []", "nvidia.mode"),
        (GOOD + "[Nvidia]", "Nvidia"),
        (GOOD + "[amd]", "amd"),
        (GOOD + 'nonce = "optionally"', "nonce"),
        (GOOD + "nonce = false", "nonce"),
        (GOOD + "revocation = 0", "revocation"),
        (GOOD + 'origins = ["anyone"]', "origins"),
        (GOOD + "origins = []", "origins"),
        (GOOD + "kinds = []", "kinds"),
        (GOOD + 'kinds = "nvidia"', "kinds"),
        (GOOD + "devices_min = 0", "devices_min"),
        (GOOD + "devices_min = true", "devices_min"),
        (GOOD + 'devices_min = "1"', "devices_min"),
        (GOOD + "devices_min = 1.0", "devices_min"),
        (GOOD + "devices_max = 33", "devices_max"),
        (GOOD + "devices_max = 99999999999999999999", "devices_max"),
        (GOOD + "lifetime_seconds = 0", "lifetime_seconds"),
        (GOOD + "lifetime_seconds = 604801", "lifetime_seconds"),
        (GOOD + "lifetime_seconds = inf", "lifetime_seconds"),
        (GOOD + "lifetime_seconds = nan", "lifetime_seconds"),
        (GOOD + 'binding_min = "weak"', "binding_min"),
        (GOOD + "revocation_stale_hours_max = -1", "revocation_stale_hours_max"),
        (GOOD + "revocation_stale_hours_max = 721", "revocation_stale_hours_max"),
        (GOOD + "revocation_stale_hours_max = true", "revocation_stale_hours_max"),
        (GOOD + "collateral_stale_hours_max = 721", "collateral_stale_hours_max"),
        (GOOD + 'collateral_stale_hours_max = "1"', "collateral_stale_hours_max"),
        (GOOD + 'allow_hold = "sometimes"', "allow_hold"),
        (GOOD + '[nvidia]\narchitectures = ["GB202"]', "nvidia.architectures"),
        (GOOD + "[nvidia]\ngpus_min = -1", "nvidia.gpus_min"),
        (GOOD + "[nvidia]\ngpus_min = 33", "nvidia.gpus_min"),
        (GOOD + '[nvidia]\ntopology = "maybe"', "nvidia.topology"),
        (GOOD + '[nras]\ncertificates_required = "never"', "nras.certificates_required"),
        (GOOD + "[nras]\ncertificates = true", "nras.certificates"),
        (GOOD + '[tdx]\nstatuses = ["Fine"]', "tdx.statuses"),
        (GOOD + "[snp]\nvmpl = [4]", "snp.vmpl"),
        (GOOD + '[nvidia]\nmodes = ["unknown"]', "nvidia.modes"),
        (GOOD + "[nvidia]\ndriver_min = 550", "nvidia.driver_min"),
        (GOOD + '[nvidia]\ndriver_min = "55A"', "nvidia.driver_min"),
        (GOOD + '[nvidia]\ndriver_min = ""', "nvidia.driver_min"),
        (GOOD + '[nvidia]\ndriver_min = "550."', "nvidia.driver_min"),
        (GOOD + '[nvidia]\ndriver_min = "550\\n"', "nvidia.driver_min"),
        (GOOD + '[nvidia]\nvbios_min = "9G"', "nvidia.vbios_min"),
        (GOOD + "[nvidia]\nallowed_mismatching_indices = [64]", "nvidia.allowed_mismatching_indices"),
        (GOOD + "[nvidia]\nallowed_mismatching_indices = [-1]", "nvidia.allowed_mismatching_indices"),
        (GOOD + "[nvidia]\nallowed_mismatching_indices = [true]", "nvidia.allowed_mismatching_indices"),
        (GOOD + '[nvidia]\nallowed_mismatching_indices = ["9"]', "nvidia.allowed_mismatching_indices"),
        (GOOD + "[nvidia]\nrim_expired_days_max = -1", "nvidia.rim_expired_days_max"),
        (GOOD + "[nvidia]\nrim_expired_days_max = 3651", "nvidia.rim_expired_days_max"),
        (GOOD + '[nvidia]\nfwid = "no"', "nvidia.fwid"),
        (GOOD + "nvidia = 1", "nvidia"),
    ],
)
def test_what_is_unknown_or_out_of_range_is_named(text, key):
    with pytest.raises(PolicyError) as refused:
        parse(text)

    assert key in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "=",
        "name",
        'name = "a"\nname = "b"',
        "a = " + "[" * 100_000,
        "a = " + "[" * 30_000 + "]" * 30_000,
        "a = " + "9" * 10_000,
        "a = 2030-99-99",
        "a = 2030-01-01T99:00:00Z",
        'a = "\\ud800"',
        "\ud800",
        "\0",
        "[" + "a." * 20_000 + "a]",
        "a" * (POLICY_BYTES_MAX + 1),
    ],
    ids=range(13),
)
def test_what_is_no_toml_is_a_policy_error_too(text):
    with pytest.raises(PolicyError):
        parse(text)


@given(st.text(max_size=60) | st.text(alphabet="abn=[]{}\".'\n 019-:TZ_+#e", max_size=60))
def test_random_text(text):
    try:
        parse(text)
    except PolicyError as e:
        message = str(e)
    else:
        message = "parsed"
    assert message


KEYS = [*Policy.model_fields, *NvidiaRules.model_fields, "other"]
tables = st.dictionaries(
    st.sampled_from(KEYS),
    st.one_of(
        st.booleans().map(lambda flag: str(flag).lower()),
        st.integers().map(str),
        st.floats(allow_nan=False, allow_infinity=False).map(str),
        st.sampled_from(['"optional"', '"lab"', '["nvidia"]', '["vendor"]', "[]", "[9]", "{}", "1979-05-27", "inf"]),
    ),
    max_size=5,
)


@given(tables, tables)
def test_random_tables(rules, nvidia):
    text = "\n".join(f"{key} = {value}" for key, value in rules.items() if key != "nvidia")
    text += "\n[nvidia]\n" + "\n".join(f"{key} = {value}" for key, value in nvidia.items())
    try:
        parsed = parse(text)
    except PolicyError:
        return
    assert len(parsed.sha256) == 64


# --- the digest -------------------------------------------------------------------------------------------------------
LAID_OUT = [
    'name = "mine"\nkinds = ["nvidia", "amd-snp"]\nlifetime_seconds = 60\n[nvidia]\nmodes = ["spt", "ppcie"]\n',
    '# why\nlifetime_seconds = 60\nkinds = ["amd-snp", "nvidia"]\nname = \'mine\'\nnvidia = {modes=["ppcie","spt"]}',
    'name = "mine"\nkinds = ["nvidia", "amd-snp", "nvidia"]\nlifetime_seconds = 0x3C\nnvidia.modes = ["spt", "ppcie"]',
    'name = "mine"\nkinds = ["nvidia", "amd-snp"]\nlifetime_seconds = 60\n[nvidia]\nmodes = ["spt", "ppcie", "spt"]',
]


def test_the_digest_is_that_of_the_rules_however_they_are_written():
    assert len({parse(text).sha256 for text in LAID_OUT}) == 1


@pytest.mark.parametrize("hash_seed", ["1", "2", "3"])
def test_the_digest_is_the_same_in_every_process(hash_seed):
    program = f"from attest.policy import parse; print(parse({LAID_OUT[0]!r}).sha256)"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )

    assert ended.stdout.strip() == parse(LAID_OUT[0]).sha256


def test_every_rule_is_in_the_digest():
    changed = [
        {"name": "other"},
        {"kinds": {"nvidia", "amd-snp"}},
        {"required": {"amd-snp"}},
        {"origins": {"emulated"}},
        {"devices_min": 2},
        {"devices_max": 2},
        {"nonce": "optional"},
        {"revocation": "optional"},
        {"binding_min": "measured"},
        {"lifetime_seconds": 1},
        {"revocation_stale_hours_max": 1},
        {"collateral_stale_hours_max": 1},
        {"allow_hold": True},
        {"nras": {"certificates_required": False}},
        {"tdx": {"event_log": "required"}},
        {"snp": {"vmpl": {1}}},
        {"nvidia": {"architectures": set()}},
        {"nvidia": {"gpus_min": 2}},
        {"nvidia": {"topology": "optional"}},
        {"nvidia": {"modes": {"spt"}}},
        {"nvidia": {"driver_min": "550"}},
        {"nvidia": {"vbios_min": "96"}},
        {"nvidia": {"fwid": "optional"}},
        {"nvidia": {"allowed_mismatching_indices": {9}}},
        {"nvidia": {"rim_expired_days_max": 1}},
    ]
    named = {key for change in changed for key in (change.get("nvidia") or change)}

    digests = {Policy.model_validate({"name": "mine"} | change).sha256 for change in changed}

    assert len(digests | {Policy(name="mine").sha256}) == len(changed) + 1
    assert named | {"nvidia"} >= {*NvidiaRules.model_fields, *Policy.model_fields}


def test_a_policy_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        shipped("lab").name = "other"
