"""Every container gives the same bundle, and what is none is refused as malformed, whatever it is."""

import base64
import json
import struct
import time
from dataclasses import replace

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from attest import reasons
from attest.containers import FILES_MAX, SETS_MAX, read
from attest.errors import AttestError, MalformedEvidence
from attest.evidence import BUNDLE_BYTES_MAX, DEVICES_MAX, FORMAT, Evidence, digest, dumps

REPORT = bytes.fromhex("11e001ff") + bytes(range(200)) * 20
CHAIN = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
GOOD = Evidence("nvidia", REPORT, CHAIN)


def b64(data):
    return base64.b64encode(data).decode()


def nvattest(report=REPORT, chain=CHAIN):
    return {"arch": "HOPPER", "nonce": "00" * 32, "evidence": b64(report), "certificate": b64(chain)}


def go_nvattest(report=REPORT, chain=CHAIN):
    links = {"Certificates": [{"pem": b64(chain)}], "Note": "x"}
    return {"UUID": "GPU-0", "AttestationReport": {"py/b64": b64(report)}, "CertificateChains": links}


def nvml_report(report=REPORT):
    return struct.pack("<III", 0, len(report), 0) + bytes(32) + report.ljust(8192, b"\0") + bytes(4096)


def nvml_certificate(chain=CHAIN, other=123):
    return struct.pack("<II", other, len(chain)) + bytes(4096) + chain.ljust(5120, b"\0")


def own(**changes):
    item = {"kind": "nvidia", "payload": b64(REPORT), "certificates": b64(CHAIN)}
    return {"format": FORMAT, "evidence": [item | changes]}


def malformed(*files):
    with pytest.raises(MalformedEvidence) as refused:
        read(list(files))
    return refused.value.reason


# --- each form --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "files",
    [
        pytest.param([REPORT, CHAIN], id="report and chain"),
        pytest.param([CHAIN, REPORT], id="chain and report"),
        pytest.param([REPORT, b"\n" + CHAIN + b"\0\0\0"], id="chain with the driver's padding"),
        pytest.param([REPORT.hex().encode(), CHAIN], id="hex"),
        pytest.param([REPORT.hex().upper().encode() + b"\n", CHAIN], id="upper hex"),
        pytest.param([b", ".join(b"0x%02x" % each for each in REPORT), CHAIN], id="hex as C writes it"),
        pytest.param([nvml_report(), nvml_certificate()], id="NVML structs"),
        pytest.param([nvml_report(), nvml_certificate(other=ord("{"))], id="NVML struct that begins like JSON"),
        pytest.param([json.dumps([nvattest()]).encode()], id="nvattest"),
        pytest.param([json.dumps({"evidences": [nvattest()], "result_code": 0}).encode()], id="nvattest, wrapped"),
        pytest.param([json.dumps({"nonce": "", "evidence_list": [nvattest()]}).encode()], id="NRAS request"),
        pytest.param([json.dumps(json.dumps({"evidence_list": [nvattest()]})).encode()], id="NRAS request as a string"),
        pytest.param([json.dumps({"gpus": [go_nvattest()], "nvswitches": None}).encode()], id="go-nvattest"),
        pytest.param([json.dumps(own()).encode()], id="our own"),
        pytest.param([b"  " + json.dumps(own(), indent=4).encode() + b"\n"], id="our own, indented"),
    ],
)
def test_each_container_gives_the_same_bundle(files):
    assert read(files) == (GOOD,)


def test_several_files_together_are_one_bundle_in_their_order():
    other = REPORT[:-1] + b"\xff"

    bundle = read([json.dumps(own()).encode(), other, CHAIN])

    assert [evidence.payload for evidence in bundle] == [REPORT, other]


@pytest.mark.parametrize("size", [9224, 12332, 1184])
def test_text_of_the_length_of_a_struct_is_still_text(size):
    short = json.dumps(own(payload=b64(REPORT[:100]), certificates=b64(CHAIN))).encode()

    (evidence,) = read([short.ljust(size)])

    assert evidence.payload == REPORT[:100]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (bytes.fromhex("0400020081000000") + bytes(600), "intel-tdx"),
        (bytes.fromhex("0500020081000000") + bytes(600), "intel-tdx"),
        (struct.pack("<I", 3) + bytes(1180), "amd-snp"),
    ],
)
def test_cpu_evidence_is_recognised(data, kind):
    assert read([data])[0].kind == kind


def test_a_struct_is_cut_to_the_size_that_it_names():
    assert read([nvml_report(REPORT[:50]), CHAIN])[0].payload == REPORT[:50]


@pytest.mark.parametrize("size", [0, 8193, 0xFFFFFFFF])
def test_a_struct_that_names_an_impossible_size_is_malformed(size):
    data = bytearray(nvml_report())
    data[4:8] = struct.pack("<I", size)

    assert malformed(bytes(data), CHAIN) is reasons.EVIDENCE_MALFORMED


# --- CPUs, and containers of containers -------------------------------------------------------------------------------
SNP = struct.pack("<I", 3) + bytes(range(1, 237)) * 5
assert len(SNP) == 1184
TDX = bytes.fromhex("0400020081000000") + bytes(range(256)) * 3
FIVE = CHAIN * 5  # as many certificates as a GPU's chain has
VCEK, ASK = (b"\x30\x82" + bytes([1, n]) + bytes([n]) * (0x100 + n) for n in (7, 9))  # DER, by its head
LOG = [{"imr": 0, "event_type": 1, "digest": "00" * 48, "event": "", "event_payload": ""}]
CPU = Evidence("amd-snp", SNP, CHAIN)
GPU = Evidence("nvidia", REPORT, FIVE)
LOGGED = Evidence("intel-tdx", TDX, b"", json.dumps(LOG).encode())


@pytest.mark.parametrize(
    ("files", "bundle"),
    [
        ([SNP], (replace(CPU, certificates=b""),)),
        ([SNP, CHAIN], (CPU,)),
        ([CHAIN, SNP], (CPU,)),
        ([SNP, CHAIN * 3], (replace(CPU, certificates=CHAIN * 3),)),
        ([SNP, VCEK], (replace(CPU, certificates=VCEK),)),
        ([SNP, VCEK + ASK], (replace(CPU, certificates=VCEK + ASK),)),
        ([SNP, VCEK, ASK], (replace(CPU, certificates=VCEK + ASK),)),
        ([SNP, CHAIN, CHAIN], (replace(CPU, certificates=CHAIN * 2),)),
        ([SNP.hex().encode(), CHAIN], (CPU,)),
        ([base64.b64encode(SNP), CHAIN], (CPU,)),
        ([base64.encodebytes(SNP), CHAIN], (CPU,)),
        ([json.dumps(b64(SNP)).encode(), CHAIN], (CPU,)),
        ([SNP, REPORT, FIVE], (replace(CPU, certificates=b""), GPU)),
        ([SNP, REPORT, FIVE, CHAIN], (CPU, GPU)),
        ([REPORT, SNP, CHAIN, FIVE], (GPU, CPU)),
        ([CHAIN, FIVE, SNP, REPORT], (CPU, GPU)),
        ([TDX, REPORT, FIVE], (replace(LOGGED, log=b""), GPU)),
        ([base64.b64encode(TDX)], (replace(LOGGED, log=b""),)),
        ([TDX.hex().encode() + b"\n"], (replace(LOGGED, log=b""),)),
    ],
)  # fmt: skip
def test_reports_of_cpus_take_their_certificates_and_gpus_theirs(files, bundle):
    assert read(files) == bundle


@pytest.mark.parametrize(
    "files",
    [
        pytest.param([TDX, json.dumps(LOG).encode()], id="files"),
        pytest.param([json.dumps(LOG).encode(), TDX.hex().encode()], id="files, log first"),
        pytest.param([json.dumps({"quote": TDX.hex(), "event_log": json.dumps(LOG)}).encode()], id="dstack"),
        pytest.param([json.dumps({"quote": TDX.hex(), "event_log": LOG, "vm_config": "{}"}).encode()], id="as JSON"),
        pytest.param([json.dumps({"quote": b64(TDX), "event_log": LOG}).encode()], id="base64"),
        pytest.param([json.dumps(json.dumps({"quote": TDX.hex(), "event_log": LOG})).encode()], id="a string"),
    ],
)
def test_an_event_log_belongs_to_its_quote(files):
    assert read(files) == (LOGGED,)


@pytest.mark.parametrize("gpu", [{"evidence_list": [nvattest(chain=FIVE)]}, [nvattest(chain=FIVE)]])
@pytest.mark.parametrize(
    ("cpu", "kind"), [(TDX.hex(), "intel-tdx"), (b64(TDX), "intel-tdx"), (SNP.hex(), "amd-snp"), (b64(SNP), "amd-snp")]
)
@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_secretvms_set(gpu, cpu, kind, text, wrapped):
    document = json.dumps({"cpu": cpu, "gpu": json.dumps(gpu) if text else gpu})

    bundle = read([(json.dumps(document) if wrapped else document).encode()])

    assert [evidence.kind for evidence in bundle] == [kind, "nvidia"]
    assert bundle[1] == GPU
    assert read([cpu.encode(), json.dumps(gpu).encode()]) == bundle


def test_a_set_may_hold_another():
    inner = {"quote": TDX.hex(), "event_log": LOG}

    assert read([json.dumps({"cpu": inner, "gpu": [nvattest(chain=FIVE)]}).encode()]) == (LOGGED, GPU)


def test_our_own_form_holds_logs():
    assert read([dumps((LOGGED, GPU, CPU))]) == (LOGGED, GPU, CPU)
    assert b'"log"' not in dumps((GPU, CPU))
    assert digest((LOGGED,)) != digest((replace(LOGGED, log=b""),))


def token(states):
    parts = ({"kid": "nv-eat-kid-prod-1", "alg": "ES384"}, states)
    return (
        ".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in parts)
        + "."
        + "A" * 128
    )


def nras(*names, vouched=None):
    submods = {name: ["DIGEST", ["SHA-256", "00"]] for name in (names if vouched is None else vouched)}
    return [["JWT", token({"submods": submods})], {name: token({"name": name}) for name in names}]


@pytest.mark.parametrize("wrapped", [0, 1, 2])
def test_an_answer_of_nras_is_one_piece_of_evidence_a_device(wrapped):
    text = json.dumps(nras("GPU-0", "GPU-1"))
    for _ in range(wrapped):
        text = json.dumps(text)

    bundle = read([text.encode()])

    assert [evidence.kind for evidence in bundle] == ["nvidia-nras"] * 2
    assert [list(json.loads(evidence.payload)[1]) for evidence in bundle] == [["GPU-0"], ["GPU-1"]]
    assert [evidence.kind for evidence in read([TDX, text.encode()])] == ["intel-tdx", "nvidia-nras", "nvidia-nras"]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (nras("GPU-0", vouched=["GPU-0", "GPU-1"]), "nras-incomplete"),
        (nras("GPU-0", "GPU-1", vouched=["GPU-0"]), "nras-incomplete"),
        (nras("GPU-1"), "nras-eat-malformed"),
        (nras("CPU-0"), "nras-eat-malformed"),
        ([["JWT", "x"], {"GPU-0": "y"}], "nras-token-malformed"),
        ([["JWT", token({})[:-4]], {"GPU-0": "y"}], "nras-signature"),
        ([["JWT"]], "nras-eat-malformed"),
        ([["JWT", None], {}], "nras-eat-malformed"),
        ([["JWT", "x"], ["y"]], "nras-eat-malformed"),
        (nras(*(f"GPU-{n}" for n in range(DEVICES_MAX + 1))), "nras-eat-malformed"),
    ],
)
def test_an_answer_of_nras_is_whole_or_none(answer, code):
    with pytest.raises(AttestError) as refused:
        read([json.dumps(answer).encode()])
    assert refused.value.reason.code == code


@pytest.mark.parametrize(
    "files",
    [
        pytest.param([CHAIN, TDX], id="certificates beside a quote"),
        pytest.param([SNP, SNP, CHAIN, CHAIN, CHAIN], id="a chain too many for two reports"),
        pytest.param([SNP, FIVE, FIVE], id="a GPU's chain too many"),
        pytest.param([json.dumps(LOG).encode()], id="a log alone"),
        pytest.param([TDX, json.dumps(LOG).encode(), json.dumps(LOG).encode()], id="two logs"),
        pytest.param([SNP, json.dumps(LOG).encode()], id="a log beside SEV-SNP"),
        pytest.param([json.dumps([LOG[0], {}]).encode()], id="a log with something else in it"),
        pytest.param([json.dumps({"quote": TDX.hex(), "event_log": 5}).encode()], id="a log that is a number"),
        pytest.param([json.dumps({"quote": 5, "event_log": LOG}).encode()], id="a quote that is a number"),
        pytest.param([json.dumps({"quote": "", "event_log": LOG}).encode()], id="no quote"),
        pytest.param([json.dumps({"quote": None, "event_log": "[]"}).encode()], id="null"),
        pytest.param([json.dumps({"cpu": TDX.hex(), "gpu": ""}).encode()], id="no GPU"),
        pytest.param([json.dumps({"cpu": None, "gpu": None}).encode()], id="nothing at all"),
        pytest.param([json.dumps({"cpu": TDX.hex(), "gpu": {}}).encode()], id="an empty GPU"),
        pytest.param([json.dumps({"cpu": "\ud800", "gpu": []}).encode()], id="a lone surrogate"),
        pytest.param([json.dumps({"quote": TDX.hex(), "event_log": "\ud800"}).encode()], id="in the log"),
        pytest.param([base64.b64encode(base64.b64encode(base64.b64encode(SNP)))], id="wrapped too often"),
        pytest.param([base64.b64encode(SNP)[:-3]], id="base64 cut"),
        pytest.param([base64.b64encode(b"x" * 200)], id="base64 of nothing known"),
        pytest.param([SNP[:-1]], id="a report of SEV-SNP cut"),
        pytest.param([b"\0\1" + SNP[2:]], id="a version that is none"),
    ],
)
def test_hostile_sets_are_malformed(files):
    assert malformed(*files) in (reasons.EVIDENCE_MALFORMED, reasons.EVIDENCE_EMPTY)


@pytest.mark.parametrize("depth", [SETS_MAX + 1, 50, 200, 400, 2_000])
@pytest.mark.parametrize(
    ("opened", "closed"), [('{"gpu":"00","cpu":', "}"), ('{"event_log":[],"quote":', "}"), ('{"cpu":"00","gpu":', "}")]
)
def test_sets_within_sets_come_to_an_end(depth, opened, closed):
    assert malformed((opened * depth + "{}" + closed * depth).encode()) is reasons.EVIDENCE_MALFORMED


@pytest.mark.parametrize(
    "text",
    [
        b"A" * 200 + b" " * 900_000 + b"!",
        b"A" * 200 + b"=" + b" " * 900_000 + b"!",
        b"A" * 900_000 + b"!",
        b"A " * 450_000 + b"=!",
        b"0x" * 450_000 + b"!",
        b'"' + b"A" * 200 + b" " * 900_000 + b'!"',
    ],
    ids=range(6),
)
def test_no_text_takes_long(text):
    started = time.perf_counter()

    assert malformed(text) is reasons.EVIDENCE_MALFORMED
    assert time.perf_counter() - started < 5  # it took hours


# --- our own wire form ------------------------------------------------------------------------------------------------
names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)
bundles = st.lists(st.builds(Evidence, names, st.binary(max_size=80), st.binary(max_size=80)), max_size=4).map(tuple)


@given(bundles.filter(bool))
def test_what_is_written_is_read(bundle):
    assert read([dumps(bundle)]) == bundle


@given(
    st.lists(st.builds(Evidence, st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=9)), max_size=3)
)
def test_the_wire_form_is_canonical_json(bundle):
    items = [{"kind": e.kind, "payload": b64(e.payload), "certificates": b64(e.certificates)} for e in bundle]

    assert dumps(tuple(bundle)) == rfc8785.dumps({"format": FORMAT, "evidence": items})


def test_the_digest_names_every_byte():
    others = [
        (Evidence("nvidib", REPORT, CHAIN),),
        (Evidence("nvidia", REPORT + b"\0", CHAIN),),
        (Evidence("nvidia", REPORT, CHAIN[:-1]),),
        (Evidence("nvidia", REPORT[:-1], REPORT[-1:] + CHAIN),),
        (GOOD, GOOD),
        (),
    ]

    assert len({digest(bundle) for bundle in [(GOOD,), *others]}) == len(others) + 1


# --- what is none -----------------------------------------------------------------------------------------------------
DEEP = 100_000


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(b"hello", id="words"),
        pytest.param(b"abc", id="odd hex"),
        pytest.param(b"0x", id="hex without digits"),
        pytest.param(b"{", id="half of an object"),
        pytest.param(b'"' * 3, id="half of a string"),
        pytest.param(b"\xff\xfe{\0", id="UTF-16 cut"),
        pytest.param(b'{"\xff": 1}', id="not UTF-8"),
        pytest.param(b"{}", id="empty object"),
        pytest.param(b"[null]", id="null"),
        pytest.param(b"[[]]", id="list of lists"),
        pytest.param(b"[NaN, Infinity]", id="numbers that are none"),
        pytest.param(b"[1e999]", id="huge float"),
        pytest.param(b"[" + b"9" * 10_000 + b"]", id="more digits than Python reads"),
        pytest.param(b"[" * DEEP, id="deep"),
        pytest.param(b"[" * DEEP + b"]" * DEEP, id="deep and closed"),
        pytest.param(b'{"format":' + b"[" * 500 + b"]" * 500 + b"}", id="a deep format"),
        pytest.param(b'{"evidence_list":' + b'{"a":' * DEEP, id="deep objects"),
        pytest.param(json.dumps(json.dumps(json.dumps(json.dumps(own())))).encode(), id="wrapped too often"),
        pytest.param(json.dumps("\ud800{}").encode(), id="lone surrogate"),
        pytest.param(b'{"evidence_list": [], "evidence_list": []}', id="a name twice"),
        pytest.param(json.dumps(own() | {"format": "workermanager/evidence-v2"}).encode(), id="another version"),
        pytest.param(json.dumps(own() | {"format": None}).encode(), id="format null"),
        pytest.param(json.dumps(own(kind=1)).encode(), id="kind as a number"),
        pytest.param(json.dumps(own(kind="")).encode(), id="kind empty"),
        pytest.param(json.dumps(own(kind="a" * 65)).encode(), id="kind long"),
        pytest.param(json.dumps(own(kind="\ud800")).encode(), id="kind a lone surrogate"),
        pytest.param(json.dumps(own(kind="\x1b[2J")).encode(), id="kind that clears a terminal"),
        pytest.param(json.dumps(own(kind="nvidia\n")).encode(), id="kind with a line end"),
        pytest.param(json.dumps(own(payload=None)).encode(), id="payload null"),
        pytest.param(json.dumps(own(payload=[1])).encode(), id="payload a list"),
        pytest.param(json.dumps(own(payload="ä")).encode(), id="payload not ASCII"),
        pytest.param(json.dumps(own(payload="AAA")).encode(), id="payload no base64"),
        pytest.param(json.dumps(own(payload="A A=")).encode(), id="payload with white space"),
        pytest.param(json.dumps({"format": FORMAT, "evidence": {}}).encode(), id="devices as an object"),
        pytest.param(json.dumps({"format": FORMAT, "evidence": "x"}).encode(), id="devices as text"),
        pytest.param(json.dumps({"format": FORMAT}).encode(), id="devices absent"),
        pytest.param(json.dumps({"gpus": 3}).encode(), id="gpus as a number"),
        pytest.param(json.dumps({"gpus": {"a": 1}, "nvswitches": [1]}).encode(), id="gpus as an object"),
        pytest.param(json.dumps({"gpus": [{"AttestationReport": {}}]}).encode(), id="gpu without report"),
        pytest.param(
            json.dumps({"gpus": [go_nvattest() | {"CertificateChains": {"a": [], "b": []}}]}).encode(), id="two chains"
        ),
        pytest.param(json.dumps([nvattest() | {"evidence": 5}]).encode(), id="evidence a number"),
        pytest.param(json.dumps([{"evidence": b64(REPORT)}]).encode(), id="certificate absent"),
        pytest.param(json.dumps(["x"]).encode(), id="device as text"),
    ],
)
def test_anything_else_is_malformed(data):
    assert malformed(data) in (reasons.EVIDENCE_MALFORMED, reasons.EVIDENCE_EMPTY)


@pytest.mark.parametrize("data", [b"[]", json.dumps({"format": FORMAT, "evidence": []}).encode()])
def test_no_device_is_no_evidence(data):
    assert malformed(data) is reasons.EVIDENCE_EMPTY


def test_no_file_is_no_evidence():
    assert malformed() is reasons.EVIDENCE_EMPTY


@pytest.mark.parametrize("files", [[REPORT], [CHAIN], [REPORT, REPORT, CHAIN]])
def test_reports_and_chains_must_pair_up(files):
    assert malformed(*files) is reasons.EVIDENCE_MALFORMED


@pytest.mark.parametrize(
    "files",
    [
        pytest.param([b"[" + b" " * BUNDLE_BYTES_MAX + b"]"], id="one large file"),
        pytest.param([b" " * (BUNDLE_BYTES_MAX // 2)] * 3, id="together"),
        pytest.param([REPORT] * (FILES_MAX + 1), id="files"),
        pytest.param([REPORT, CHAIN] * (DEVICES_MAX + 1), id="pairs"),
        pytest.param([json.dumps([nvattest(b"x", CHAIN)] * (DEVICES_MAX + 1)).encode()], id="devices of one file"),
        pytest.param([json.dumps([nvattest(b"x", CHAIN)] * DEVICES_MAX).encode()] * 2, id="devices of two files"),
        pytest.param([json.dumps([{}] * 100_000).encode()], id="a hundred thousand devices"),
        pytest.param([json.dumps([nvattest(bytes((64 << 10) + 1))]).encode()], id="a large report"),
        pytest.param([json.dumps([nvattest(REPORT, b"A" * (32 << 10))]).encode()], id="a large chain"),
    ],
)
def test_more_than_a_node_can_have_is_refused(files):
    assert malformed(*files) is reasons.EVIDENCE_TOO_LARGE


# --- whatever comes ---------------------------------------------------------------------------------------------------
NAMES = [
    *("format", "evidence", "evidences", "evidence_list", "gpus", "nvswitches", "kind", "payload", "certificates"),
    *("certificate", "AttestationReport", "py/b64", "CertificateChains", "pem"),
    *("cpu", "gpu", "quote", "event_log", "imr", "digest", "log", "JWT", "GPU-0"),
]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.just(b64(REPORT))
    | st.sampled_from(["nvidia", "JWT", b64(SNP), TDX.hex(), json.dumps(LOG)]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(NAMES) | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


def only_its_own(*files):
    try:
        bundle = read(list(files))
    except AttestError as e:
        said = str(e)
    else:
        assert 0 < len(bundle) <= DEVICES_MAX
        said = digest(bundle)
    assert said.isprintable()


@given(st.lists(st.binary(max_size=200), max_size=3))
def test_random_bytes(files):
    only_its_own(*files)


@given(json_values)
def test_random_json(value):
    only_its_own(json.dumps(value).encode("utf-8", "surrogatepass"))


@given(st.sampled_from([nvattest(), go_nvattest(), own()]), st.data())
def test_a_container_with_one_value_of_another_type(document, data):
    spoiled = json.loads(json.dumps([document] if "arch" in document else document))
    places = [(spoiled, key) for key in (spoiled if isinstance(spoiled, dict) else range(len(spoiled)))]
    for parent, key in places:
        if isinstance(child := parent[key], dict | list):
            places += [(child, each) for each in (child if isinstance(child, dict) else range(len(child)))]
    parent, key = data.draw(st.sampled_from(places))
    parent[key] = data.draw(json_values)

    only_its_own(json.dumps(spoiled).encode("utf-8", "surrogatepass"))


@settings(max_examples=300)
@given(
    st.sampled_from(
        [
            json.dumps(own()).encode(),
            json.dumps([nvattest()]).encode(),
            nvml_report(),
            nvml_certificate(),
            CHAIN,
            REPORT,
            SNP,
            base64.b64encode(TDX),
            json.dumps({"cpu": TDX.hex(), "gpu": [nvattest()]}).encode(),
            json.dumps({"quote": TDX.hex(), "event_log": LOG}).encode(),
            json.dumps(nras("GPU-0")).encode(),
        ]
    ),
    st.data(),
)
def test_flipped_and_truncated_containers(whole, data):
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]

    only_its_own(data.draw(st.sampled_from([flipped, whole[:at], whole[at:]])))


def test_an_error_is_one_line_that_fits(capsys):
    with pytest.raises(AttestError) as refused:
        read([json.dumps({"format": "x" * 10_000}).encode()])

    assert len(str(refused.value)) < 1_000
