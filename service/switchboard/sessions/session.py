"""The session objects that `client_secrets` and `calls` take, and those of `translations/client_secrets`."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from switchboard.sessions.audio import RealtimeAudio, TranscriptionAudio, TranslationAudio
from switchboard.sessions.strict import Maybe, Strict, by_type, plain_or_by_type, plain_or_object, tag
from switchboard.sessions.tools import Tool, ToolChoice

Include = list[Literal["item.input_audio_transcription.logprobs"]]


class Reasoning(Strict):
    effort: Maybe[Literal["minimal", "low", "medium", "high", "xhigh"]] = None


class InputText(Strict):
    type: Literal["input_text"]
    text: str


class InputImage(Strict):
    type: Literal["input_image"]
    detail: Maybe[Literal["low", "high", "auto", "original"]] = None
    file_id: str | None = None
    image_url: str | None = None


class InputFile(Strict):
    type: Literal["input_file"]
    file_data: Maybe[str] = None
    file_id: str | None = None
    file_url: Maybe[str] = None
    filename: Maybe[str] = None


Variable = Annotated[
    Annotated[str, Tag(tag("plain"))]
    | Annotated[InputText, Tag(tag("input_text"))]
    | Annotated[InputImage, Tag(tag("input_image"))]
    | Annotated[InputFile, Tag(tag("input_file"))],
    Discriminator(plain_or_by_type),
]


class Prompt(Strict):
    id: str
    version: str | None = None
    variables: dict[str, Variable] | None = None


class TracingDetails(Strict):
    workflow_name: Maybe[str] = None
    group_id: Maybe[str] = None
    metadata: Maybe[dict[str, Any]] = None


Tracing = Annotated[
    Annotated[Literal["auto"], Tag(tag("plain"))] | Annotated[TracingDetails, Tag(tag("object"))],
    Discriminator(plain_or_object),
]


class TokenLimits(Strict):
    post_instructions: Maybe[Annotated[int, Field(ge=0)]] = None


class RetentionRatio(Strict):
    type: Literal["retention_ratio"]
    retention_ratio: Annotated[float, Field(ge=0, le=1)]
    token_limits: Maybe[TokenLimits] = None


Truncation = Annotated[
    Annotated[Literal["auto", "disabled"], Tag(tag("plain"))] | Annotated[RetentionRatio, Tag(tag("object"))],
    Discriminator(plain_or_object),
]


def _number_or_word(value: object) -> str:
    return tag("plain") if isinstance(value, str) else tag("number")


MaxOutputTokens = Annotated[
    Annotated[Annotated[int, Field(ge=1, le=4096)], Tag(tag("number"))] | Annotated[Literal["inf"], Tag(tag("plain"))],
    Discriminator(_number_or_word),
]


class RealtimeSession(Strict):
    """A speech session; any model id is legal: ids appear between releases, and Azure names its own."""

    type: Literal["realtime"]
    model: Maybe[str] = None
    instructions: Maybe[str] = None
    # One of the two; both together are refused.
    output_modalities: Maybe[
        Annotated[list[Literal["text", "audio"]], Field(min_length=1, max_length=1)]
    ] = None  # fmt: skip
    max_output_tokens: Maybe[MaxOutputTokens] = None
    parallel_tool_calls: Maybe[bool] = None
    reasoning: Maybe[Reasoning] = None
    include: Maybe[Include] = None
    prompt: Prompt | None = None
    tool_choice: Maybe[ToolChoice] = None
    tools: Maybe[list[Tool]] = None
    tracing: Tracing | None = None
    truncation: Maybe[Truncation] = None
    audio: Maybe[RealtimeAudio] = None


class TranscriptionSession(Strict):
    """A session that only listens; its model is at `audio.input.transcription.model`."""

    type: Literal["transcription"]
    include: Maybe[Include] = None
    audio: Maybe[TranscriptionAudio] = None


class TranslationSession(Strict):
    """A session that interprets. The provider knows it by its path: `type` is ours, and is not sent there."""

    type: Literal["translation"]
    model: str
    audio: Maybe[TranslationAudio] = None


Session = Annotated[
    Annotated[RealtimeSession, Tag(tag("realtime"))]
    | Annotated[TranscriptionSession, Tag(tag("transcription"))]
    | Annotated[TranslationSession, Tag(tag("translation"))],
    Discriminator(by_type),
]

TYPES = frozenset({"realtime", "transcription", "translation"})
