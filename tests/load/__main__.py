"""Users as they behave, against the service as it is deployed: Locust, headless, with a report in HTML.

It starts Redis, the provider emulator, an identity provider and `switchboard serve` with several workers.
Exit code 1 if a threshold of tests/load/locustfile.py is broken, 2 if something cannot run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.load.identity import ISSUER
from tests.prove.service import ground, policy, say_on_stderr, tenant
from tests.support.process import free_ports
from tests.support.world import PUBLIC_URL

ROOT = Path(__file__).parents[2]
LOCUST = ROOT / ".venv" / "load" / "bin" / "locust"  # a virtual environment of its own; scripts/setup makes it
FILE = Path(__file__).with_name("locustfile.py")
OFFER = ROOT / "service/switchboard/data/sample-offer.sdp"
REPORT = ROOT / "build" / "load.html"


def main() -> int:
    """The command line; gives the exit code."""
    chosen = _parser().parse_args()
    if not LOCUST.exists():
        print("load: Locust is not set up: run it by `make load`, or `scripts/setup load` before", file=sys.stderr)
        return 2
    (identity_port,) = free_ports(1)
    identity = f"http://127.0.0.1:{identity_port}"
    command = [sys.executable, "-m", "tests.load.identity", str(identity_port)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, cwd=ROOT) as signing,
        ground(_policy(f"{identity}/jwks.json")) as place,
    ):
        try:
            replica = place.add(workers=str(chosen.workers), public_url=PUBLIC_URL, audit=f"file:{folder}/audit.jsonl")
            (port,) = place.start()
            say_on_stderr(f"{chosen.users} users, {chosen.seconds} s, {chosen.workers} workers")
            code = _locust(chosen, port=port, identity=identity)
            say_on_stderr(f"report: {chosen.html}")
            lines = [line for line in replica.log.splitlines() if '"error"' in line]
        finally:
            signing.terminate()
    for line in lines[:10]:
        print(f"LOG  {line}", file=sys.stderr)
    return 1 if lines else code


def _policy(jwks_url: str) -> dict[str, object]:
    """A shop whose users have one call each, and may ask as often as a person can."""
    limits = {"user": ["120/minute"], "tenant": ["1000000/minute"], "open_calls": {"user": 1}, "call_seconds": 300}
    shop = tenant(origins=["https://app.load.example"], limits=limits)
    talk = shop["presets"].pop("talk")
    shop["presets"] = {"relayed": talk, "direct": {**talk, "delivery": "direct"}}
    shop["default_preset"] = "relayed"
    found = policy(shop=shop)
    found["issuers"] = [
        {
            "issuer": ISSUER,
            "audience": "switchboard",
            "jwks_url": jwks_url,
            "algorithms": ["RS256"],
            "tenant_claim": "org_id",
            "tenants": "any",
        }
    ]
    return found


def _locust(chosen: argparse.Namespace, *, port: int, identity: str) -> int:
    chosen.html.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(str(LOCUST), "--locustfile", str(FILE), "--headless", "--host", f"http://127.0.0.1:{port}"),
        *("--processes", str(chosen.generators), "--html", str(chosen.html), "--only-summary"),
        *("--stop-timeout", "20", "--exit-code-on-error", "0"),
    ]
    wanted = {
        "LOAD_IDENTITY": identity,
        "LOAD_OFFER": str(OFFER),
        "LOAD_USERS": str(chosen.users),
        "LOAD_SECONDS": str(chosen.seconds),
    }
    return subprocess.run(
        command, env={**os.environ, **wanted}, check=False, cwd=ROOT, timeout=chosen.seconds + 120
    ).returncode


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--users", type=int, default=200, metavar="N", help="of the bursts; a quarter of them between (200)")
    add("--seconds", type=int, default=90, metavar="N", help="of the whole run (90)")
    add("--workers", type=int, default=2, metavar="N", help="processes of the service (2)")
    add("--generators", type=int, default=2, metavar="N", help="processes of Locust (2)")
    add("--html", type=Path, default=REPORT, metavar="FILE", help="where the report goes (build/load.html)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
