"""The store: where it is, how it is reached, and the word for each way in which it can fail.

Calls are never repeated in silence, and each ends in time: what is to be done about a failure, its caller knows best.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from authz.errors import ConfigError
from authz.runtime import fork
from authz.runtime.configuration import extra, read_secret
from authz.runtime.network.connecting import cause_of
from authz.runtime.network.urls import is_loopback
from authz.store.address import place_of, tls_of

if TYPE_CHECKING:
    import redis

    from authz.settings.store import StoreSettings

Reason = Literal[
    "unreachable",
    "timeout",
    "denied",
    "readonly",
    "full",
    "loading",
    "version",
    "eviction",
    "format",
    "protocol",
]
REASONS: tuple[Reason, ...] = get_args(Reason)

FORMAT = b"authz-1 "
"""What the epoch begins with: a store of another format is left alone."""

_OLDEST = (7, 0)

_MEANINGS: Mapping[Reason, tuple[str, str]] = {
    "unreachable": ("cannot be reached", "check the address, the network, and whether the server runs"),
    "timeout": ("does not answer in time", "check how busy the server is, and whether a firewall drops packets"),
    "denied": (
        "refuses the user, the password or a command",
        "check store_username, store_password_file, and what the server's ACL allows that user",
    ),
    "readonly": ("takes no writes", "name the primary, or have Sentinel find it; a primary may lack its replicas"),
    "full": ("has no room left, in memory or on its disk", "raise maxmemory, or free disk space"),
    "loading": ("is still loading its data", "wait until it has"),
    "version": ("is older than 7.0", "run Valkey, or Redis 7.0 or newer"),
    "eviction": ("may throw away any key when it is full, and so lift orders", "set maxmemory-policy noeviction"),
    "format": ("has something else under these names", "name another store, or another store_namespace"),
    "protocol": ("does not answer as Valkey and Redis do", "check the address, and whether it needs rediss://"),
}
_AWAY = frozenset({"unreachable", "timeout", "loading"})
# By the word that the server's error begins with. Others have classes of their own.
_WORDS: Mapping[str, Reason] = {
    **dict.fromkeys(("NOAUTH", "WRONGPASS", "NOPERM"), "denied"),
    **dict.fromkeys(("READONLY", "NOREPLICAS"), "readonly"),
    **dict.fromkeys(("OOM", "MISCONF"), "full"),
    **dict.fromkeys(("LOADING", "MASTERDOWN", "BUSY", "TRYAGAIN"), "loading"),
    **dict.fromkeys(("WRONGTYPE", "FORMAT"), "format"),
}


_DENIED_IN_SCRIPT = ("The user executing the script can't", "ACL failure in script")


class StoreError(Exception):
    """The store did not do what was asked.

    Args:
        reason: one word, see :data:`REASONS`.
        address: of the store.
        cause: why a connection failed, see :func:`authz.runtime.network.connecting.cause_of`; empty if it did not.

    Attributes:
        reason: that of the argument.
        remedy: what an operator can do about it.
        is_away: whether it may do so later, without an operator.

    """

    def __init__(self, reason: Reason, address: str, cause: str = "") -> None:
        what, self.remedy = _MEANINGS[reason]
        self.reason, self.is_away = reason, reason in _AWAY
        super().__init__(f"store: {address} {what}{f' ({cause})' if cause else ''}; {self.remedy}")


class Script:
    """A program that the store runs in one step.

    Args:
        text: in Lua.

    Attributes:
        text: that of the argument.
        sha: how the store names it.

    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


# Kept for good, because a client that is freed closes its connections.
_of_parents: "list[redis.Redis | None]" = []


class OwnClient:
    """A client of this process alone: a forked child must neither use nor free its copy of the parent's.

    Both take a lock of redis-py, which waits for ever if a thread of the parent held it at that moment.

    Attributes:
        client: the client, if there is one.

    """

    def __init__(self) -> None:
        self.client: redis.Redis | None = None
        fork.register(self)

    def after_fork(self) -> None:
        """Set the parent's aside."""
        client, self.client = self.client, None
        _of_parents.append(client)

    def close(self) -> None:
        """Close its connections, if there is one."""
        client, self.client = self.client, None
        if client is not None:
            client.close()


class Store:
    """A Valkey or Redis, and how to reach it; connects when it is first asked.

    Args:
        url: ``redis://HOST:PORT``, ``rediss://HOST:PORT`` for TLS, either with ``/DATABASE``; ``unix:PATH``;
            ``redis+sentinel://HOST:PORT,HOST:PORT/NAME`` for the primary that Sentinel knows by that name, or
            ``rediss+sentinel://``.
        namespace: what all our keys begin with.
        username: of the server's ACL; by default its ``default`` user.
        password: that user's, if it has one. Sentinels are asked without.
        ca_file: PEM file of the authorities to trust for TLS, instead of the system's.
        cert_file: PEM file of our own certificate, if the server asks for one.
        key_file: PEM file of its private key.
        timeout: seconds for connecting, and for an answer.
        allow_plaintext: whether orders and the password may go to other machines without TLS.

    Attributes:
        address: for people, without secrets.
        namespace: that of the argument.

    Raises:
        ConfigError: an argument that cannot work, or the extra ``store`` is not installed.

    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "authz",
        username: str = "",
        password: str | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        timeout: float = 1.5,
        allow_plaintext: bool = False,
    ) -> None:
        with extra("store", "store: it needs the extra 'store'", package="redis"):
            import redis  # noqa: F401, PLC0415 - the extra's, if it is there
        self._place = place_of(url)
        if not namespace or any(char <= " " or char > "~" or char in "*?[]{}\\" for char in namespace):
            raise ConfigError("store_namespace: must be of printable ASCII, without blanks, braces and wildcards")
        if not self._place.has_tls and (ca_file or cert_file or key_file):
            raise ConfigError("store_ca_file, store_cert_file: certificates are of use with rediss:// only")
        self.address, self.namespace = url, namespace
        self._allows_plaintext = allow_plaintext or self._place.has_tls
        for host, _ in self._place.hosts:
            self._check_privacy(host)
        self._timeout = timeout
        self._login: dict[str, Any] = {"username": username or None, "password": password or None}
        self._tls = tls_of(ca_file, cert_file, key_file) if self._place.has_tls else {}
        self._own = OwnClient()
        self._lock = fork.Lock()

    @classmethod
    def of(cls, settings: "StoreSettings") -> "Store | None":
        """Build the store of the settings, if they name one.

        Raises:
            ConfigError: a setting cannot work, or the file of the password cannot be read.

        """
        if settings.store is None:
            return None
        file = settings.store_password_file
        return cls(
            settings.store,
            namespace=settings.store_namespace,
            username=settings.store_username or "",
            password=None if file is None else read_secret(file, "store_password_file"),
            ca_file=settings.store_ca_file,
            cert_file=settings.store_cert_file,
            key_file=settings.store_key_file,
            allow_plaintext=settings.store_plaintext,
        )

    def __repr__(self) -> str:
        """Name the address and nothing else."""
        return f"{type(self).__name__}({self.address!r})"

    def key(self, name: str) -> str:
        """Return the whole name of a key."""
        return f"{self.namespace}:{name}"

    def client(self, *, block: float = 0.0, returns_text: bool = False) -> "redis.Redis":
        """Return a client with connections of its own, which are made when they are needed; the caller closes it.

        It takes bytes, speaks RESP2, and tries nothing twice.

        Args:
            block: for how many seconds it may wait in one call that blocks, on top of the time for an answer.
            returns_text: whether it returns texts, whatever the bytes are, and not bytes.

        """
        import redis  # noqa: PLC0415 - the extra's

        place, options = self._place, self._options(block)
        if returns_text:
            options |= {"decode_responses": True, "encoding_errors": "replace"}
        if place.name:
            asking = self._options()
            sentinels = _sentinels(self._check_privacy, list(place.hosts), sentinel_kwargs=asking)
            found: redis.Redis = sentinels.master_for(place.name, **options, **self._login)
            return found
        if place.path:
            return redis.Redis(unix_socket_path=place.path, db=place.database, **options, **self._login)
        [(host, port)] = place.hosts
        return redis.Redis(host=host, port=port, db=place.database, **options, **self._login)

    def call(
        self, script: Script, keys: Sequence[str], args: Sequence[Any], client: "redis.Redis | None" = None
    ) -> Any:
        """Run a script in the store, and return what it returns.

        Args:
            script: the script.
            keys: the whole names of all keys that it uses.
            args: its other arguments.
            client: who asks; by default one that all callers share.

        Raises:
            StoreError: it did not run to its end, as far as is known.

        """
        from redis.exceptions import NoScriptError  # noqa: PLC0415 - the extra's

        with self.asking(client) as asked:
            try:
                return asked.evalsha(script.sha, len(keys), *keys, *args)
            except NoScriptError:
                # Servers forget scripts when they start.
                return asked.eval(script.text, len(keys), *keys, *args)

    @contextlib.contextmanager
    def asking(self, client: "redis.Redis | None" = None) -> Iterator[Any]:
        """Ask the store in the block, by ``client`` or the one that all callers share.

        Its type is left open: that of redis-py names for each answer those of all protocols, and of clients for tasks.

        Raises:
            StoreError: the store did not do what was asked.

        """
        from redis.exceptions import RedisError  # noqa: PLC0415 - the extra's

        asked = client or self._shared()
        try:
            yield asked
        except (RedisError, OSError) as error:
            reason = reason_of(error)
            if reason == "readonly":
                # It was the primary once, and would say no for ever on this connection.
                asked.connection_pool.disconnect(inuse_connections=False)
            cause = cause_of(error) if reason == "unreachable" else ""
            raise StoreError(reason, self.address, "" if cause == "connect" else cause) from None

    def check(self) -> None:
        """Check that the store can be used.

        Raises:
            StoreError: it cannot; the text says why, and what to do.

        """
        with self.asking() as client:
            info: Any = client.info()
            try:
                reason = _unfit(info)
            except (AttributeError, KeyError, TypeError, ValueError):
                reason = "protocol"
            epoch = None if reason else client.get(self.key("{orders}:epoch"))
        if reason is None and isinstance(epoch, bytes) and not epoch.startswith(FORMAT):
            reason = "format"
        if reason is not None:
            raise StoreError(reason, self.address)

    def close(self) -> None:
        """Close the connections that all callers share, until one asks again."""
        with self._lock:
            self._own.close()

    def _shared(self) -> "redis.Redis":
        client = self._own.client
        if client is not None:
            return client
        with self._lock:
            self._own.client = self._own.client or self.client()
            return self._own.client

    def _options(self, block: float = 0.0) -> dict[str, Any]:
        from redis.backoff import NoBackoff  # noqa: PLC0415 - the extra's
        from redis.retry import Retry  # noqa: PLC0415 - as above

        return {
            "socket_connect_timeout": self._timeout,
            "socket_timeout": self._timeout + block,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            # It would tell the server which library asks: two more commands for each connection.
            "driver_info": None,
            **self._tls,
        }

    def _check_privacy(self, host: str) -> None:
        if not self._allows_plaintext and not is_loopback(host):
            raise ConfigError(
                f"store: {host} would get orders and the password without TLS; use rediss://, or set store_plaintext"
            )


def reason_of(error: BaseException) -> Reason:
    """Return in one word why the store did not do what was asked."""
    from redis import exceptions  # noqa: PLC0415 - the extra's

    words = str(error).split(maxsplit=1)
    if isinstance(error, exceptions.ResponseError | exceptions.ConnectionError) and words and words[0] in _WORDS:
        return _WORDS[words[0]]
    if any(words in str(error) for words in _DENIED_IN_SCRIPT):
        return "denied"
    classes: tuple[tuple[type[Exception] | tuple[type[Exception], ...], Reason], ...] = (
        ((exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError), "denied"),
        (exceptions.ReadOnlyError, "readonly"),
        (exceptions.OutOfMemoryError, "full"),
        ((exceptions.BusyLoadingError, exceptions.MasterDownError, exceptions.TryAgainError), "loading"),
        ((exceptions.TimeoutError, TimeoutError), "timeout"),
        (exceptions.InvalidResponse, "protocol"),
        ((exceptions.ConnectionError, OSError), "unreachable"),
    )
    return next((reason for kinds, reason in classes if isinstance(error, kinds)), "protocol")


def _unfit(info: Any) -> Reason | None:
    """Return why a store that says this about itself cannot be used."""
    version = str(info["redis_version"]).split(".")
    if tuple(map(int, version[:2])) < _OLDEST:
        return "version"
    if info.get("loading"):
        return "loading"
    if info.get("role") == "slave":
        return "readonly"
    policy, most = str(info.get("maxmemory_policy", "")), int(info.get("maxmemory", 0))
    if policy.startswith("allkeys-"):
        return "eviction"
    return "full" if policy == "noeviction" and 0 < most <= int(info["used_memory"]) else None


def _sentinels(check_privacy: Callable[[str], None], *arguments: Any, **options: Any) -> Any:
    from redis.sentinel import Sentinel  # noqa: PLC0415 - the extra's

    class Sentinels(Sentinel):
        """Those of a store, whose primary may be on another machine than they are."""

        def discover_master(self, name: str) -> Any:
            try:
                found = super().discover_master(name)  # type: ignore[no-untyped-call]
            finally:
                # Asked again only where the primary is lost.
                for each in self.sentinels:
                    each.close()
            check_privacy(str(found[0]))
            return found

    return Sentinels(*arguments, **options)  # type: ignore[no-untyped-call]
