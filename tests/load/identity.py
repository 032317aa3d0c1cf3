"""An identity provider for the load test: who signs in gets a JWT (RS256), and anybody gets its key set.

`python -m tests.load.identity PORT`.
"""

import sys
import time

import jwt
import orjson
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support import keys

ISSUER = "https://login.load.example/"
KEY_ID = "load-1"
LIFETIME_SECONDS = 600


def app() -> Starlette:
    """Its two routes."""
    key = rsa.generate_private_key(65537, 2048)
    key_set = orjson.dumps({"keys": [keys.jwk(key, KEY_ID, use="sig", alg="RS256")]})

    async def login(request: Request) -> Response:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": keys.AUDIENCE,
            "sub": request.query_params["user"],
            "org_id": "shop",
            "name": "Load",
            "iat": now,
            "exp": now + LIFETIME_SECONDS,
        }
        token = jwt.encode(claims, key, "RS256", headers={"kid": KEY_ID})
        return Response(orjson.dumps({"token": token}), media_type="application/json")

    async def jwks(_: Request) -> Response:
        return Response(key_set, media_type="application/json")

    return Starlette(routes=[Route("/login", login, methods=["POST"]), Route("/jwks.json", jwks)])


if __name__ == "__main__":
    uvicorn.run(app(), port=int(sys.argv[1]), log_config=None, access_log=False)
