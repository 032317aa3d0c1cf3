"""The `audio` half of a session: formats, transcription, turn detection, voice."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from switchboard.sessions.strict import Maybe, Strict, by_type, plain_or_object, tag


class Pcm(Strict):
    type: Literal["audio/pcm"]
    # A range of one value, because a lower rate is answered integer_below_min_value, not invalid_value.
    rate: Maybe[Annotated[int, Field(ge=24000, le=24000)]] = None


class Pcmu(Strict):
    type: Literal["audio/pcmu"]


class Pcma(Strict):
    type: Literal["audio/pcma"]


AudioFormat = Annotated[
    Annotated[Pcm, Tag(tag("audio/pcm"))]
    | Annotated[Pcmu, Tag(tag("audio/pcmu"))]
    | Annotated[Pcma, Tag(tag("audio/pcma"))],
    Discriminator(by_type),
]


class NoiseReduction(Strict):
    type: Maybe[Literal["near_field", "far_field"]] = None
    strength: Maybe[float] = None  # no bounds are published


class Transcription(Strict):
    # Which fields go with which model stands in `rules`: it depends on a second field.
    model: Maybe[str] = None
    language: Maybe[str] = None
    languages: Maybe[list[str]] = None
    keywords: Maybe[list[str]] = None
    prompt: Maybe[str] = None
    delay: Maybe[Literal["minimal", "low", "medium", "high", "xhigh"]] = None


class ServerVad(Strict):
    type: Literal["server_vad"]
    threshold: Maybe[Annotated[float, Field(ge=0, le=1)]] = None
    prefix_padding_ms: Maybe[int] = None  # no bounds are published for these two
    silence_duration_ms: Maybe[int] = None
    idle_timeout_ms: Annotated[int, Field(ge=5000, le=30000)] | None = None
    create_response: Maybe[bool] = None
    interrupt_response: Maybe[bool] = None


class SemanticVad(Strict):
    type: Literal["semantic_vad"]
    eagerness: Maybe[Literal["low", "medium", "high", "auto"]] = None
    create_response: Maybe[bool] = None
    interrupt_response: Maybe[bool] = None


TurnDetection = Annotated[
    Annotated[ServerVad, Tag(tag("server_vad"))] | Annotated[SemanticVad, Tag(tag("semantic_vad"))],
    Discriminator(by_type),
]

VoiceName = Literal[
    "alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"
]  # fmt: skip


class CustomVoice(Strict):
    id: str


Voice = Annotated[
    Annotated[VoiceName, Tag(tag("plain"))] | Annotated[CustomVoice, Tag(tag("object"))],
    Discriminator(plain_or_object),
]


class AudioInput(Strict):
    format: Maybe[AudioFormat] = None
    noise_reduction: NoiseReduction | None = None
    transcription: Transcription | None = None
    turn_detection: TurnDetection | None = None


class AudioOutput(Strict):
    format: Maybe[AudioFormat] = None
    speed: Maybe[Annotated[float, Field(ge=0.25, le=1.5)]] = None
    voice: Maybe[Voice] = None


class RealtimeAudio(Strict):
    input: Maybe[AudioInput] = None
    output: Maybe[AudioOutput] = None


class TranscriptionAudio(Strict):
    input: Maybe[AudioInput] = None


class TranslationNoiseReduction(Strict):
    type: Literal["near_field", "far_field"]
    strength: Maybe[float] = None


class SourceTranscription(Strict):
    model: str


class TranslationInput(Strict):
    noise_reduction: TranslationNoiseReduction | None = None
    transcription: SourceTranscription | None = None


class TranslationOutput(Strict):
    language: Maybe[str] = None  # the provider documents 13 of them, and publishes no list to hold a name against


class TranslationAudio(Strict):
    input: Maybe[TranslationInput] = None
    output: Maybe[TranslationOutput] = None
