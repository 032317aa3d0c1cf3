"""What all session models share: strictness, fields that may be absent but not null, and union tags."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema

T = TypeVar("T")


def _no_null_defaults(schema: dict[str, Any]) -> None:
    """`None` is how Python says absent here; a JSON Schema that offered it as a default would be wrong."""
    for node in schema.get("properties", {}).values():
        if node.get("default", ...) is None:
            del node["default"]


class Strict(BaseModel):
    """A frozen object that takes exactly its own keys, as the provider does: one unknown key fails it all."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, json_schema_extra=_no_null_defaults
    )


class _NotNull:
    """Takes the `None` out of what is accepted while the attribute may still be `None`, meaning absent."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        nullable: Any = handler(source)
        inner: CoreSchema = nullable["schema"]
        return inner


Maybe = Annotated[T | None, _NotNull()]


def tag(kind: object) -> str:
    """The name of a union's branch; bracketed, so that it is never mistaken for a key of the document."""
    return f"<{kind}>"


def is_tag(part: object) -> bool:
    return isinstance(part, str) and part.startswith("<") and part.endswith(">")


def _kind(value: object) -> object:
    return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)


def by_type(value: object) -> str | None:
    """Chooses the branch of objects that differ in `type`."""
    kind = _kind(value)
    return tag(kind) if isinstance(kind, str) else None


def plain_or_object(value: object) -> str:
    """Chooses between a bare value and an object, so that a mistake is judged by one branch only."""
    return tag("object") if isinstance(value, dict | BaseModel) else tag("plain")


def plain_or_by_type(value: object) -> str | None:
    """Chooses between a bare value and objects that differ in `type`."""
    return by_type(value) if isinstance(value, dict | BaseModel) else tag("plain")
