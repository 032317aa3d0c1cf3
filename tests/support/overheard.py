"""What real processes answer to httpx, for the scan for leaks: whoever asks them by hand, all is heard."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.support.leaks import LEAKS

MEANT = {"/token": "value", "/v1/realtime/client_secrets": "value", "/demo/issue": "token"}
"""The answers that hold a credential, for whoever asked; and where in them."""
NOT_OURS = "/_emulator/"  # what the emulator was sent, told to tests


@contextmanager
def overheard() -> Iterator[None]:
    """Within the block every answer that arrives over a network is scanned."""
    straight, straight_async = httpx.Client.send, httpx.AsyncClient.send

    def send(self: httpx.Client, *args: Any, **options: Any) -> httpx.Response:
        response = straight(self, *args, **options)
        if response.is_closed:  # its body has been read
            hear(response)
        return response

    async def send_async(self: httpx.AsyncClient, *args: Any, **options: Any) -> httpx.Response:
        response = await straight_async(self, *args, **options)
        if response.is_closed and not isinstance(self._transport, httpx.ASGITransport):  # that one hears by itself
            hear(response)
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.Client, "send", send)
        patch.setattr(httpx.AsyncClient, "send", send_async)
        yield


def hear(response: httpx.Response) -> None:
    """One answer; a credential in it is pardoned in it, and nowhere else."""
    path = response.request.url.path
    if path.startswith(NOT_OURS):
        return
    place = f"answer {response.request.method} {path} {response.headers.get('x-request-id')}"
    LEAKS.saw(place, f"{response.status_code} {response.headers.raw!r} {response.text}")
    if path in MEANT and response.status_code == 200:
        LEAKS.handed_out(place, json.loads(response.text)[MEANT[path]])
