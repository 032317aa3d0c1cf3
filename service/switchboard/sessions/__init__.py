"""The provider's session objects as strict data: what is legal today, what is wrong, what will stop working.

Source: the upstream page, section 1, and its field list. Everything here is pure: no I/O, no settings.
"""

from switchboard.sessions.advice import warnings
from switchboard.sessions.describe import KNOWN_PATHS, is_known, path_text
from switchboard.sessions.findings import SECRET_FIELDS, Problem, problems
from switchboard.sessions.session import RealtimeSession, Session, TranscriptionSession

__all__ = [
    "KNOWN_PATHS",
    "SECRET_FIELDS",
    "Problem",
    "RealtimeSession",
    "Session",
    "TranscriptionSession",
    "is_known",
    "path_text",
    "problems",
    "warnings",
]
