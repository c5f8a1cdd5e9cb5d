"""The mistakes, each with the tests that must notice it."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

_SERVER, _AIO = "interceptors/server.py", "interceptors/aio/server.py"
_DOORS = "tests/interceptors/"


@dataclass(frozen=True, slots=True)
class Mistake:
    """One wrong change.

    Args:
        name: what it breaks.
        file: where.
        old: the right text, which stands there once.
        new: what replaces it.
        tests: what must fail, as arguments of pytest.

    """

    name: str
    file: str
    old: str
    new: str
    tests: str

    def made_in(self, text: str) -> str:
        """Return ``text`` with the mistake.

        Raises:
            ValueError: the right text does not stand there exactly once.

        """
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.file} has changed")
        return text.replace(self.old, self.new)


MISTAKES = (
    # ---- What the caller may not say ----
    Mistake(
        "forged metadata is not stripped",
        "authz/metadata.py",
        "[entry for entry in metadata if entry[0].lower() not in reserved]",
        "metadata",
        f"{_DOORS}test_server.py -k forged",
    ),
    Mistake(
        "-bin twins and underscores are not stripped",
        "authz/metadata.py",
        "frozenset(itertools.chain.from_iterable(map(_spellings, self.removed)))",
        "frozenset(self.names)",
        f"{_DOORS}test_server.py -k forged",
    ),
    Mistake(
        "one of two tokens is taken",
        "authz/authorizer.py",
        "len(entries) > 1 or ",
        "",
        f"{_DOORS}test_server.py -k told_at_once",
    ),
    Mistake(
        "methods that begin like a public one are public",
        "authz/authorizer.py",
        "if call.method in self._public:",
        "if call.method.startswith(tuple(self._public)):",
        f"{_DOORS}test_server.py -k resembles",
    ),
    # ---- Refusals ----
    Mistake(
        "sync: refusals read the request first",
        _SERVER,
        "        # Serves all four kinds, and answers before the client has sent anything.\n"
        "        return grpc.stream_unary_rpc_method_handler(refuse)",
        "        return grpc.unary_unary_rpc_method_handler(refuse)",
        f"{_DOORS}test_server.py -k told_at_once",
    ),
    Mistake(
        "aio: refusals read the request first",
        _AIO,
        "    # Serves all four kinds, and answers before the client has sent anything.\n"
        "    return grpc.stream_unary_rpc_method_handler(refuse)",
        "    return grpc.unary_unary_rpc_method_handler(refuse)",
        f"{_DOORS}test_server.py -k told_at_once",
    ),
    Mistake(
        "sync: refusals queue behind slow handlers",
        _SERVER,
        "        refuse.experimental_thread_pool = self._refusals  # type: ignore[attr-defined]\n",
        "",
        f"{_DOORS}test_threads.py -k queue",
    ),
    Mistake(
        "sync: the polling thread waits for keys",
        _SERVER,
        "begun = flow, next(flow)",
        "return self._admitted(continuation(handler_call_details), call, run(flow))",
        f"{_DOORS}test_key_fetch.py -k nobody_else_waits",
    ),
    Mistake(
        "sync: SystemExit in a rule ends the server",
        _SERVER,
        "        except BaseException as error:  # noqa: BLE001 - see above",
        "        except Exception as error:  # noqa: BLE001 - see above",
        f"{_DOORS}test_unforeseen.py",
    ),
    Mistake(
        "aio: an exception reaches the client",
        _AIO,
        "            # Whatever else escaped would leave the client without any status, or tell it the exception's text.\n"
        "            return _refused",
        "            if not isinstance(error, AuthzError):\n                raise\n            return _refused",
        f"{_DOORS}test_unforeseen.py",
    ),
    Mistake(
        "aio: a fetch that is cancelled leaves the client without a status",
        "authz/flow.py",
        "    return task is not None and task.cancelling() > 0",
        "    return task is not None",
        f"{_DOORS}test_unforeseen.py",
    ),
    Mistake(
        "the request is read before the keys are there",
        _SERVER,
        "return with_behaviour(handler, decided, request_streaming=True)",
        "return with_behaviour(handler, decided)",
        f"{_DOORS}test_key_fetch.py",
    ),
    # ---- Handlers ----
    Mistake(
        "the caller is not reset on public methods",
        _SERVER,
        "            set_current_principal(principal)\n            return behaviour",
        "            if principal is not ANONYMOUS:\n"
        "                set_current_principal(principal)\n            return behaviour",
        f"{_DOORS}test_server.py -k public",
    ),
    Mistake(
        "aio: synchronous handlers do not know their caller",
        "interceptors/aio/behaviours.py",
        "    return variables.run",
        "    return lambda function, *arguments: function(*arguments)",
        f"{_DOORS}test_server.py -k current_principal",
    ),
    Mistake(
        "the context forgets names",
        "interceptors/context.py",
        '"set_details", "set_trailing_metadata", "time_remaining", "trailing_metadata"',
        '"set_details", "set_trailing_metadata"',
        f"{_DOORS}test_context.py",
    ),
    Mistake(
        "metadata entries are plain tuples",
        "authz/metadata.py",
        "(*[entry for entry in metadata if entry[0].lower() not in reserved], *self.entries(principal))",
        "(*[tuple(entry) for entry in metadata if entry[0].lower() not in reserved], *map(tuple, self.entries(principal)))",
        f"{_DOORS}test_server.py -k shape",
    ),
    Mistake(
        "attributes of a non-blocking handler are lost",
        _SERVER,
        "functools.update_wrapper(\n            serve_stream if is_stream and principal is not ANONYMOUS else serve, behaviour\n        )",
        "(serve_stream if is_stream and principal is not ANONYMOUS else serve)",
        f"{_DOORS}test_neighbours.py",
    ),
)
