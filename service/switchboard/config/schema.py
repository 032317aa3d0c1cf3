"""What may stand in the policy file: strict models that mirror the YAML, unknown keys refused.

`switchboard schema` prints their JSON Schema, so that editors complete and check a policy as it is written.
"""

import re
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails, PydanticCustomError

from switchboard.config.mistakes import right_for, unknown_name
from switchboard.identity.jwks import is_safe_url
from switchboard.ratelimit import quotas
from switchboard.sessions import Session, problems

HMAC_ALGORITHMS = ("HS256",)
MAX_RATE = 1_000_000_000
MAX_WINDOW = 31 * 86400  # seconds
Algorithm: TypeAlias = Literal["HS256", "RS256", "PS256", "ES256", "EdDSA"]


def mistake(right: str) -> PydanticCustomError:
    """An error that says what would be right."""
    return PydanticCustomError("mistake", "right would be {right}", {"right": right})


class Strict(BaseModel):
    """A mapping of known names. Every error below it is turned into one that says what would be right."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(given)
        except ValidationError as error:
            lines = [cls._explained(one) for one in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(cls.__name__, lines) from None

    @classmethod
    def _explained(cls, error: ErrorDetails) -> InitErrorDetails:
        if error["type"] == "extra_forbidden":
            right = unknown_name(error["loc"][-1], list(cls.model_fields))
        else:
            right = right_for(error)
        missing = error["type"] == "missing" or error.get("ctx", {}).get("missing", False)
        kind = PydanticCustomError("mistake", "right would be {right}", {"right": right, "missing": missing})
        # Which branch of a union was tried is of no interest to who wrote the file.
        place = tuple(part for part in error["loc"] if not str(part).startswith("<"))
        return InitErrorDetails(type=kind, loc=place, input=error["input"])


def _secret_reference(text: str) -> str:
    if not re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/.+", text):
        raise mistake("`env:NAME` or `file:/path`; a secret never stands in this file")
    return text


def _url(text: str) -> str:
    if not is_safe_url(text):
        raise mistake("an https URL (plain http is for this machine only)")
    return text


def _origin(text: str) -> str:
    match = re.fullmatch(r"(https?)://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::(\d{1,5}))?", text)
    if match is None:
        raise mistake('an origin like "https://app.example.com": scheme and host, no path and no slash at the end')
    if match.group(1, 2) in (("http", "80"), ("https", "443")):
        raise mistake("an origin without its scheme's own port, as browsers send it")
    return text.lower()


def _rate(text: str) -> str:
    try:
        written = quotas("user", [text])
    except ValueError:
        written = ()
    if not all(0 < quota.limit <= MAX_RATE and 0 < quota.seconds <= MAX_WINDOW for quota in written) or not written:
        raise mistake("a rate like `10/minute` or `5 per 10 seconds`, over at most 31 days")
    return text


def _session(session: Any) -> Any:
    found = problems(session)
    if found:
        lines = [
            InitErrorDetails(
                type=PydanticCustomError(
                    "mistake",
                    "right would be {right}",
                    {"right": one.right, "missing": one.code == "missing_required_parameter"},
                ),
                loc=one.path,
                input=one.found,
            )
            for one in found
        ]
        raise ValidationError.from_exception_data("session", lines)
    return session


Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
SecretReference: TypeAlias = Annotated[
    str,
    AfterValidator(_secret_reference),
    Field(json_schema_extra={"pattern": "^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)$"}),
]
Url: TypeAlias = Annotated[str, AfterValidator(_url)]
Origin: TypeAlias = Annotated[str, AfterValidator(_origin)]
Listed = TypeVar("Listed")
ListOrAny: TypeAlias = Annotated[
    Annotated[list[Listed], Tag("<list>")] | Annotated[Literal["any"], Tag("<any>")],
    Discriminator(lambda given: "<any>" if isinstance(given, str) else "<list>"),
]
Scalar: TypeAlias = str | int | float | bool
Rate: TypeAlias = Annotated[str, AfterValidator(_rate), Field(examples=["10/minute", "100/day", "5 per 10 seconds"])]


class Provider(Strict):
    """An upstream account: OpenAI, whatever speaks like it, or a resource of Azure OpenAI."""

    kind: Literal["openai", "azure"]
    base_url: Url = "https://api.openai.com/v1"
    keys: list[SecretReference] = []
    entra: bool = False
    call_ids: bool = True

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        at_azure = self.kind == "azure"
        if at_azure and not self.base_url.rstrip("/").endswith("/openai/v1"):
            raise mistake("a `base_url` like https://RESOURCE.openai.azure.com/openai/v1")
        if bool(self.keys) == self.entra or (self.entra and not at_azure):
            raise mistake(f"`keys`, at least one{', or `entra: true` instead' if at_azure else ''}")
        return self


class Issuer(Strict):
    """Whose tokens are accepted, how they are verified, and which tenants they lead to."""

    issuer: Annotated[str, Field(min_length=1, max_length=512)]
    audience: Annotated[str, Field(min_length=1)]
    algorithms: Annotated[list[Algorithm], Field(min_length=1)]
    jwks_url: Url | None = None
    secret: SecretReference | None = None
    public_key: SecretReference | None = None
    tenant: Name | None = None
    tenant_claim: Annotated[str, Field(min_length=1)] | None = None
    tenants: ListOrAny[Name] | None = None
    leeway_seconds: Annotated[int, Field(ge=0, le=120)] = 30
    max_token_seconds: Annotated[int, Field(ge=60, le=31 * 86400)] = 86400

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(way is not None for way in (self.jwks_url, self.secret, self.public_key)) > 1:
            raise mistake("one of `jwks_url`, `secret` and `public_key`, or none of them for OpenID discovery")
        if (self.tenant is None) == (self.tenant_claim is None):
            raise mistake("either `tenant`, a fixed one, or `tenant_claim` with `tenants`")
        if (self.tenants is None) != (self.tenant_claim is None):
            raise mistake("`tenants` beside `tenant_claim`: the names that this issuer may speak for, or `any`")
        if any((name in HMAC_ALGORITHMS) != (self.secret is not None) for name in self.algorithms):
            raise mistake("`algorithms: [HS256]` with `secret`, and never with public keys")
        if self.jwks_url is None and self.secret is None and self.public_key is None and not is_safe_url(self.issuer):
            raise mistake("an https `issuer` for OpenID discovery, or `jwks_url`, `secret` or `public_key`")
        return self


class Minutes(Strict):
    """How many minutes of relayed calls may be used."""

    user: Rate | None = None
    tenant: Rate | None = None


class OpenCalls(Strict):
    """How many calls may be open at once."""

    user: Annotated[int, Field(ge=1)] | None = None
    tenant: Annotated[int, Field(ge=1)] | None = None


class Limits(Strict):
    """What a tenant's users may use; what is left out has a default."""

    user: list[Rate] | None = None
    tenant: list[Rate] | None = None
    minutes: Minutes | None = None
    open_calls: OpenCalls | None = None
    when_user_full: Literal["replace", "refuse"] | None = None
    call_seconds: Annotated[int, Field(ge=10, le=3600)] | None = None
    idle_seconds: Annotated[int, Field(ge=10, le=3600)] | None = None
    mode: Literal["enforce", "shadow"] | None = None


class LimitsBy(Strict):
    """Other limits for callers whose verified claim has one of some values, field by field."""

    claim: Annotated[str, Field(min_length=1)]
    values: dict[str, Limits]


class Range(Strict):
    """An override within numeric bounds."""

    min: int | float
    max: int | float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise mistake("`min` not above `max`")
        return self


class Length(Strict):
    """An override of bounded length, in characters."""

    max_length: Annotated[int, Field(ge=1, le=100_000)]


def _override_rule(given: Any) -> Any:
    if isinstance(given, list):
        if not given or not all(isinstance(one, str | int | float | bool) for one in given):
            raise mistake("a list of at least one plain value")
        return given
    if isinstance(given, dict) and "max_length" in given:
        return Length.model_validate(given)
    if isinstance(given, dict) and given.keys() & {"min", "max"}:
        return Range.model_validate(given)
    raise mistake("a list of values, `{min: …, max: …}` or `{max_length: …}`")


OverrideRule: TypeAlias = Annotated[list[Any] | Range | Length, BeforeValidator(_override_rule)]


class _ShownAsSession:
    """In the JSON Schema a session is shown field by field, although it is kept as it was written."""

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(TypeAdapter(Session).core_schema)


SessionField: TypeAlias = Annotated[dict[str, Any], BeforeValidator(_session), _ShownAsSession()]


class Preset(Strict):
    """A session configuration that the server owns."""

    delivery: Literal["direct", "relay"]
    session: SessionField
    requires: dict[str, Annotated[list[Scalar], Field(min_length=1)]] = {}
    token_ttl: Annotated[int, Field(ge=10, le=7200)] = 60
    overrides: dict[str, OverrideRule] = {}
    extra: Literal["refuse", "ignore"] = "refuse"
    beta: Literal["drop", "strict"] = "drop"
    expose_mcp_secrets: bool = False
    hide_instructions: bool = False
    unleashed: Literal["allow", "refuse"] = "refuse"


class Tenant(Strict):
    """A customer or product."""

    provider: Name
    origins: ListOrAny[Origin]
    suspended: bool = False
    calls_without_register: Literal["allow", "refuse"] = "refuse"
    limits: Limits = Limits()
    limits_by: LimitsBy | None = None
    default_preset: Name
    presets: Annotated[dict[Name, Preset], Field(min_length=1)]


class Config(Strict):
    """A whole policy."""

    providers: Annotated[dict[Name, Provider], Field(min_length=1)]
    issuers: Annotated[list[Issuer], Field(min_length=1)]
    tenants: Annotated[dict[Name, Tenant], Field(min_length=1)]


class Part(Strict):
    """One file of a policy in several: what it leaves out may stand in another one."""

    providers: dict[Name, Provider] = {}
    issuers: list[Issuer] = []
    tenants: dict[Name, Tenant] = {}
