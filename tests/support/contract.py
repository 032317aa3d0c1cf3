"""The contract, held against real answers: `check` fails unless openapi.yaml describes the answer."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import ryaml
from jsonschema import Draft202012Validator

DOCUMENT: Mapping[str, Any] = ryaml.loads((Path(__file__).parents[2] / "openapi.yaml").read_text(encoding="utf-8"))
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
OPERATIONS: Mapping[str, tuple[str, str]] = {
    operation["operationId"]: (method.upper(), path)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method in METHODS
}
"""Method and path template by operation id."""


def check(method: str, path_template: str, response: httpx.Response) -> None:
    """Hold an answer against the contract: status, headers, media type and body.

    Args:
        method: of the request.
        path_template: as in the contract; one that it does not have stands for any unknown path.
        response: a real one, its body read.
    """
    described = _described(method, path_template, response.status_code)
    _check_headers(described.get("headers", {}), response)
    _check_body(described.get("content", {}), response)


def resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node itself, or what its `$ref` leads to."""
    while "$ref" in node:
        target: Any = DOCUMENT
        for name in node["$ref"].removeprefix("#/").split("/"):
            target = target[name.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def mistakes(schema: Mapping[str, Any], value: Any) -> list[str]:
    """What about the value does not fit the schema."""
    whole = {**schema, "components": DOCUMENT["components"]}  # so that `#/components/…` leads somewhere
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(whole).iter_errors(value)]


def refusals(operation_id: str) -> Iterator[tuple[int, str]]:
    """Status and code of every refusal that an operation can give."""
    method, path = OPERATIONS[operation_id]
    for status, response in DOCUMENT["paths"][path][method.lower()]["responses"].items():
        problem = resolved(response).get("content", {}).get("application/problem+json")
        if problem is not None:
            code = problem["schema"]["properties"]["code"]
            yield from ((int(status), name) for name in code.get("enum") or [code["const"]])


def _described(method: str, path: str, status: int) -> Mapping[str, Any]:
    item = DOCUMENT["paths"].get(path)
    if item is None:
        responses = {"404": DOCUMENT["x-elsewhere"]["path"]}
    elif method.lower() not in item:
        responses = {"405": DOCUMENT["x-elsewhere"]["method"]}
    else:
        responses = item[method.lower()]["responses"]
    assert str(status) in responses, f"{method} {path}: {status} is not in the contract"
    return resolved(responses[str(status)])


def _check_headers(described: Mapping[str, Any], response: httpx.Response) -> None:
    for name, reference in described.items():
        header = resolved(reference)
        value = response.headers.get(name)
        if value is None:
            assert not header.get("required", False), f"{name} is missing"
            continue
        schema = resolved(header["schema"])
        is_number = schema.get("type") == "integer" or isinstance(schema.get("const"), int)
        assert mistakes(schema, int(value) if is_number else value) == [], f"{name}: {value}"
    names = {name.lower() for name in described}
    # CORS goes with the Origin of the request, not with the operation.
    undescribed = {
        name for name in response.headers if name in _known_headers() - names and not name.startswith("access-control-")
    }
    assert undescribed == set(), f"headers that the contract does not give to this answer: {undescribed}"


def _known_headers() -> set[str]:
    return {name.lower() for name in DOCUMENT["components"]["headers"]}


def _check_body(described: Mapping[str, Any], response: httpx.Response) -> None:
    if not described:
        assert response.content == b""
        return
    media_type = response.headers.get("content-type", "").partition(";")[0]
    assert media_type in described, f"{media_type} is not one of {list(described)}"
    body: Any = response.json() if media_type.endswith("json") else response.text
    if media_type == "application/yaml":
        body = ryaml.loads(body)
    assert mistakes(described[media_type]["schema"], body) == []
    if media_type == "application/problem+json":
        _check_problem(body, response)


def _check_problem(problem: Mapping[str, Any], response: httpx.Response) -> None:
    """What a schema cannot say: the parts of a problem agree."""
    known = DOCUMENT["x-problem-codes"][problem["code"]]
    assert (problem["status"], problem["title"]) == (response.status_code, known["title"])
    assert known["status"] == response.status_code
    kind = "quota-exceeded" if "violated-policies" in problem else problem["code"]
    assert problem["type"].replace("#", ":").rpartition(":")[2] == kind
    assert problem["code"] == problem["error"]["code"]
    assert problem["detail"] == problem["error"]["message"]
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["instance"] == f"urn:switchboard:request:{problem['request_id']}"
