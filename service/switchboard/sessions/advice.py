"""What is legal today but will stop working, and what only looks like a mistake."""

from collections.abc import Iterator, Mapping
from datetime import date
from difflib import get_close_matches
from typing import Any

from switchboard.sessions import vocabulary
from switchboard.sessions.findings import Problem
from switchboard.sessions.rules import section

_TRANSCRIPTION_MODEL = ("audio", "input", "transcription", "model")


def warnings(session: Mapping[str, object], today: date) -> list[Problem]:
    """Deprecations with their dates, and model names nobody has published; nothing here refuses a session."""
    transcription = section(session, "audio", "input", "transcription").get("model")
    return [
        *_model(("model",), session.get("model"), _models(session), today),
        *_prompt(session, today),
        *_connectors(session),
        *_model(_TRANSCRIPTION_MODEL, transcription, vocabulary.TRANSCRIPTION_MODELS, today),
    ]


def _models(session: Mapping[str, Any]) -> frozenset[str]:
    return vocabulary.TRANSLATION_MODELS if session.get("type") == "translation" else vocabulary.REALTIME_MODELS


def _model(path: tuple[str, ...], model: object, known: frozenset[str], today: date) -> Iterator[Problem]:
    if not isinstance(model, str):
        return
    if model in vocabulary.TRANSLATION_MODELS - known:
        yield Problem(path, "unknown_model", model, "it is for sessions of type translation")
    elif model not in known:
        near = get_close_matches(model, sorted(known), n=1)
        guess = f'did you mean "{near[0]}"? ' if near else ""
        right = f"{guess}a new model or an Azure deployment name is fine"
        yield Problem(path, "unknown_model", model, right)
    successor = "gpt-realtime-2.1" if path == ("model",) else "gpt-transcribe or gpt-live-transcribe"
    if model in vocabulary.PREVIEW_MODELS:
        yield Problem(path, "deprecated", model, f"it was shut down in spring 2026; use {successor}")
    if model in vocabulary.MODEL_STOPS:
        right = f"{_stops(vocabulary.MODEL_STOPS[model], today)}; use {successor}"
        yield Problem(path, "deprecated", model, right)


def _prompt(session: Mapping[str, Any], today: date) -> Iterator[Problem]:
    prompt = session.get("prompt")
    if prompt is not None:
        right = f"{_stops(vocabulary.PROMPTS_STOP, today)}; write the text into instructions"
        yield Problem(("prompt",), "deprecated", prompt, right)


def _connectors(session: Mapping[str, Any]) -> Iterator[Problem]:
    tools = session.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(tool, Mapping) and "connector_id" in tool:
            day = vocabulary.CONNECTORS_DEPRECATED_AFTER.isoformat()
            right = f"models released after {day} do not promise it; use server_url or tunnel_id"
            yield Problem(("tools", index, "connector_id"), "deprecated", tool["connector_id"], right)


def _stops(day: date, today: date) -> str:
    left = (day - today).days
    if left <= 0:
        return f"it stopped on {day.isoformat()}"
    return f"it stops on {day.isoformat()}, in {left} day{'' if left == 1 else 's'}"
