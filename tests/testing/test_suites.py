"""Suites of users run as they run them: pytest, its plugins and its workers, unittest, and runners built on it."""

import os
from pathlib import Path

import pytest

from tests import programs
from tests.testing.suites import PYTHON, run_pytest, run_unittest, written

ROOT = Path(__file__).parents[2]

FIXTURES = """
import asyncio, threading
import pytest
from authz import current_principal

@pytest.fixture(autouse=True)
def as_acme(acting_as):
    with acting_as("org_acme"):
        yield

@pytest.fixture
def anyio_backend():
    return "asyncio"

def test_sync():
    assert current_principal().org_id == "org_acme"

@pytest.mark.anyio
async def test_async():
    await asyncio.sleep(0)
    assert current_principal().org_id == "org_acme"

def test_nested(acting_as):
    with acting_as("org_globex"):
        assert current_principal().org_id == "org_globex"
    assert current_principal().org_id == "org_acme"

def test_thread(acting_as):
    seen = []
    def thread():
        with acting_as("org_globex"):
            seen.append(current_principal().org_id)
    started = threading.Thread(target=thread)
    started.start()
    started.join()
    assert seen == ["org_globex"]
"""
AFTERWARDS = """
import pytest
from authz import current_principal

def test_no_caller_is_left():
    with pytest.raises(LookupError):
        current_principal()
"""
ASYNC_FIXTURE = """
import pytest
from authz import current_principal
from authz.testing import acting_as

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def as_acme():
    with acting_as("org_acme"):
        yield

@pytest.mark.anyio
async def test_it(as_acme):
    assert current_principal().org_id == "org_acme"
"""
# More tests than one worker takes at once, each with the keys of its own process.
WORKERS = """
import os
import pytest

@pytest.mark.parametrize("number", range(20))
def test_it(authz_issuer, number):
    assert os.environ["PYTEST_XDIST_WORKER"] in ("gw0", "gw1")
    assert authz_issuer.verifier().verify(authz_issuer.token("org_acme")).org_id == "org_acme"
"""
UNITTEST = """
import unittest
from authz import current_principal
from authz.testing import Issuer, acting_as

ISSUER = Issuer()  # while the module is loaded

class Sync(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.issuer = Issuer()

    def setUp(self):
        self.enterContext(acting_as("org_acme"))

    def test(self):
        self.assertEqual(current_principal().org_id, "org_acme")
        self.assertEqual(ISSUER.verifier().verify(self.issuer.token("org_a")).org_id, "org_a")

class Async(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.enterContext(acting_as("org_acme"))

    async def test(self):
        self.assertEqual(current_principal().org_id, "org_acme")

    @acting_as("org_globex")
    async def test_decorated(self):
        self.assertEqual(current_principal().org_id, "org_globex")

class Afterwards(unittest.TestCase):
    def test(self):
        with self.assertRaises(LookupError):
            current_principal()
"""
OWN_RUNNER = """
import sys, unittest
suite = unittest.TestLoader().discover(".")
sys.exit(not unittest.TextTestRunner().run(suite).wasSuccessful())
"""
RUNNERS = {
    "python -m unittest": ("-m", "unittest"),
    "python -m unittest discover": ("-m", "unittest", "discover"),
    "unittest.main()": ("-c", "import test_it, unittest; unittest.main(test_it)"),
    "a runner of its own": ("-c", OWN_RUNNER),
}


def path_with(folder: Path) -> str:
    """Return where Python looks for modules, with ``folder`` as the first place."""
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


def test_fixtures_and_tests_have_the_caller_and_leave_none_behind(tmp_path: Path) -> None:
    report = run_pytest(written(tmp_path, {"test_a.py": FIXTURES, "test_b.py": AFTERWARDS}))

    assert (report.status, report.count, report.failed) == (0, 5, set()), report.text


def test_an_async_fixture_gives_its_test_the_caller(tmp_path: Path) -> None:
    report = run_pytest(written(tmp_path, {"test_a.py": ASYNC_FIXTURE, "test_b.py": AFTERWARDS}))

    assert (report.status, report.count, report.failed) == (0, 2, set()), report.text


def test_workers_of_xdist_are_tests(tmp_path: Path) -> None:
    report = run_pytest(written(tmp_path, {"test_a.py": WORKERS}), "-n", "2")

    assert (report.status, report.count, report.failed) == (0, 20, set()), report.text


@pytest.mark.parametrize("runner", RUNNERS)
def test_unittest_and_what_is_built_on_it_are_tests(tmp_path: Path, runner: str) -> None:
    written(tmp_path, {"test_it.py": UNITTEST})
    done = programs.run(*RUNNERS[runner], folder=tmp_path, command=PYTHON, PYTHONPATH=path_with(tmp_path))

    assert (done.returncode, "Ran 4 tests" in done.stderr) == (0, True), done.stderr


def test_unittest_fails_where_the_caller_is_wrong(tmp_path: Path) -> None:
    written(tmp_path, {"test_it.py": UNITTEST.replace('"org_globex")\n\nclass', '"org_acme")\n\nclass')})

    assert run_unittest(tmp_path).endswith("FAILED (failures=1)\n")


# ---- The plugin in the runs of others ----

LOADED = """
import sys

def test_it():
    print("loaded", *(name for name in sys.modules if name.partition(".")[0] in ("authz", "interceptors", "jwcrypto")))
"""
IMPORTED = """
import sys
import authz, authz.testing, interceptors, interceptors.aio
import pytest
sys.exit(pytest.main(["-q", "-W", "error", "-p", "no:cacheprovider"]))
"""
METADATA = "Metadata-Version: 2.4\nName: grpc-org-authz\nVersion: 0\n"


def test_a_run_that_uses_nothing_of_it_loads_nothing(tmp_path: Path) -> None:
    report = run_pytest(written(tmp_path, {"test_it.py": LOADED}), "-s")

    [line] = [line for line in report.text.splitlines() if "loaded" in line]
    loaded = set(line.partition("loaded ")[2].split()) - {"."}
    assert loaded == {"authz", "authz.lazy", "authz.testing", "authz.testing.plugin"}


def test_it_adds_fixtures_and_nothing_else(tmp_path: Path) -> None:
    text = run_pytest(written(tmp_path, {"test_it.py": LOADED}), "--fixtures").text
    _, _, ours = text.partition("fixtures defined from authz.testing.plugin")

    assert [line.split()[0] for line in ours.partition("\n---")[0].splitlines() if "[session scope]" in line] == [
        "authz_issuer",
        "authz_running_issuer",
        "acting_as",
    ]
    assert "authz" not in run_pytest(tmp_path, "--help").text.partition("plugins")[0]


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    written(tmp_path, {"test_it.py": "def test_it(authz_issuer): pass"})

    report = run_pytest(tmp_path, "-p", "no:authz")

    assert report.status == 1
    assert "fixture 'authz_issuer' not found" in report.text


def test_a_test_has_its_credentials_without_the_plugin(tmp_path: Path) -> None:
    suite = "from authz.testing import Issuer\nISSUER = Issuer()\ndef test_it(): Issuer()"

    report = run_pytest(written(tmp_path, {"test_it.py": suite}), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")

    assert (report.status, report.count, report.failed) == (0, 1, set()), report.text


def test_a_program_may_load_the_package_before_pytest(tmp_path: Path) -> None:
    """As it is installed from a wheel: pytest rewrites all packages of a plugin, and warns where it is too late."""
    site, suite = tmp_path / "site", tmp_path / "suite"
    info = site / "grpc_org_authz-0.dist-info"
    for folder in (info, suite):
        folder.mkdir(parents=True)
    for package in ("authz", "interceptors"):
        (site / package).symlink_to(ROOT / package)
    record = "authz/__init__.py,,\nauthz/testing/__init__.py,,\ninterceptors/__init__.py,,\n"
    points = "[pytest11]\nauthz = authz.testing.plugin\n"
    written(info, {"METADATA": METADATA, "RECORD": record, "entry_points.txt": points})
    written(suite, {"test_it.py": "def test_it(acting_as): pass"})

    done = programs.run("-c", IMPORTED, folder=suite, command=PYTHON[:1], PYTHONPATH=path_with(site))

    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout + done.stderr
