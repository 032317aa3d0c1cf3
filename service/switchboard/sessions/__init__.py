"""The provider's session objects as strict data: what is legal today, what is wrong, what will stop working.

Source: the upstream page, section 1, and its field list. Everything here is pure: no I/O, no settings.
"""

from switchboard.sessions.advice import warnings
from switchboard.sessions.beta import translated
from switchboard.sessions.describe import KNOWN_PATHS, is_known, path_text
from switchboard.sessions.findings import SECRET_FIELDS, Problem, problems
from switchboard.sessions.paths import with_value
from switchboard.sessions.session import TYPES, RealtimeSession, Session, TranscriptionSession, TranslationSession

__all__ = [
    "KNOWN_PATHS",
    "SECRET_FIELDS",
    "TYPES",
    "Problem",
    "RealtimeSession",
    "Session",
    "TranscriptionSession",
    "TranslationSession",
    "is_known",
    "path_text",
    "problems",
    "translated",
    "warnings",
    "with_value",
]
