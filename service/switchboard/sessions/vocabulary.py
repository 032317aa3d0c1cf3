"""Names and dates as the provider publishes them (field list of 2026-11-20); plain data, no behaviour."""

from datetime import date
from types import MappingProxyType

STOPS_2027_01_20 = frozenset(
    {
        "gpt-realtime",
        "gpt-realtime-2025-08-28",
        "gpt-realtime-mini",
        "gpt-realtime-mini-2025-12-15",
        "gpt-audio-mini",
        "gpt-audio-mini-2025-12-15",
    }
)
REASONING_MODELS = frozenset({"gpt-realtime-2", "gpt-realtime-2.1", "gpt-realtime-2.1-mini"})
# Reported shut down in spring 2026; no date was published, so there is no day to compare with.
PREVIEW_MODELS = frozenset(
    {
        "gpt-4o-realtime-preview",
        "gpt-4o-realtime-preview-2024-10-01",
        "gpt-4o-realtime-preview-2024-12-17",
        "gpt-4o-realtime-preview-2025-06-03",
        "gpt-4o-mini-realtime-preview",
        "gpt-4o-mini-realtime-preview-2024-12-17",
    }
)
REALTIME_MODELS = (
    STOPS_2027_01_20
    | REASONING_MODELS
    | PREVIEW_MODELS
    | {"gpt-realtime-1.5", "gpt-realtime-mini-2025-10-06", "gpt-audio-1.5", "gpt-audio-mini-2025-10-06"}
)

TRANSLATION_MODELS = frozenset({"gpt-realtime-translate"})

STOPS_2027_02_26 = frozenset(
    {
        "whisper-1",
        "gpt-4o-mini-transcribe",
        "gpt-4o-mini-transcribe-2025-12-15",
        "gpt-4o-transcribe",
        "gpt-4o-transcribe-diarize",
    }
)
TRANSCRIPTION_MODELS = STOPS_2027_02_26 | {"gpt-transcribe", "gpt-live-transcribe", "gpt-realtime-whisper"}

MODEL_STOPS = MappingProxyType(
    dict.fromkeys(STOPS_2027_01_20, date(2027, 1, 20)) | dict.fromkeys(STOPS_2027_02_26, date(2027, 2, 26))
)
PROMPTS_STOP = date(2026, 11, 30)
CONNECTORS_DEPRECATED_AFTER = date(2026, 9, 1)

# Models that take these fields of audio.input.transcription.
ONLY_MODELS = MappingProxyType(
    {
        "languages": frozenset({"gpt-transcribe", "gpt-live-transcribe"}),
        "keywords": frozenset({"gpt-transcribe", "gpt-live-transcribe"}),
        "prompt": TRANSCRIPTION_MODELS - {"gpt-realtime-whisper"},
        "delay": frozenset({"gpt-realtime-whisper", "gpt-live-transcribe"}),
    }
)
# These find the ends of speech themselves: a transcription session with them must say turn_detection: null.
SELF_PACED_MODELS = frozenset({"gpt-realtime-whisper", "gpt-live-transcribe"})

ANSWER_ONLY = frozenset({"id", "object", "expires_at"})
