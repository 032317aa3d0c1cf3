# ruff: noqa: INP001 - run as a file
"""Whether the service in this container takes work: exit code 0 or 1. The image has no curl, and needs none.

python healthcheck.py [PORT [PATH]]
"""

import http.client
import os
import sys

SECONDS = 2.0


def healthy(port: int, path: str) -> bool:
    """Whether 127.0.0.1 answers 200 there; asked without a proxy, whatever the environment says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    asked = dict(enumerate(sys.argv[1:]))
    sys.exit(not healthy(int(asked.get(0) or os.environ.get("SWITCHBOARD_PORT") or 8080), asked.get(1, "/readyz")))
