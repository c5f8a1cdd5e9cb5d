"""Real servers for applications, on loopback, and what is sent to them byte by byte."""

import contextlib
import functools
import logging
import os
import socket
import socketserver
import threading
import wsgiref.simple_server
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gunicorn.config
import gunicorn.glogging
import uvicorn
import waitress
import werkzeug.serving

from tests.doubles import PATIENCE, eventually


@contextlib.contextmanager
def served(app: Any, **options: Any) -> Iterator[int]:
    """Serve an ASGI application by uvicorn until the end of the block; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    # Byte by byte what was sent, where a test does not ask for another parser.
    options.setdefault("http", "h11")
    config = uvicorn.Config(app, log_config=None, log_level="critical", timeout_graceful_shutdown=1, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        assert eventually(lambda: server.started or not thread.is_alive())
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


WSGI_SERVERS = ("gunicorn", "gunicorn-threads", "waitress", "werkzeug", "wsgiref")


@contextlib.contextmanager
def served_wsgi(app: Any, server: str = "waitress", **options: Any) -> Iterator[int]:
    """Serve a WSGI application by one of ``WSGI_SERVERS`` until the end of the block; yield the port.

    Args:
        app: the application.
        server: which server.
        options: its settings.

    """
    with _BY_NAME[server](app, **options) as port:
        yield port


@contextlib.contextmanager
def _running(run: Callable[[], object], stop: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join(PATIENCE)


@contextlib.contextmanager
def _gunicorn(app: Any, **options: Any) -> Iterator[int]:
    """Run a worker of gunicorn, with all but its process and its signals."""
    config = gunicorn.config.Config()
    for name, value in {"loglevel": "critical", "graceful_timeout": 1, **options}.items():
        config.set(name, value)

    class Worker(config.worker_class):  # type: ignore[misc, name-defined]
        def init_signals(self) -> None:
            """Leave those of the tests."""

        def load_wsgi(self) -> None:
            self.wsgi = app

    with socket.create_server(("127.0.0.1", 0)) as listener:
        worker = Worker(0, os.getppid(), [listener], None, PATIENCE, config, gunicorn.glogging.Logger(config))

        def stop() -> None:
            worker.handle_exit(None, None)
            os.write(worker.PIPE[1], b".")

        with contextlib.closing(worker.tmp), _running(worker.init_process, stop):
            yield listener.getsockname()[1]
    for pipe in worker.PIPE:
        os.close(pipe)


@contextlib.contextmanager
def _waitress(app: Any, **options: Any) -> Iterator[int]:
    connections: dict[int, Any] = {}
    server = waitress.create_server(app, map=connections, listen="127.0.0.1:0", **options)

    def stop() -> None:
        server.task_dispatcher.shutdown()
        server.trigger.pull_trigger(lambda: waitress.wasyncore.close_all(connections))

    with _running(server.run, stop):
        yield server.effective_port


def _werkzeug(app: Any, **options: Any) -> contextlib.AbstractContextManager[int]:
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    return _looping(werkzeug.serving.make_server("127.0.0.1", 0, app, threaded=True, **options))


class _Threads(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Write nothing."""


def _wsgiref(app: Any) -> contextlib.AbstractContextManager[int]:
    return _looping(wsgiref.simple_server.make_server("127.0.0.1", 0, app, _Threads, _Quiet))


@contextlib.contextmanager
def _looping(server: socketserver.BaseServer) -> Iterator[int]:
    with server, _running(lambda: server.serve_forever(0.01), server.shutdown):
        yield server.server_address[1]


_BY_NAME: Mapping[str, Callable[..., contextlib.AbstractContextManager[int]]] = {
    "gunicorn": _gunicorn,
    "gunicorn-threads": functools.partial(_gunicorn, threads=8),
    "waitress": _waitress,
    "werkzeug": _werkzeug,
    "wsgiref": _wsgiref,
}
