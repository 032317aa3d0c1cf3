"""What a process needs from its environment: addresses, bounds and secrets. Policy is not here but in the YAML."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from limits import parse_many
from pydantic import Field, SecretStr, StringConstraints, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from switchboard.clientaddress import Network, networks

PREFIX = "SWITCHBOARD_"
DAY_SECONDS = 86400

# Shorter secrets can be guessed offline from one grant or one audit record.
Secret = Annotated[SecretStr, Field(min_length=32)]


class SecretFiles(PydanticBaseSettingsSource):
    """`SWITCHBOARD_X_FILE=/path` sets the secret X from a file, as Kubernetes and Docker mount them."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(f"{PREFIX}{field_name.upper()}_FILE")
        if path is None or "SecretStr" not in str(field.annotation):
            return None, field_name, False
        try:
            return Path(path).read_text(encoding="utf-8").strip(), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{PREFIX}{field_name.upper()}_FILE: {path} cannot be read: {error}") from None

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class Settings(BaseSettings):
    """The environment variables `SWITCHBOARD_*`; each secret may come as `…_FILE` as well."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    config: Path = Field(default=Path("switchboard.yaml"), description="the policy: a YAML file, or a folder of them")
    public_url: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s?#]+(/[^\s?#]*)?$")] | None = Field(
        default=None,
        description="where frontends reach this service; `calls_url` is built from it, never from a Host header",
    )
    host: str = Field(default="0.0.0.0", description="address of the public port")  # noqa: S104 - the front door
    port: int = Field(default=8080, ge=0, le=65535, description="the public port")
    ops_host: str = Field(default="127.0.0.1", description="address of the ops port: loopback unless configured")
    ops_port: int = Field(default=9090, ge=0, le=65535, description="metrics, health and details")
    signing_keys: Annotated[tuple[Secret, ...], NoDecode] = Field(
        default=(), description="secrets of the grants, comma-separated: the first seals, all open"
    )
    user_key_secret: Secret | None = Field(default=None, description="keys the user hash; never rotated")
    admin_token: Secret | None = Field(
        default=None, description="what operators present on the ops port; unset: there is no /admin"
    )
    audit: str = Field(default="stdout", description="where the audit goes: `stdout` or `file:PATH`")
    audit_fsync: bool = Field(default=False, description="whether a record is on disk before its answer leaves")
    audit_key: Secret | Literal["none"] | None = Field(
        default=None, description="keys the chain of the audit's records; `none` leaves them unchained"
    )
    audit_client_ip: Literal["full", "prefix", "off"] = Field(
        default="full", description="what records show of a client's address: all, its network (/24, /48), nothing"
    )
    audit_rotate_bytes: int = Field(
        default=268_435_456, ge=0, description="size at which the audit goes on in a new file; 0: at none"
    )
    audit_anchors: str | None = Field(
        default=None, description="where checkpoints of the chain go: `redis`, `file:PATH`, `off`; unset: Redis if any"
    )
    redis_url: SecretStr | None = Field(
        default=None, description="where replicas share their state; unset: in memory, one process"
    )
    on_redis_down: Literal["local", "deny"] = Field(
        default="local", description="while Redis is away: each replica's share of the limits in memory, or 503"
    )
    expected_replicas: int = Field(default=1, ge=1, le=10_000, description="among how many `local` divides the limits")
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(), description="addresses and networks, comma-separated, whose `X-Forwarded-For` is believed"
    )
    edge_limit: str = Field(
        default="300/minute", description="requests of one client address to one process, like 20/second;300/minute"
    )
    edge_exempt: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(), description="addresses and networks, comma-separated, that `SWITCHBOARD_EDGE_LIMIT` does not count"
    )
    workers: int = Field(default=1, ge=1, le=64, description="processes that serve the public port; several need Redis")
    metrics_tenants: int = Field(
        default=100, ge=1, le=1000, description="tenants, issuers and providers that metrics name; the rest are `other`"
    )
    trace_parent: Literal["ignore", "accept"] = Field(
        default="ignore", description="whether a caller's `traceparent` begins the trace of its request"
    )
    trace_providers: bool = Field(default=False, description="whether providers are sent a `traceparent`")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="of the log on stderr")
    provider_timeout: float = Field(
        default=15.0, gt=0, le=120, description="seconds for a request to a provider, all tries together"
    )
    provider_http2: bool = Field(default=False, description="whether HTTP/2 is spoken with providers that offer it")
    lame_duck_seconds: float = Field(
        default=3.0, ge=0, le=120, description="seconds after SIGTERM in which work is still taken, though not ready"
    )
    lame_duck_port: Literal["open", "closed"] = Field(
        default="open", description="whether new connections are taken in that time, or only what comes on old ones"
    )
    drain_seconds: float = Field(default=20.0, ge=0, le=600, description="seconds that work in flight has after that")

    @field_validator("signing_keys", mode="before")
    @classmethod
    def _comma_separated(cls, given: object) -> object:
        return tuple(part.strip() for part in given.split(",") if part.strip()) if isinstance(given, str) else given

    @field_validator("trusted_proxies", "edge_exempt", mode="before")
    @classmethod
    def _networks(cls, given: object) -> object:
        return networks(given) if isinstance(given, str) else given

    @field_validator("trusted_proxies")
    @classmethod
    def _not_everyone(cls, trusted: tuple[Network, ...]) -> tuple[Network, ...]:
        for network in trusted:
            if network.prefixlen == 0:
                raise ValueError(f"`{network}` would believe everyone: write the networks of your own proxies")
        return trusted

    @field_validator("admin_token")
    @classmethod
    def _fit_for_a_header(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not re.fullmatch(r"[!-~]+", token.get_secret_value()):
            raise ValueError("it is sent in a header: write ASCII without spaces, as `openssl rand -hex 32` does")
        return token

    @field_validator("audit", "audit_anchors")
    @classmethod
    def _place(cls, given: str | None, info: ValidationInfo) -> str | None:
        words = ("stdout",) if info.field_name == "audit" else ("redis", "off")
        if given is None or given in words or (given.startswith("file:") and given != "file:"):
            return given
        raise ValueError(f"`{given}` is no place: write {', '.join(words)} or file:PATH")

    @field_validator("edge_limit")
    @classmethod
    def _countable(cls, given: str) -> str:
        try:
            limits = parse_many(given)
        except ValueError:
            raise ValueError(f"`{given}` is no limit: write 300/minute, or several as 20/second;300/minute") from None
        if any(limit.amount < 1 or limit.get_expiry() > DAY_SECONDS for limit in limits):
            raise ValueError(f"`{given}`: each limit lets at least 1 request pass, in a day at the longest")
        return given

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - a .env file is never read
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - `…_FILE` is how secrets come as files
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, SecretFiles(settings_cls)
