"""The paths of the retired beta, for frontends that were written for it: POST /v1/realtime/sessions, its sibling for
transcriptions, and POST /v1/realtime?model=. What is said on the data channel is the provider's, as today.

Sources: the upstream page, section 5; openai-python 3.52.0, `types/beta/realtime/{,transcription_}session_create_*.py`.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from switchboard.broker import Broker, Credential, Offer, Wish
from switchboard.endpoints import BETA_CALLS, OPENAI_CALLS, SPEECH, resource
from switchboard.endpoints.minting import ExpiresAfter, minting
from switchboard.endpoints.offering import offering, read_offer
from switchboard.endpoints.reading import Strict, gone, parse_model, read_json, single_query
from switchboard.sessions import translated

PATHS = {"realtime": "/v1/realtime/sessions", "transcription": "/v1/realtime/transcription_sessions"}
OBJECTS = {"realtime": "realtime.session", "transcription": "realtime.transcription_session"}


class LifetimeRequest(Strict):
    """`client_secret` of a flat session: how long it may live, under either of the two names that the beta had."""

    expires_after: ExpiresAfter | None = None
    expires_at: ExpiresAfter | None = None


class FlatRequest(Strict):
    """What of a flat session is no field of a session."""

    client_secret: LifetimeRequest = LifetimeRequest()


def routes(broker: Broker, *, base_path: str = "") -> list[Route]:
    """The routes of this module.

    Args:
        broker: does the work.
        base_path: where this service's root is below its public host, for `Location`.
    """
    return [
        *(
            resource(path, POST=minting(broker, partial(_wish, kind=kind), partial(_flat, kind=kind)))
            for kind, path in PATHS.items()
        ),
        resource(BETA_CALLS, POST=offering(broker, _offer, below=f"{base_path}{OPENAI_CALLS}")),
    ]


async def _wish(request: Request, *, kind: str) -> Wish:
    flat = await read_json(request)
    rest = parse_model(FlatRequest, {"client_secret": flat.pop("client_secret")} if "client_secret" in flat else {})
    lifetime = rest.client_secret.expires_after or rest.client_secret.expires_at
    session, outdated = translated(flat)
    return Wish(
        preset=single_query(request, "preset"),
        session=session,
        types=frozenset({kind}),
        outdated=outdated,
        seconds=lifetime.seconds if lifetime else None,
        caller_gone=gone(request),
    )


async def _offer(request: Request) -> Offer:
    """An offer, and in the query a model, which names a preset or says what the preset or grant says already."""
    model = single_query(request, "model")
    session, outdated = translated({} if model is None else {"model": model})
    offer = await read_offer(request, types=SPEECH)
    return replace(offer, session={**offer.session, **session}, outdated=outdated)


def _flat(credential: Credential, *, kind: str) -> dict[str, Any]:
    """Flat, as the beta said it, with the secret where it stood then and where it stands today."""
    session = {name: credential.session[name] for name in ("id", "model") if name in credential.session}
    voice = credential.session.get("audio", {}).get("output", {}).get("voice")
    return {
        **session,
        "object": OBJECTS[kind],
        **({} if voice is None else {"voice": voice}),
        "client_secret": {"value": credential.value, "expires_at": credential.expires_at},
        "value": credential.value,
        "expires_at": credential.expires_at,
        "calls_url": credential.calls_url,
    }
