"""OpenAI's SDKs as they are published, for Python and for Node, told what to do and asked what came of it."""

import importlib.util
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import openai

from tests.e2e.site import EXAMPLES, FOR_NODE, built

Outcome = dict[str, Any]
"""`gave`: what the package returned. Or `threw`: the name of its exception's class, and what stands in it."""


def loaded(example: str) -> Any:
    """An example in Python as a module, by its path: the examples are no package."""
    spec = importlib.util.spec_from_file_location(Path(example).stem, EXAMPLES / example)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Sdk(Protocol):
    """One of the packages, in one process."""

    def ask(self, operation: str, url: str, token: str, **rest: Any) -> Outcome:
        """Have it do something with a fresh client, which has the package's own settings.

        Args:
            operation: `create_secret`, `create_translation`, `create_call`, `hang_up`, `open_by_example` or
                `hang_up_by_example`.
            url: of the service, without `/v1`.
            token: the client's `api_key`.
            rest: `body`, `query`, `offer`, `call_id`, as the operation needs them; `timeout` of the client, in seconds.
        """


class Python:
    """`openai` in this process."""

    def __init__(self) -> None:
        self._example = loaded("openai/call.py")

    def ask(self, operation: str, url: str, token: str, **rest: Any) -> Outcome:
        try:
            return {"gave": getattr(self, f"_{operation}")(url, token, **rest)}
        except openai.APIStatusError as error:
            names = ("code", "param", "type", "message", "request_id", "body")
            fields = {name: getattr(error, name) for name in names}
            return {"threw": type(error).__name__, "status": error.status_code, **fields}
        except openai.APIError as error:
            return {"threw": type(error).__name__, "message": str(error)}

    def _create_secret(self, url: str, token: str, *, body: Any = None, query: Any = None) -> Any:
        with _client(url, token) as client:
            secret = client.realtime.client_secrets.create(**(body or {}), extra_query=query)
        return secret.model_dump(exclude_unset=True)

    def _create_translation(self, url: str, token: str, *, body: Any) -> Any:
        with _client(url, token) as client:
            secret = client.realtime.translations.client_secrets.create(**body)
        return secret.model_dump(exclude_unset=True)

    def _create_call(self, url: str, token: str, *, body: Any, query: Any = None, timeout: float | None = None) -> Any:
        with _client(url, token, **({"timeout": timeout} if timeout else {})) as client:
            answer = client.realtime.calls.create(**body, extra_query=query)
            return {"location": answer.response.headers["location"], "answer": answer.text}

    def _hang_up(self, url: str, token: str, *, call_id: str) -> Any:
        with _client(url, token) as client:
            return client.realtime.calls.hangup(call_id)

    def _open_by_example(self, url: str, token: str, *, offer: str) -> Any:
        call_id, answer = self._example.open_call(url, token, offer)
        return {"call_id": call_id, "answer": answer}

    def _hang_up_by_example(self, url: str, token: str, *, call_id: str) -> Any:
        return self._example.hang_up(url, token, call_id)


def _client(url: str, token: str, **settings: Any) -> openai.OpenAI:
    """To be closed: left to the collector of garbage, its connections would be complained of in some later test."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key=token, **settings)


@dataclass
class Node:
    """`openai` in a process of Node, which reads a line for each operation."""

    process: subprocess.Popen[str]

    def ask(self, operation: str, url: str, token: str, **rest: Any) -> Outcome:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        asked = {"operation": operation, "url": url, "token": token, **rest}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        outcome: Outcome = json.loads(self.process.stdout.readline())
        return outcome


@contextmanager
def node(folder: Path) -> Iterator[Node]:
    """The process, for as long as the block; it has to end well.

    Args:
        folder: takes the script.
    """
    script = folder / "openai.mjs"
    script.write_bytes(built(Path(__file__).with_name("clients") / "openai.js", FOR_NODE))
    with subprocess.Popen(
        ["node", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Node(process)
            _, complaints = process.communicate(timeout=10)
        finally:
            process.kill()
    assert (process.returncode, complaints) == (0, "")
