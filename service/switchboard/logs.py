"""The log: one JSON line per event on stderr; readable lines, with colour, on a terminal. Never a secret."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog
from structlog.tracebacks import ExceptionDictTransformer

_Event = MutableMapping[str, Any]
# The last line of defence: no code of ours logs a credential, but a library's exception might quote one.
_CREDENTIAL = re.compile(r"\b(sk-|ek_|xai-)[\w-]{6,}|\beyJ[\w-]+\.[\w-]+\.[\w-]*|(?<=[Bb]earer )\S+")


def configure(level: str) -> None:
    """Send our log and that of the libraries to stderr in one form."""
    on_terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Without local variables: they hold tokens, keys and offers.
        structlog.processors.format_exc_info
        if on_terminal
        else structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
        redact,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.dev.ConsoleRenderer()
                if on_terminal
                else structlog.processors.JSONRenderer(serializer=_dumps),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # They write a line per request, with paths that may hold what a caller typed.
    for chatty in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # They warn of what strangers send, at length, one line a request: a flood would fill the log.
    for quotes_callers in ("python_multipart", "uvicorn.error"):
        logging.getLogger(quotes_callers).setLevel(logging.ERROR)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def redact(_: Any, __: str, event: _Event) -> _Event:
    """Replace whatever looks like a credential, however deep it sits."""
    return {name: _redacted(value) for name, value in event.items()}


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return _CREDENTIAL.sub("[redacted]", value)
    if isinstance(value, dict):
        return {name: _redacted(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_redacted(inner) for inner in value]
    return value


def _dumps(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()
