"""The tools a session may offer its model, and which of them it must use."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag

from switchboard.sessions.strict import Maybe, Strict, by_type, plain_or_by_type, plain_or_object, tag

MCP_TARGETS = ("server_url", "connector_id", "tunnel_id")


def _one_target(schema: dict[str, Any]) -> None:
    for node in schema["properties"].values():
        if node.get("default", ...) is None:
            del node["default"]
    schema["oneOf"] = [{"required": [target]} for target in MCP_TARGETS]


def _web_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http or https URL")
    return url


WebUrl = Annotated[str, AfterValidator(_web_url), Field(json_schema_extra={"format": "uri"})]


class FunctionTool(Strict):
    # That `parameters` is a JSON Schema of an object is checked in `rules`: it has a code of its own.
    type: Literal["function"]
    name: str
    description: Maybe[str] = None
    parameters: Maybe[dict[str, Any]] = None


class ToolFilter(Strict):
    tool_names: Maybe[list[str]] = None
    read_only: Maybe[bool] = None


class ApprovalFilter(Strict):
    always: Maybe[ToolFilter] = None
    never: Maybe[ToolFilter] = None


AllowedTools = Annotated[
    Annotated[list[str], Tag(tag("plain"))] | Annotated[ToolFilter, Tag(tag("object"))],
    Discriminator(plain_or_object),
]

RequireApproval = Annotated[
    Annotated[Literal["always", "never"], Tag(tag("plain"))] | Annotated[ApprovalFilter, Tag(tag("object"))],
    Discriminator(plain_or_object),
]

ConnectorId = Literal[
    "connector_dropbox",
    "connector_gmail",
    "connector_googlecalendar",
    "connector_googledrive",
    "connector_microsoftteams",
    "connector_outlookcalendar",
    "connector_outlookemail",
    "connector_sharepoint",
]


class McpTool(Strict):
    """Exactly one of the targets must be there; `authorization` and `headers` are secrets."""

    model_config = ConfigDict(json_schema_extra=_one_target)

    type: Literal["mcp"]
    server_label: str
    server_url: Maybe[WebUrl] = None
    connector_id: Maybe[ConnectorId] = None
    tunnel_id: Maybe[Annotated[str, Field(pattern="^tunnel_[a-z0-9]{32}$")]] = None
    authorization: Maybe[str] = None
    headers: dict[str, str] | None = None
    allowed_tools: AllowedTools | None = None
    allowed_callers: Annotated[list[Literal["direct", "programmatic"]], Field(min_length=1)] | None = None
    require_approval: RequireApproval | None = None
    server_description: Maybe[str] = None
    defer_loading: Maybe[bool] = None


Tool = Annotated[
    Annotated[FunctionTool, Tag(tag("function"))] | Annotated[McpTool, Tag(tag("mcp"))],
    Discriminator(by_type),
]


class FunctionChoice(Strict):
    type: Literal["function"]
    name: str


class McpChoice(Strict):
    type: Literal["mcp"]
    server_label: str
    name: str | None = None


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag(tag("plain"))]
    | Annotated[FunctionChoice, Tag(tag("function"))]
    | Annotated[McpChoice, Tag(tag("mcp"))],
    Discriminator(plain_or_by_type),
]
