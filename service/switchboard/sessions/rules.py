"""Rules that need more than one field: which model takes what, one target per MCP tool, tool schemas.

They read the raw document and skip whatever has the wrong type: the models have said so already.
A model rule applies to known models only, so that new ids and Azure deployment names pass.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from switchboard.sessions import vocabulary
from switchboard.sessions.tools import MCP_TARGETS


class Breach(NamedTuple):
    path: tuple[str | int, ...]
    code: str
    found: object
    right: str


def breaches(session: Mapping[str, Any]) -> Iterator[Breach]:
    yield from _reasoning(session)
    yield from _transcription(session)
    yield from _turn_detection(session)
    tools = session.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(tool, Mapping) and tool.get("type") == "mcp":
            yield from _mcp_target(("tools", index), tool)
        if isinstance(tool, Mapping) and tool.get("type") == "function":
            yield from _parameters(("tools", index, "parameters"), tool.get("parameters"))


def section(session: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The object at a path, or an empty one if anything on the way is not an object."""
    node: Any = session
    for name in names:
        node = node.get(name) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def _reasoning(session: Mapping[str, Any]) -> Iterator[Breach]:
    model = session.get("model")
    if not _is_one_of(model, vocabulary.REALTIME_MODELS - vocabulary.REASONING_MODELS):
        return
    for name in ("reasoning", "parallel_tool_calls"):
        if name in session:
            right = f"remove it; {model} does not take it, only gpt-realtime-2 and later do"
            yield Breach((name,), "invalid_value", session[name], right)


def _transcription(session: Mapping[str, Any]) -> Iterator[Breach]:
    transcription = section(session, "audio", "input", "transcription")
    model = transcription.get("model")
    if not _is_one_of(model, vocabulary.TRANSCRIPTION_MODELS):
        return
    for name, models in vocabulary.ONLY_MODELS.items():
        if name in transcription and model not in models:
            right = f"remove it; {model} does not take it, only {', '.join(sorted(models))} do"
            path = ("audio", "input", "transcription", name)
            yield Breach(path, "invalid_value", transcription[name], right)


def _turn_detection(session: Mapping[str, Any]) -> Iterator[Breach]:
    """Left out is wrong as well: the provider would fill in server_vad."""
    listens = section(session, "audio", "input")
    model = section(listens, "transcription").get("model")
    if session.get("type") != "transcription" or not _is_one_of(model, vocabulary.SELF_PACED_MODELS):
        return
    found = listens.get("turn_detection", ...)
    if found is not None:
        right = f"null; {model} finds the turns itself"
        path = ("audio", "input", "turn_detection")
        yield Breach(path, "invalid_value", None if found is ... else found, right)


def _mcp_target(path: tuple[str | int, ...], tool: Mapping[str, Any]) -> Iterator[Breach]:
    present = [name for name in tool if name in MCP_TARGETS]
    if not present:
        right = f"exactly one of {', '.join(MCP_TARGETS)}"
        yield Breach((*path, MCP_TARGETS[0]), "missing_required_parameter", None, right)
    for name in present[1:]:
        right = f"remove it; {present[0]} is the target already, and exactly one is allowed"
        yield Breach((*path, name), "invalid_value", tool[name], right)


def _parameters(path: tuple[str | int, ...], schema: Any) -> Iterator[Breach]:
    if not isinstance(schema, Mapping):
        return
    right = 'a JSON Schema of an object: {"type": "object", "properties": {…}}'
    if schema.get("type") != "object" or not isinstance(schema.get("properties", {}), Mapping):
        yield Breach(path, "invalid_function_parameters", schema, right)


def _is_one_of(model: object, models: frozenset[str]) -> bool:
    return isinstance(model, str) and model in models
