"""What a forked child inherits, tried in a process of its own: forking the one that runs the tests would be rash."""

import ast
import json
import subprocess
import sys
from pathlib import Path

from tests.forks import BUILT

ROOT = Path(__file__).parents[2]
PATIENCE = 120

# Each program forks, asks in child and parent, and prints what both got.
PREAMBLE = """
import os, sys, threading
from authz.runtime import fork
from authz.runtime.network.transport import Transport
from tests.loopback import Loopback, Connection

def forked(function):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            print("child", function(), flush=True)
        except BaseException as error:
            print("child", repr(error), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def run(program):
    # Python 3.12 warns of every fork beside threads, which is what these programs are about.
    options = ["-W", "error", "-W", "ignore::DeprecationWarning", "-W", "ignore::ResourceWarning"]
    command = [sys.executable, *options, "-c", PREAMBLE + program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


def test_every_child_resets_what_is_registered_and_alive():
    program = """
reset = []

class Named:
    def __init__(self, name):
        self.name = name
        fork.register(self)
    def after_fork(self):
        reset.append(self.name)

kept, forgotten = Named("kept"), Named("forgotten")
del forgotten
forked(lambda: reset)
print("parent", reset)
"""

    assert run(program) == ["child ['kept']", "parent []"]


def test_what_starts_a_thread_comes_after_what_the_thread_may_need():
    program = """
reset = []

class Named:
    def __init__(self, name, **more):
        self.name = name
        fork.register(self, **more)
    def after_fork(self):
        reset.append(self.name)

kept = [Named("thread", starts_thread=True), *(Named(str(number)) for number in range(20))]
forked(lambda: (len(reset), reset[-1]))
"""

    assert run(program) == ["child (21, 'thread')"]


def test_a_child_follows_a_store_as_its_parent_does():
    program = """
from authz import SharedState
from authz.judge.orders.order import Order
from authz.store.orders_store import OrdersStore
from tests.store.engines import Engine
from tests.store.fleet import authorizer, suspend, suspended, until

with Engine("valkey") as engine:
    judge = authorizer()
    with SharedState(engine.store(), judge) as shared:
        def follow():
            OrdersStore(engine.store()).write([suspend("org_1")])
            until(lambda: suspended(judge) == {"org_1"})
            judge.suspend(org_id="org_2")
            until(lambda: len(OrdersStore(engine.store()).load()[0]) == 2)
            until(lambda: shared.heartbeat.count == 2)
            return sorted(suspended(judge))
        forked(follow)
        until(lambda: suspended(judge) == {"org_1", "org_2"})
        print("parent", sorted(suspended(judge)))
"""

    assert run(program) == ["child ['org_1', 'org_2']", "parent ['org_1', 'org_2']"]


def test_a_child_reaches_a_store_whose_clients_a_thread_of_the_parent_was_using():
    program = """
import gc
from concurrent.futures import Future
from authz.store.connection import Script
from authz.store.orders_store import OrdersStore
from authz.store.trips import Request, Trips
from tests.store.engines import Engine

with Engine("valkey") as engine:
    store = engine.store()
    orders, trips, script = OrdersStore(store), Trips(store), Script("return 7")

    def ask():
        answer = Future()
        trips.send(Request(script, "k", (), answer.set_result))
        return store.call(script, [], []), orders.entries("0-0", 0.01), answer.result(60)

    asked = ask()
    for client in (store._own.client, orders._reader.client, trips._own.client):
        # As that thread does for a moment with each connection that it takes or gives back.
        holding = threading.Thread(target=client.connection_pool._lock.acquire)
        holding.start()
        holding.join()
    del client
    forked(lambda: (ask() == asked, gc.collect() >= 0))
    engine.__exit__()
    # The clients could not be closed any more.
    os._exit(0)
"""

    assert run(program) == ["child (True, True)"]


def test_nothing_starts_in_a_child_that_becomes_another_program():
    program = """
from authz.runtime.threads import Repeating

thread = Repeating("tests", lambda: 3600.0)
thread.start()
with fork.running_programs():
    forked(threading.active_count)
forked(threading.active_count)
"""

    assert run(program) == ["child 1", "child 2"]


def test_a_grandchild_is_reset_too():
    program = """
class Counter:
    resets = 0
    def after_fork(self):
        self.resets += 1

counter = Counter()
fork.register(counter)
forked(lambda: forked(lambda: counter.resets))
"""

    assert run(program) == ["child 2", "child None"]


def test_a_transport_works_in_child_and_parent():
    program = """
with Loopback(lambda connection: connection.answer(b"keys")) as server:
    transport = Transport()
    ask = lambda: transport.fetch("GET", server.url).result(60).body
    print("before", ask())
    forked(ask)
    print("parent", ask())
    transport.close()
"""

    assert run(program) == ["before b'keys'", "child b'keys'", "parent b'keys'"]


def test_a_child_can_close_what_the_parent_uses():
    program = """
with Loopback(lambda connection: connection.answer(b"keys")) as server:
    transport = Transport()
    ask = lambda: transport.fetch("GET", server.url).result(60).body
    ask()
    forked(transport.close)
    print("parent", ask())
    transport.close()
"""

    assert run(program) == ["child None", "parent b'keys'"]


def test_a_child_does_not_wait_for_the_parents_fetch():
    """The fetch under way at the fork has no thread in the child: it would never end there."""
    program = """
import json
from authz import Verifier
from authz.demo.issuer.signing import SigningKey
from tests.doubles import jwks

key = SigningKey.generate("ec-1", "ES256")
answers = iter([Connection.say_nothing, lambda connection: connection.answer(json.dumps(jwks(key)).encode())])
with Loopback(lambda connection: next(answers)(connection)) as server:
    source = {"jwks_url": server.url, "transport": Transport()}
    verifier = Verifier(issuer="https://acme.authkit.app", audience="a", algorithms=["ES256"], **source)
    next(verifier._keys.load())
    server.asked.wait(120)
    forked(verifier.warm_up)
    verifier.close()
"""

    assert run(program) == ["child None"]


def test_locks_held_at_the_fork_are_free_in_the_child():
    program = """
from authz import ClientCredentials, Verifier

verifier = Verifier(issuer="https://acme.authkit.app", audience="a")
source = ClientCredentials("https://acme.authkit.app", client_id="c", client_secret="s")
owners = [verifier._memory, verifier._keys._endpoint._transport, source._endpoint._transport]
locks = lambda: [*(owner._lock for owner in owners), verifier._keys._asking.lock, source._asking.lock]
for lock in locks():
    lock.acquire()
forked(lambda: [lock.locked() for lock in locks()])
"""

    assert run(program) == ["child [False, False, False, False, False]"]


def test_a_lock_is_free_in_a_child_that_is_forked_inside_its_block_and_the_child_can_leave_that():
    program = """
lock = fork.Lock()
with lock:
    child = os.fork()
if child == 0:
    with lock:
        print("child", flush=True)
    os._exit(0)
os.waitpid(child, 0)
with lock:
    print("parent")
"""

    assert run(program) == ["child", "parent"]


def test_a_child_watches_the_policy_for_itself(tmp_path):
    program = f"""
import logging, pathlib, time
from authz import Authorizer, PolicyReloader, Verifier

path = pathlib.Path({str(tmp_path / "policy.json")!r})

def write(name):
    path.write_text('{{"name": "' + name + '", "allow_rules": [{{"name": "all"}}]}}')

def follows(name):
    write(name)
    deadline = time.monotonic() + {PATIENCE / 3}
    while authorizer.policy.name != name and time.monotonic() < deadline:
        time.sleep(0.01)
    return authorizer.policy.name

write("first")
authorizer = Authorizer(Verifier(issuer="https://a.example", audience="a"))
with PolicyReloader(authorizer, path):
    forked(lambda: follows("second"))
    print("parent", follows("third"))
"""

    assert run(program) == ["child second", "parent third"]


def test_a_child_of_work_in_the_background_takes_turns_as_before():
    program = """
import gc
from authz.runtime.background import allow_background, background

allow_background()
state = lambda: (sys.getswitchinterval(), gc.isenabled())
before = state()
with background():
    forked(lambda: state() == before)
    print("parent", state() == before)

def again():
    with background():
        return state() == before

forked(again)
"""

    assert run(program) == ["child True", "parent False", "child False"]


def test_a_child_counts_calls_and_streams_for_itself():
    program = """
from authz.call.principal import Principal
from authz.errors import ResourceExhaustedError
from authz.organizations.quota import Quota, Quotas
from authz.judge.streams import OpenStreams

quotas, streams = Quotas(), OpenStreams()
acme = Principal(org_id="org_acme", client_id="c", subject="c")

def used_up():
    try:
        streams.open(object(), acme, float("inf"), at_most=1)
        quotas.take("org_acme", Quota("rare", 0.001, 1))
    except ResourceExhaustedError:
        return True
    return False

print("before", used_up(), used_up())
quotas._lock.acquire(), streams._lock.acquire()
forked(used_up)
"""

    assert run(program) == ["before False True", "child False"]


def test_a_child_writes_its_own_decisions_and_none_of_its_parents(tmp_path):
    pipe, path = tmp_path / "pipe", tmp_path / "decisions.jsonl"
    program = f"""
from authz.decisions.log import DecisionLog
from tests.decisions.samples import decision

os.mkfifo({str(pipe)!r})
reader = os.open({str(pipe)!r}, os.O_RDONLY | os.O_NONBLOCK)
stalled, log = DecisionLog("all", {str(pipe)!r}), DecisionLog("all", {str(path)!r})
log(decision(method="/parent"))
for _ in range(1000):
    # More than a pipe holds.
    stalled(decision())

def write():
    log(decision(method="/child"))
    log.close()
    return stalled.waiting_bytes, stalled.dropped

forked(write)
print("parent", stalled.waiting_bytes > 0)
log(decision(method="/parent"))
log.close()
os.close(reader)
stalled.close()
"""

    assert run(program) == ["child (0, 0)", "parent True"]
    methods = [json.loads(line)["method"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert sorted(methods) == ["/child", "/parent", "/parent"]


# ---- Every class that owns what a child does not have ----

# Threads, what they hold or wait for, and what the kernel shares between parent and child.
OWNED = {
    *("Lock", "RLock", "Condition", "Event", "Semaphore", "BoundedSemaphore", "Barrier", "Thread", "Timer"),
    *("ThreadPoolExecutor", "ProcessPoolExecutor", "Future", "Queue", "SimpleQueue", "new_event_loop"),
    *("os.open", "os.fdopen", "open", "socket", "socketpair", "Popen", "TemporaryDirectory"),
}
REGISTERING = ({"fork.register"}, {"register"})
# Classes of others that own the like.
OWNING = {"Handler", "QueueHandler", "QueueListener", "StreamHandler", "Server", "Thread"}

COMMAND = "a command's own: it starts other programs, and is never forked itself"
RPC = "of one RPC, which goes on in the parent only"
SERVER = "of a server, which goes on in the parent only"
DEMO = "of the demonstration and the development issuer"
PART = "forgotten together with its owner, which is registered"

NEVER_SHARED = {
    "authz.server.admin.activity.Activity": SERVER,
    "authz.server.admin.app._Admin": SERVER,
    "authz.server.workers.link.WorkerLink": COMMAND,
    "authz.server.workers.links.Links": COMMAND,
    "authz.decisions.audit._Watcher": RPC,
    "authz.demo.backend": DEMO,
    "authz.demo.issuer.environment.Environment": DEMO,
    "authz.demo.issuer.events.Events": DEMO,
    "authz.demo.issuer.server.IssuerServer": DEMO,
    "authz.demo.issuer.server._Server": DEMO,
    "authz.demo.issuer.tokens.Issuer": DEMO,
    "authz.demo.issuer.webhooks.Webhooks": DEMO,
    "authz.demo.partner.Stream": DEMO,
    "authz.demo.scenes.Scenes": DEMO,
    "authz.demo.processes.Process": DEMO,
    "authz.demo.stack.Stack": DEMO,
    "authz.server.forward_auth.listener.HttpListener": SERVER,
    "authz.server.memo.discovery.Discovery": SERVER,
    "authz.server.memo.file.ScriptFile": SERVER,
    "authz.server.memo.flushing.Flushing": SERVER,
    "authz.server.serving.certificates.Certificates": SERVER,
    "authz.server.operations.metrics.Metrics": SERVER,
    "authz.server.operations.metrics.SharedMetrics": COMMAND,
    "authz.server.operations.usage_figures.UsageFigures": SERVER,
    "authz.server.operations.web._Server": SERVER,
    "authz.server.serving.grpcio_engine._Health": SERVER,
    "authz.server.serving.native_engine.NativeEngine": SERVER,
    "authz.server.serving.server._Stop": SERVER,
    "authz.server.workers.child.Child": COMMAND,
    "authz.server.workers.slot.Slot": COMMAND,
    "authz.server.workers.supervisor.Supervisor": COMMAND,
    "authz.server.workers.worker.Worker": COMMAND,
    "authz.cli.logs._Handler": COMMAND,
    "authz.organizations.look_ups._Tasks": PART,
    "authz.organizations.look_ups._Threads": PART,
    "authz.runtime.text.lines.Lines": PART,
    "authz.cli.logs._Writer": COMMAND,
    "authz.server.coalescing.Coalesced": SERVER,
    "authz.server.coalescing.Paced": SERVER,
    "authz.runtime.network.transport._Worker": PART,
    "interceptors.aio.streams.AioStream": RPC,
    "interceptors.aio.threads.SyncStreamOnAio": RPC,
    "interceptors.relay.Relay": RPC,
    "interceptors.streams.SyncStream": RPC,
}


def called(*nodes):
    """Return what is called: ``Lock`` and ``threading.Lock`` for ``threading.Lock()``."""
    calls = (node for outer in nodes for node in ast.walk(outer) if isinstance(node, ast.Call))
    # A lock of ours starts afresh by itself.
    written = [name for name in (ast.unparse(call.func) for call in calls) if name != "fork.Lock"]
    return {*written, *(name.rpartition(".")[2] for name in written if name.rpartition(".")[2] != "open")}


def owners():
    """Yield each class, and each module, that owns something of the kind; and whether it is registered."""
    for path in sorted([*ROOT.glob("authz/**/*.py"), *ROOT.glob("interceptors/**/*.py")]):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        body = ast.parse(path.read_text(encoding="utf-8")).body
        functions = [node for node in body if isinstance(node, ast.FunctionDef)]
        # A class may leave it to a function beside it.
        making = OWNED | {function.name for function in functions if called(function) & OWNED}
        classes = [node for node in body if isinstance(node, ast.ClassDef)]
        for node in classes:
            bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            if called(node) & making or bases & OWNING:
                yield f"{module}.{node.name}", bool(called(node) & REGISTERING[module == "authz.runtime.fork"])
        if called(*(node for node in body if node not in functions and node not in classes)) & OWNED:
            yield module, False


def test_every_owner_is_registered_or_never_shared_with_a_child():
    found = dict(owners())

    assert {name for name, is_registered in found.items() if not is_registered} == set(NEVER_SHARED)
    assert {name for name, is_registered in found.items() if is_registered} == set(BUILT)


def test_every_owner_starts_afresh_in_a_child():
    program = """
from tests.forks import BUILT, left_over, occupy

owners = {name: occupy(build()) for name, build in BUILT.items()}
forked(lambda: {name: left_over(owner) for name, owner in owners.items() if left_over(owner)})
print("parent", sum(bool(left_over(owner)) for owner in owners.values()) > 10)
"""

    assert run(program) == ["child {}", "parent True"]
