"""A session as the provider shows it: every default filled in, every unset option null.

Source: upstream page, section 1, the recorded answers of `client_secrets` and of the data channel.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

DEFAULT_MODEL: Final = "gpt-realtime"
DEFAULT_INSTRUCTIONS: Final = "You are a helpful, witty, and friendly AI. Talk quickly."
LIFETIME_SECONDS: Final = 3600

_PCM: Final = MappingProxyType({"type": "audio/pcm", "rate": 24000})
_SERVER_VAD: Final = MappingProxyType(
    {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 200,  # recorded; the documentation says 500
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    }
)
_SEMANTIC_VAD: Final = MappingProxyType(
    {"type": "semantic_vad", "eagerness": "auto", "create_response": True, "interrupt_response": True}
)
_TRANSCRIPTION: Final = MappingProxyType({"model": None, "language": None, "prompt": None})
_FUNCTION: Final = MappingProxyType({"type": "function", "name": None, "description": None, "parameters": None})

Session = dict[str, Any]


def filled(session: Mapping[str, Any], session_id: str, expires_at: int = 0) -> Session:
    """The echo of a legal session; `expires_at` is 0 until a call has started."""
    if session.get("type") == "transcription":
        return _transcription(session, session_id, expires_at)
    if session.get("type") == "translation":
        return _translation(session, session_id, expires_at)
    return _realtime(session, session_id, expires_at)


def asked(echo: Mapping[str, Any]) -> Session:
    """The part of an echo that a request may hold, so that an echo can be changed and filled again."""
    return {key: value for key, value in echo.items() if key not in ("id", "object", "expires_at")}


def merged(session: Mapping[str, Any], update: Mapping[str, Any]) -> Session:
    """`session.update`: objects are merged key by key, everything else is replaced."""
    result = dict(session)
    for key, value in update.items():
        before: Any = result.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[key] = _joined(before, value) if both else value
    return result


def _joined(before: Mapping[str, Any], value: Mapping[str, Any]) -> Session:
    """Another `type` is another object: keys of the old one would be illegal in it."""
    same = before.get("type") == value.get("type", before.get("type"))
    return merged(before, value) if same else dict(value)


def _realtime(session: Mapping[str, Any], session_id: str, expires_at: int) -> Session:
    output = _part(session, "audio", "output")
    echo: Session = {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": session.get("model", DEFAULT_MODEL),
        "output_modalities": session.get("output_modalities", ["audio"]),
        "instructions": session.get("instructions", DEFAULT_INSTRUCTIONS),
        "tools": [_tool(tool) for tool in session.get("tools", ())],
        "tool_choice": session.get("tool_choice", "auto"),
        "max_output_tokens": session.get("max_output_tokens", "inf"),
        "tracing": session.get("tracing"),
        "truncation": session.get("truncation", "auto"),
        "prompt": session.get("prompt"),
        "expires_at": expires_at,
        "audio": {
            "input": _input(session),
            "output": {
                "format": output.get("format", dict(_PCM)),
                "voice": output.get("voice", "alloy"),
                "speed": output.get("speed", 1.0),
            },
        },
        "include": session.get("include"),
    }
    if "reasoning" in session:
        echo["reasoning"] = session["reasoning"]
    return echo


def _transcription(session: Mapping[str, Any], session_id: str, expires_at: int) -> Session:
    return {
        "type": "transcription",
        "object": "realtime.transcription_session",
        "id": session_id,
        "expires_at": expires_at,
        "audio": {"input": _input(session)},
        "include": session.get("include"),
    }


def _translation(session: Mapping[str, Any], session_id: str, expires_at: int) -> Session:
    given, output = _part(session, "audio", "input"), _part(session, "audio", "output")
    return {
        "type": "translation",
        "id": session_id,
        "model": session["model"],
        "expires_at": expires_at,
        "audio": {
            "input": {name: given.get(name) for name in ("transcription", "noise_reduction")},
            "output": {"language": output.get("language")},
        },
    }


def _input(session: Mapping[str, Any]) -> Session:
    given = _part(session, "audio", "input")
    transcription = given.get("transcription")
    return {
        "format": given.get("format", dict(_PCM)),
        "transcription": None if transcription is None else {**_TRANSCRIPTION, **transcription},
        "noise_reduction": given.get("noise_reduction"),
        "turn_detection": _turn_detection(given),
    }


def _turn_detection(given: Mapping[str, Any]) -> Session | None:
    detection = given.get("turn_detection", _SERVER_VAD)
    if detection is None:
        return None
    defaults = _SEMANTIC_VAD if detection["type"] == "semantic_vad" else _SERVER_VAD
    return {**defaults, **detection}


def _tool(tool: Mapping[str, Any]) -> Session:
    return {**_FUNCTION, **tool} if tool["type"] == "function" else {"require_approval": "always", **tool}


def _part(session: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    node: Any = session
    for name in names:
        node = node.get(name, {})
    part: Mapping[str, Any] = node
    return part
