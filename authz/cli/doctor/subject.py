"""What is examined: the settings, what else was given, and what checks have found so far for those after them."""

import json
from collections.abc import Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators
from pydantic import SecretStr

from authz.cli.doctor.findings import Finding, fault, skipped
from authz.errors import ConfigError
from authz.runtime.network.transport import Form, HttpResponse, Transport, TransportError
from authz.settings.environment import EnvironmentSettings, masked
from authz.settings.issuer import IntrospectionSettings
from authz.settings.settings import Settings
from authz.settings.variables import AuthMethod

# To replace a shorter one would make other words unreadable.
_LEAST_HIDDEN = 8

GENERAL = "settings-invalid"
"""The code of what is wrong with settings where no other code says it better."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What to look at besides the settings."""

    token_file: str | None = None
    """A file that holds a token of a caller, to verify; - is standard input."""
    client_id: str | None = None
    """An M2M application, to get a token for; or AUTHZ_CLIENT_ID. Its secret is read from AUTHZ_CLIENT_SECRET."""
    client_secret_file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None
    """A file that holds the secret instead, or AUTHZ_CLIENT_SECRET_FILE; - is standard input."""
    client_auth_method: AuthMethod = "client_secret_post"
    """How that secret is shown: client_secret_post or client_secret_basic."""
    envoy_config: Path | None = None
    """Envoy's configuration, in YAML or JSON, to see whether it asks this server, and rightly."""
    envoy_admin: str | None = None
    """HOST:PORT of a running Envoy's administration interface, to see the same of what is in force there."""
    timeout: Annotated[float, Parameter(validator=validators.Number(gt=0, lte=60))] = 5.0
    """Seconds that each question to another server may take."""


@dataclass(kw_only=True)
class Issuer:
    """One issuer of the settings, and what is known of it.

    Args:
        settings: what is set of it.

    Attributes:
        answers: what it answered where its metadata may be; a word for each request that no answer came to.
        failure: why there was no connection to it, if there was none.
        metadata: the document that names it.
        has_keys: whether there is a key to verify tokens with.

    """

    settings: IntrospectionSettings
    answers: list["Answer | str"] = field(default_factory=list)
    failure: bool = False
    metadata: Mapping[str, Any] | None = None
    has_keys: bool = False

    @property
    def name(self) -> str:
        """The issuer."""
        return str(self.settings.issuer)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer of an issuer, and the seconds that it took."""

    response: HttpResponse
    took: float


@dataclass(kw_only=True)
class Subject:
    """What is examined.

    Args:
        settings: those in force.
        evidence: what else was given.

    Attributes:
        issuers: those of the settings.
        told: errors in the settings that have been told.
        hidden: what no finding may show, and what stands for it instead.
        token: one to verify, or one that was got.
        serving: what servers of ours say of themselves, by the address where they listen.

    """

    settings: Settings
    evidence: Evidence
    issuers: list[Issuer] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    hidden: dict[str, str] = field(default_factory=dict)
    token: str = ""
    serving: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find the issuers, and what may be secret; a file of issuers that is wrong is told by the first check."""
        self._hide_all(self.settings)
        try:
            listed = self.settings.listed()
        except ConfigError:
            return
        each = listed.listed if listed is not None else [self.settings] if self.settings.issuer else []
        self.issuers = [Issuer(settings=settings) for settings in each]
        for settings in each:
            self._hide_all(settings)

    def hide(self, value: str) -> None:
        """Have no finding show a secret."""
        if len(value) >= _LEAST_HIDDEN:
            self.hidden[value] = "…"

    def hide_parts(self, value: str) -> None:
        """Have no finding show what may be secret in a setting: of a URL, all but address and path."""
        shown = str(masked(value))
        if shown != value:
            self.hidden[value] = shown

    def without_secrets(self, text: str) -> str:
        """Return ``text`` without anything that is hidden."""
        for value, shown in self.hidden.items():
            text = text.replace(value, shown)
        return text

    def _hide_all(self, settings: EnvironmentSettings) -> None:
        for name in type(settings).model_fields:
            value = getattr(settings, name)
            if isinstance(value, SecretStr):
                self.hide(value.get_secret_value())
            elif isinstance(value, str):
                self.hide_parts(value)

    @cached_property
    def transport(self) -> Transport:
        """What asks the issuers, as the settings say.

        Raises:
            ConfigError: ``ca_file`` cannot be read.

        """
        settings = self.settings
        return Transport(timeout=self.evidence.timeout, ca_file=settings.ca_file, trust_env=settings.proxy_from_env)

    def ask(
        self, method: str, url: str, *, form: Form | None = None, headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        """Return the answer to one request.

        Raises:
            TransportError: there is none.
            ConfigError: ``ca_file`` cannot be read.

        """
        try:
            # The transport keeps the time; twice as long is for a thread that does not come to its turn.
            return self.transport.fetch(method, url, form=form, headers=headers).result(2 * self.evidence.timeout)
        except FutureTimeoutError:
            raise TransportError("timeout") from None

    def wrong(self, code: str, error: ConfigError) -> Finding:
        """Return an error in the settings as a fault of that code; one that says no more than was told is skipped."""
        text = self._in_full(error)
        is_known = text in self.told
        self.told.add(text)
        return skipped("of what is said of the settings above") if is_known and code == GENERAL else fault(code, text)

    def _in_full(self, error: ConfigError) -> str:
        """Return the text of an error, with the file of settings where the value is from."""
        try:
            with self.settings.naming_origins():
                raise error
        except ConfigError as named:
            return str(named)

    def close(self) -> None:
        """End what was begun."""
        if "transport" in vars(self):
            self.transport.close()


def quoted(value: object) -> str:
    """Return what another server has said as JSON, so that its end can be seen."""
    return json.dumps(value, ensure_ascii=False, default=str)
