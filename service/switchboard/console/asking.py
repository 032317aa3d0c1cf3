"""Asks the ops port of a running service, with the operators' token."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from switchboard import __version__

ASK_SECONDS = 10.0  # the service gives up on a hang-up after two
MAX_TOLD = 500  # characters of what somebody else says


class NotDone(Exception):
    """It was not done, or nobody knows; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class OpsPort:
    """Where to ask, and with which token.

    The token goes nowhere else: no redirect is followed, and no proxy of the environment is used.
    """

    url: str
    token: str = field(repr=False)

    def ask(self, method: str, *path: str, **query: str | None) -> dict[str, Any]:
        """The JSON object in the answer.

        Args:
            method: of HTTP.
            path: its parts below /admin, as they are.
            query: parameters; one that is None is left out.

        Raises:
            NotDone: the service said no, or did not answer.
        """
        url = f"{self.url.rstrip('/')}/admin/{'/'.join(quote(part, safe='') for part in path)}"
        params = {name: value for name, value in query.items() if value is not None}
        headers = {"authorization": f"Bearer {self.token}", "user-agent": f"switchboard/{__version__}"}
        try:
            # A transport of its own takes SSL_CERT_FILE from the environment, and nothing else.
            with httpx.Client(transport=httpx.HTTPTransport(), trust_env=False, timeout=ASK_SECONDS) as client:
                answer = client.request(method, url, params=params, headers=headers)
        except httpx.TimeoutException:
            raise NotDone(
                f"{self.url} did not answer within {ASK_SECONDS:.0f} s. It may have done what was asked: look with"
                " `switchboard calls`, or ask another replica with --url."
            ) from None
        except httpx.TransportError as error:
            raise NotDone(
                f"{self.url} cannot be reached ({_printable(str(error))}). Is the service running, and is this its ops"
                " port? Say where it is with --url."
            ) from None
        told = _object(answer)
        if told is None or not (answer.is_success or "code" in told):
            raise NotDone(
                f"{self.url} answered {answer.status_code}, and not as Switchboard does. Is this its ops port? Say"
                " where it is with --url."
            )
        if not answer.is_success:
            raise NotDone(self._why(told))
        return told

    def _why(self, problem: dict[str, Any]) -> str:
        of_request = f"({_printable(problem['code'])}, request {_printable(problem.get('request_id'))})"
        if problem["code"] == "invalid_token":
            return (
                f"{self.url} does not take this token: SWITCHBOARD_ADMIN_TOKEN has to be the one that the service was"
                f" started with {of_request}."
            )
        if problem["code"] == "not_found" and _param(problem) is None:
            return (
                f"{self.url} has no /admin: the service was started without SWITCHBOARD_ADMIN_TOKEN, or this is its"
                f" public port {of_request}."
            )
        return f"{_printable(problem.get('detail'))} {of_request}"


def _object(answer: httpx.Response) -> dict[str, Any] | None:
    try:
        told = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return None
    return told if isinstance(told, dict) else None


def _param(problem: dict[str, Any]) -> object:
    error = problem.get("error")
    return error.get("param") if isinstance(error, dict) else None


def _printable(text: object) -> str:
    """What may be anything, as far as it does nothing to a terminal."""
    return "".join(char for char in str(text) if char.isprintable())[:MAX_TOLD]
