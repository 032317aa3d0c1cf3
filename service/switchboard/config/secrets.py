"""Secrets by reference: `env:NAME` or `file:/path`, so that a policy file never holds one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from switchboard.sessions import SECRET_FIELDS

FILE = "file:"


class SecretMissing(Exception):
    """A reference leads to nothing. The message names the reference, never a value."""


class Secrets:
    """Follows references.

    Args:
        environ: the process's environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def resolve(self, reference: str) -> str:
        """The secret behind `env:NAME` or `file:/path`; the white space around it does not count.

        Raises:
            SecretMissing: it is not set, not readable, or empty.
        """
        kind, _, place = reference.partition(":")
        if kind == "env":
            value = self._environ.get(place, "")
        else:
            try:
                value = Path(place).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                raise SecretMissing(f"{reference}: this file cannot be read") from None
        if not value.strip():
            raise SecretMissing(f"{reference}: {'not set' if kind == 'env' else 'this file is empty'}")
        return value.strip()

    def credential(self, reference: str) -> str:
        """A secret that is sent in a header.

        Raises:
            SecretMissing: as `resolve`, or it holds what no header can carry.
        """
        value = self.resolve(reference)
        if not value.isascii() or not value.isprintable() or " " in value:
            raise SecretMissing(f"{reference}: holds a space, a line break or a letter beyond ASCII")
        return value

    def fill(self, session: Mapping[str, Any]) -> dict[str, Any]:
        """A session whose MCP tools hold their secrets instead of references."""
        tools = session.get("tools")
        if not isinstance(tools, list):
            return dict(session)
        return {**session, "tools": [self._filled(tool) for tool in tools]}

    def _filled(self, tool: Mapping[str, Any]) -> dict[str, Any]:
        filled = dict(tool)
        for name in SECRET_FIELDS:
            match filled.get(name):
                case str(reference):
                    filled[name] = self.resolve(reference)
                case dict(references):
                    filled[name] = {header: self.resolve(value) for header, value in references.items()}
        return filled
