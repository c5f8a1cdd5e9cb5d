"""What is set of the store that replicas share."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from authz.settings.environment import EnvironmentSettings


class StoreSettings(EnvironmentSettings):
    """Where the store is, and how it is reached."""

    store: str | None = Field(
        None,
        description="The Valkey or Redis (7.0 or newer) by which replicas share orders: redis://HOST:PORT, rediss:// "
        "for TLS, unix:PATH, or redis+sentinel://HOST:PORT,HOST:PORT/NAME. By default each process is on its own.",
    )
    store_namespace: str = Field("authz", description="What the names of all keys in the store begin with.")
    store_username: str | None = Field(None, description="The user of the store, if not its default one.")
    store_password_file: str | None = Field(None, description="A file that holds the password of that user.")
    store_ca_file: str | None = Field(
        None, description="PEM file of the authorities to trust for rediss://, instead of the system's."
    )
    store_cert_file: str | None = Field(
        None, description="PEM file of our own certificate, if the store asks for one (mutual TLS)."
    )
    store_key_file: str | None = Field(None, description="PEM file of its private key.")
    store_plaintext: bool = Field(
        default=False, description="Let orders and the password go to a store on another machine without TLS."
    )
    store_region: str | None = Field(None, description="The name of this place, which `authz replicas` shows.")
    store_stale: float = Field(
        3600.0,
        ge=10,
        description="After how many seconds without the store this server says NOT_SERVING; orders stay in force.",
    )
    usage_days: int = Field(
        35,
        ge=0,
        le=3660,
        description="For how many days the store keeps how much each organization uses; 0 to send it none.",
    )
    quota_store: str | None = Field(
        None,
        description="Where replicas count quotas and open streams together, if not in store; the same user, password "
        "and certificates serve for both.",
    )
    quota_if_unavailable: Literal["local", "deny"] = Field(
        "local",
        description="While that store does not answer within 50 ms: local to count against this process's share of "
        "each plan, or deny.",
    )

    @field_validator("quota_store")
    @classmethod
    def _beside_store(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("store") is None:
            raise PydanticCustomError("alone", "set store as well, by which replicas share orders")
        return value
