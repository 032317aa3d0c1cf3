"""The flat session of the beta that was shut down on 2026-05-12, and today's: one table, which docs/clients.md shows.

Source: the upstream page, section 5, with its field list; openai-python 3.52.0, `types/beta/realtime/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from switchboard.sessions.paths import with_value
from switchboard.sessions.vocabulary import PREVIEW_MODELS


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the beta.

    Args:
        name: in the beta.
        path: in today's session; None: there is none for it.
        values: pairs of a value in the beta and today's; others are the same in both.
        outdated: values that mean nothing any more: the beta's default, or what is gone.
    """

    name: str
    path: str | None
    values: tuple[tuple[Any, Any], ...] = ()
    outdated: tuple[Any, ...] = ()


_FORMATS: Final = (("pcm16", "audio/pcm"), ("g711_ulaw", "audio/pcmu"), ("g711_alaw", "audio/pcma"))
_BOTH: Final = (["text", "audio"], ["audio", "text"])  # sound comes with its transcript today
_TABLE: Final = (
    Field("model", "model", outdated=tuple(sorted(PREVIEW_MODELS))),
    Field("modalities", "output_modalities", values=tuple((both, ["audio"]) for both in _BOTH), outdated=_BOTH),
    Field("instructions", "instructions"),
    Field("voice", "audio.output.voice"),
    Field("speed", "audio.output.speed", outdated=(1,)),
    Field("input_audio_format", "audio.input.format.type", values=_FORMATS, outdated=("pcm16",)),
    Field("output_audio_format", "audio.output.format.type", values=_FORMATS, outdated=("pcm16",)),
    Field("input_audio_transcription", "audio.input.transcription", outdated=(None,)),
    Field("input_audio_noise_reduction", "audio.input.noise_reduction", outdated=(None,)),
    Field("turn_detection", "audio.input.turn_detection"),
    Field("tools", "tools", outdated=([],)),
    Field("tool_choice", "tool_choice", outdated=("auto",)),
    Field("max_response_output_tokens", "max_output_tokens", outdated=("inf",)),
    Field("tracing", "tracing", outdated=(None,)),
    Field("include", "include"),
    Field("temperature", None),
)

FIELDS: Final = MappingProxyType({field.name: field for field in _TABLE})
"""By name, in the order in which the documentation shows them."""


def translated(flat: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """A session of the beta as today's, without its type; and the paths in it whose values mean nothing any more.

    What the beta did not know stays where it stands. What has no place today leaves its name, whatever its value.
    """
    session: dict[str, Any] = {}
    outdated: set[str] = set()
    # First what the beta did not know: an `audio` of today's keeps what the others put into it.
    for name, value in sorted(flat.items(), key=lambda item: item[0] in FIELDS):
        match FIELDS.get(name):
            case None:
                session[name] = value
            case Field(path=None):
                session[name] = ""  # for any value, an object or `null` as well: one leaf, and no preset's own
                outdated.add(name)
            case Field(path=str(path)) as field:
                today = next((new for old, new in field.values if old == value), value)
                session = with_value(session, path, today)
                if value in field.outdated and value is not True:  # which is not `1`, as in JSON
                    outdated.add(path)
    return session, frozenset(outdated)
