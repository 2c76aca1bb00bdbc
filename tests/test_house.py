"""The house rules that a machine can check: rooms, doors, docstrings, sizes, clocks, and what may not be in here."""

import ast
import base64
import hashlib
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("attest", "orchestrator", "nodeprobe")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
VECTORS = ROOT.parent / "shared" / "vectors"

FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 400

# Who may import whom of our own; the arrows point downward. A name allows what lies below it, too.
MAY_IMPORT = {
    "attest": ("attest",),
    "orchestrator": ("orchestrator", "attest"),
    "nodeprobe": (
        "nodeprobe",
        "orchestrator.client",
        "orchestrator.messages",
        "orchestrator.messages_appraisal",
        "orchestrator.worker_keys",
        "orchestrator.wallets",
        "orchestrator.worker_type",
        "attest.evidence",
        "attest.binding",
        "attest.errors",
        "attest.reasons",
        "attest.containers",
        "attest.cli",
        "attest.keyfiles",
    ),
}
# Each library comes in by its doors. A door is a module, or a folder of them.
DOORS = {
    "pynvml": ("nodeprobe/nvml.py",),
    "sqlmodel": (
        "orchestrator/store.py",
        "orchestrator/store_collateral.py",
        "orchestrator/store_policies.py",
        "orchestrator/migrations",
    ),
    "sqlalchemy": (
        "orchestrator/store.py",
        "orchestrator/store_collateral.py",
        "orchestrator/store_policies.py",
        "orchestrator/migrations",
    ),
    "alembic": ("orchestrator/store.py", "orchestrator/migrations"),
    "apscheduler": ("orchestrator/ticks.py",),
    "httpx": ("orchestrator/client.py", "nodeprobe/inference.py"),
    "httpcore": ("orchestrator/outbound.py",),
    "lxml": ("attest/xmldsig.py", "attest/nvidia/rim.py", "nodeprobe/emulator/rim.py"),
    "fastapi": ("orchestrator/api", "orchestrator/app.py"),
    "starlette": ("orchestrator/api", "orchestrator/app.py"),
    "uvicorn": ("orchestrator/server.py", "orchestrator/api/wire.py"),
    "uvloop": ("orchestrator/server.py",),
    "http_message_signatures": ("orchestrator/worker_keys.py",),
    "rich": (
        "orchestrator/commands",
        "orchestrator/demo",
        "nodeprobe/show.py",
        "nodeprobe/cli.py",
        "nodeprobe/telling.py",
    ),
    "prometheus_client": ("orchestrator/api", "nodeprobe/inference.py", "nodeprobe/emulator"),
    "dcap_qvl": ("attest/tdx",),
    "requests": (),  # httpx is our client
    "urllib3": (),
    "jwt": (),
}

# Where the clock is read. Everywhere else a time is handed in.
CLOCKS = ("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "time.time_ns")
READS_THE_CLOCK = {
    "attest/__main__.py": "a command: verifies as of now, unless --at says otherwise",
    "attest/commands_policy.py": "a command",
    "attest/commands_result.py": "a command",
    "nodeprobe/__main__.py": "a command",
    "nodeprobe/cli.py": "a command's shared pieces",
    "nodeprobe/world.py": "the world that the agent is handed: clock, network, devices",
    "nodeprobe/running.py": "the process that an agent runs in",
    "nodeprobe/commands_agent.py": "commands",
    "nodeprobe/commands_emulate.py": "commands",
    "nodeprobe/commands_root.py": "commands",
    "orchestrator/__main__.py": "commands",
    "orchestrator/commands": "commands",
    "orchestrator/demo": "a command that plays the whole world",
    "orchestrator/app.py": "where the application is put together: its clock is handed down from here",
    "orchestrator/server.py": "where the server's process is put together",
    "orchestrator/client.py": "the default of an argument: a client signs requests with the present time",
    "orchestrator/manager.py": "the default of an argument: tests hand in their own clock",
    "nodeprobe/emulator/serving.py": "stands in for an inference server, whose answers bear the present time",
}

# What would switch a check of TLS off, and who may, with the reason.
UNCHECKED = re.compile(
    r"verify\s*=\s*False|CERT_NONE|check_hostname\s*=\s*False|_create_unverified_context|ssl_verify=False"
)


UNCHECKED_FOR_A_REASON = {
    ("nodeprobe/running.py", "check_hostname = False"): "the certificate itself is pinned, for a server on loopback",
}
# Functions that may be long: they are lists.
LONG_FOR_A_REASON = {("orchestrator/migrations/versions", "upgrade"): "the tables of one version, one after the other"}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def lies_in(name, places):
    return any(name == place or name.startswith(f"{place}/") for place in places)


def imports(tree):
    """Every module imported anywhere in it, in functions too; `from a import b` as a.b, since b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports from the room on"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(module, prefixes):
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


@pytest.fixture(params=MODULES, ids=name_of)
def module(request):
    """Name, text and tree of each module of the three rooms in turn."""
    text = request.param.read_text()
    return name_of(request.param), text, ast.parse(text)


def test_there_is_a_house():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(ROOMS)


# --- rooms and doors --------------------------------------------------------------------------------------------------
def test_arrows_point_downward(module):
    name, _, tree = module
    may = MAY_IMPORT[name.split("/")[0]]

    wrong = [each for each in imports(tree) if each.split(".")[0] in ROOMS and not allowed(each, may)]

    assert not wrong, f"{name} may import of our own only {', '.join(may)}"


def test_libraries_come_in_by_their_doors(module):
    name, _, tree = module

    wrong = [
        each
        for each in imports(tree)
        if (doors := DOORS.get(each.split(".")[0])) is not None and not lies_in(name, doors)
    ]

    assert not wrong


def test_nothing_imports_tests(module):
    _, _, tree = module

    assert not [each for each in imports(tree) if each.split(".")[0] in ("tests", "pytest", "hypothesis", "fixtures")]


# --- how it is written ------------------------------------------------------------------------------------------------
def test_a_module_says_what_it_is_for(module):
    name, _, tree = module

    assert ast.get_docstring(tree), f"say in one sentence what {name} is for"


def test_a_module_has_one_job(module):
    name, text, _ = module

    assert text.count("\n") <= MODULE_LINES_MAX, f"{name} has {text.count(chr(10))} lines"


def test_a_function_fits_on_a_page(module):
    name, _, tree = module
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    excused = {function for place, function in LONG_FOR_A_REASON if lies_in(name, [place])}

    long = {each.name: each.end_lineno - each.lineno + 1 for each in functions if each.name not in excused}

    assert not {name: lines for name, lines in long.items() if lines > FUNCTION_LINES_MAX}


def test_the_clock_is_handed_in(module):
    name, _, tree = module
    read = [
        called for _, called in calls(tree) if any(called == clock or called.endswith(f".{clock}") for clock in CLOCKS)
    ]

    assert not read or lies_in(name, READS_THE_CLOCK), f"{name} reads {read}: take `now` as an argument"


def test_nothing_is_printed_behind_a_commands_back(module):
    _, _, tree = module

    assert not [node.lineno for node, called in calls(tree) if called in ("print", "pprint", "breakpoint")]


def test_no_check_of_tls_is_switched_off(module):
    name, text, _ = module

    assert not [each for each in UNCHECKED.findall(text) if (name, each) not in UNCHECKED_FOR_A_REASON]


def test_nothing_is_run_from_text_or_unpickled(module):
    _, _, tree = module
    dangerous = ("eval", "exec", "os.system", "pickle.loads", "pickle.load", "marshal.loads", "yaml.load")

    assert not [called for _, called in calls(tree) if called in dangerous]
    assert not [node.lineno for node, _ in calls(tree) for word in node.keywords if word.arg == "shell" and _true(word)]


def _true(word):
    return isinstance(word.value, ast.Constant) and word.value.value is True


# attest is pure: what it knows of the world, it is handed.
WORLD = ("socket", "ssl", "urllib.request", "http.client", "subprocess", "sqlite3", "random", "tempfile", "asyncio")


@pytest.mark.parametrize("path", [each for each in MODULES if name_of(each).startswith("attest/")], ids=name_of)
def test_the_verifier_knows_no_world(path):
    assert not [each for each in imports(ast.parse(path.read_text())) if allowed(each, WORLD)]


# --- what is committed ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def committed():
    """Every file that is, or is about to be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    paths = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_recording_of_a_third_party_is_committed(committed):
    if not VECTORS.is_dir():
        pytest.skip("the recordings of ../shared/vectors are not here")
    theirs = {hashlib.sha256(path.read_bytes()).digest() for path in VECTORS.rglob("*") if path.is_file()}

    assert not [name_of(path) for path in committed if hashlib.sha256(path.read_bytes()).digest() in theirs]


# Names in certificates of genuine manufacturers, as DER has them: O=NVIDIA, NVIDIA Corporation, Intel, AMD.
THEIR_ORGANISATIONS = [
    b"\x06\x03\x55\x04\x0a" + bytes([tag, len(name)]) + name
    for tag in (0x0C, 0x13)
    for name in (b"NVIDIA", b"NVIDIA Corporation", b"Intel Corporation", b"Advanced Micro Devices")
]


def test_no_certificate_of_a_manufacturer_is_committed(committed):
    """Roots are pinned by their keys; certificates in fixtures are the emulator's."""
    found = []
    for path in committed:
        data = path.read_bytes()
        for block in re.findall(rb"(?:BEGIN CERTIFICATE-----|X509Certificate>)([0-9A-Za-z+/=\s]+)[-<]", data):
            data += _decoded(block)
        found += [name_of(path) for name in THEIR_ORGANISATIONS if name in data]

    assert not found


def _decoded(block):
    try:
        return base64.b64decode(b"".join(block.split()))
    except ValueError:
        return b""


def test_no_private_key_is_committed(committed):
    begin = b"-----BEGIN " + b"PRIVATE KEY-----"  # in two pieces, or this file would be one
    kinds = (begin, begin.replace(b"PRIVATE", b"EC PRIVATE"), begin.replace(b"PRIVATE", b"RSA PRIVATE"))

    assert not [name_of(path) for path in committed if any(kind in path.read_bytes() for kind in kinds)]


def test_no_path_of_a_machine_is_committed(committed):
    """Somebody else's clone lies elsewhere."""
    place = re.compile(rb"(?<![A-Za-z0-9.:/_}-])/(?:root|work/(?:main|shared|\.)|home/[a-z]+)[/a-z]")

    assert not [name_of(path) for path in committed if path.suffix in TEXTS and place.search(path.read_bytes())]


TEXTS = {".py", ".md", ".toml", ".txt", ".lock", ".yml", ".yaml", ".json", ".cfg", ""}


def test_the_lock_names_hashes_and_no_index():
    lock = (ROOT / "requirements.lock").read_text()

    assert "--hash=sha256:" in lock
    assert "index-url" not in lock
    assert "://" not in lock
