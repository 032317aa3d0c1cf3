"""The log: one JSON line per event on stderr; readable lines, with colour, on a terminal. Never a secret.

Nothing waits for whoever reads it: a thread writes the lines, and what would be too many of them is given up.
"""

import json
import logging
import os
import queue
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TextIO, cast

import orjson
import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor

from switchboard import logcontext

MAX_LINES = 10_000  # that wait for their reader: some megabytes
GATHER_SECONDS = 0.005  # lines are written together; a thread that wakes up for each would cost more than they do
END_SECONDS = 1.0  # that the end of the process waits for the reader

# The last line of defence: no code of ours logs a credential, but a library's exception might quote one.
_CREDENTIAL = re.compile(
    r"(?:\b|(?<=\dm))"  # where a word begins, or a colour on a terminal ends
    r"(?:(?:sk-|ek_|xai-)[\w-]{6,}|eyJ[\w-]+\.[\w-]+\.[\w-]*)"
    r"|(?<=[Bb]earer )[^\s\"\\,]+"
    r"|(?<=://)[^\s/@\"\\]+(?=@)"  # user and password of a URL
    r"|(?<=ice-pwd:)[^\s\"\\]+"
)
_MARKS = ("sk-", "ek_", "xai-", "eyJ", "earer ", "://", "ice-pwd:")  # found 20 times faster than what they begin

_log = structlog.get_logger("switchboard")


def configure(level: str, part: str = "") -> None:
    """Send our log and that of the libraries to stderr in one form.

    Args:
        level: what is less is left out.
        part: which of several processes this is; each line says so.
    """
    on_terminal = sys.stderr.isatty()
    complete = partial(
        _complete,
        part,
        # Without local variables: they hold tokens, keys and offers.
        structlog.processors.format_exc_info
        if on_terminal
        else structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
    )
    renderer = structlog.dev.ConsoleRenderer() if on_terminal else structlog.processors.JSONRenderer(serializer=_dumps)
    handler = QueuedStream(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), complete],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer, redact],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # They write a line per request, with paths that may hold what a caller typed. Our own is `middleware`'s.
    for chatty in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # It repeats, over many lines and with each try, what is raised and told once.
    logging.getLogger("azure").setLevel(logging.CRITICAL)
    # It quotes what strangers send, at length.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)

    def render(event: Any) -> str:
        return redact(None, "", renderer(None, "", event))

    structlog.configure(
        processors=[complete, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=lambda *name: Shortcut(logging.getLogger(*name), handler, render),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )


def _complete(part: str, shows_exception: Processor, logger: Any, method: str, event: EventDict) -> EventDict:
    """A line with all that lines say. One processor in place of the library's five: there is a line for each request.

    Args:
        part: which of several processes this is.
        shows_exception: renders one, where there is one.
        logger: ours; None for a record of the standard library.
        method: the logger's method, which is the level's name.
        event: what the line is about.
    """
    for name, value in logcontext.current().items():
        event.setdefault(name, value)
    if part:
        event["process"] = part
    event["level"] = "error" if method == "exception" else method
    event["logger"] = event["_record"].name if logger is None else logger.name
    event["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    if event.get("exc_info"):
        return cast("EventDict", shows_exception(logger, method, event))
    return event


def redact(_: Any, __: str, line: Any) -> str:
    """Replace whatever looks like a credential in a line that is about to be written."""
    text = str(line)
    for mark in _MARKS:
        if mark in text:
            return _CREDENTIAL.sub("[redacted]", text)
    return text


def lines_dropped() -> int:
    """How many lines this process has given up so far."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, QueuedStream))


class QueuedStream(logging.Handler):
    """Writes to a stream in a thread of its own; never waits for it.

    The standard library's `QueueListener` would write line by line, and wait for the reader for ever at the end.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.dropped = 0
        self._stream = stream
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """A record of the standard library."""
        try:
            self.take(self.format(record))
        except Exception:  # noqa: BLE001 - as every handler does: a line that cannot be made fails no request
            self.handleError(record)

    def take(self, line: str) -> None:
        """Have a line written, or give it up."""
        # What our own thread says of lines that were given up is not one of them.
        if self._lines.qsize() >= MAX_LINES and threading.current_thread() is not self._thread:
            self.dropped += 1
            return
        self._lines.put(line)
        if self._thread is None:
            self._begin()

    def close(self) -> None:
        """Have what waits written, as far as it is read in time. Python asks for this when it ends."""
        super().close()
        if self._thread is not None:
            self._lines.put(None)
            self._thread.join(END_SECONDS)

    def _begin(self) -> None:
        with self.lock:  # type: ignore[union-attr]  # it has one since it was made
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
                self._thread.start()

    def _write_all(self) -> None:
        told = 0
        while (line := self._lines.get()) is not None:
            time.sleep(GATHER_SECONDS)
            is_read = True
            for block in _blocks([line, *self._waiting()]):
                try:
                    _write(self._stream.fileno(), block)
                except OSError:  # nobody will read it any more
                    is_read = False
                    self.dropped += block.count(b"\n")
            if is_read and self.dropped > told and self._lines.empty():
                told = self.dropped
                _log.warning("lines of the log were given up: nobody read them", lines=told)

    def _waiting(self) -> Iterator[str]:
        for _ in range(self._lines.qsize()):
            line = self._lines.get()
            if line is None:
                self._lines.put(None)
                return
            yield line


class Shortcut:
    """A logger that gives its lines to our handler without the standard library, which takes longer than the line.

    If somebody else listens as well (a test, say), everybody gets records as usual.
    """

    def __init__(self, library: logging.Logger, handler: QueuedStream, render: Callable[[Any], str]) -> None:
        self._library = library
        self._handler = handler
        self._render = render
        self.name = library.name

    def debug(self, event: Any, **options: Any) -> None:
        """One line."""
        self._log(logging.DEBUG, event, options)

    def info(self, event: Any, **options: Any) -> None:
        """One line."""
        self._log(logging.INFO, event, options)

    def warning(self, event: Any, **options: Any) -> None:
        """One line."""
        self._log(logging.WARNING, event, options)

    def error(self, event: Any, **options: Any) -> None:
        """One line."""
        self._log(logging.ERROR, event, options)

    def _log(self, level: int, event: Any, options: Any) -> None:
        if self._library.root.handlers == [self._handler]:
            self._handler.take(self._render(event))
        else:
            self._library.log(level, event, **options)


def _blocks(lines: Sequence[str]) -> Iterator[bytes]:
    """Whole lines up to the size that a pipe takes in one piece: other processes may write to the same one."""
    block = b""
    for line in lines:
        data = line.encode(errors="backslashreplace") + b"\n"
        if block and len(block) + len(data) > select.PIPE_BUF:
            yield block
            block = b""
        block += data
    yield block


def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # somebody has made it so
            select.select((), (descriptor,), ())


def _dumps(event: Any, **_: Any) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:  # a text that is no Unicode, or a key that is no text
        return json.dumps(event, default=str, skipkeys=True)
