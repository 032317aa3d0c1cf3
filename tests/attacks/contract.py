"""The whole of openapi.yaml against the service: schemathesis asks, over a socket, what our generators made valid."""

import asyncio
import copy
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.attacks.door import open_door
from tests.support import keys
from tests.support import world as worlds

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
NO_QUOTA = ["1000000/minute"]


@dataclass
class Outcome:
    """What schemathesis found, and which answers it got: their number by method, route and status."""

    code: int
    output: str
    answers: dict[tuple[str, str, str], int] = field(default_factory=dict)

    @property
    def cases(self) -> int:
        """How many requests it made up."""
        found = re.search(r"(\d+) generated", self.output)
        return int(found[1]) if found else 0


def policy() -> dict[str, Any]:
    """The example without quotas: they would refuse everything after the first ten requests."""
    tree = copy.deepcopy(worlds.example())
    translation = {"type": "translation", "model": "gpt-realtime-translate"}
    tree["tenants"]["acme"]["presets"] |= {
        "captions": {**tree["tenants"]["widgets"]["presets"]["captions"], "delivery": "relay"},
        "interpreter": {"delivery": "relay", "session": translation},
    }
    for tenant in tree["tenants"].values():
        tenant["limits"] = {"user": NO_QUOTA, "tenant": NO_QUOTA, "call_seconds": 900}
        tenant.pop("limits_by", None)
    return tree


def _key_in(folder: Path) -> Path:
    """The key that the world's issuer signs with, as a file."""
    file = folder / "key.pem"
    file.write_bytes(keys.private_key("RSA").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return file


async def run(*, seed: int, examples: int, **settings: Any) -> Outcome:
    """Ask everything.

    Args:
        seed: the same one makes up the same requests.
        examples: of each operation, in the phases that are random.
        settings: of the service.
    """
    async with worlds.world(policy(), edge_exempt="0.0.0.0/0", **settings) as world, open_door(world) as door:
        with tempfile.TemporaryDirectory() as folder:
            key = _key_in(Path(folder))
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", HERE / "schemathesis.toml", "run"),
                *("--url", f"http://{door.host}:{door.port}", "--seed", str(seed), "--max-examples", str(examples)),
                ROOT / "openapi.yaml",
                cwd=folder,  # it leaves files behind
                env={
                    "ATTACKS_KEY": str(key),
                    "SCHEMATHESIS_HOOKS": str(HERE / "hooks.py"),
                    "PYTHONPATH": f"{ROOT / 'service'}:{ROOT}",
                    "PYTHONUTF8": "1",
                    "NO_COLOR": "1",
                },
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
        metrics = (await world.ops.get("/metrics")).text
    counted = re.finditer(
        r'^switchboard_http_request_duration_seconds_count\{method="(\w+)",route="([^"]+)",status="(\d+)"\} ([\d.]+)$',
        metrics,
        re.MULTILINE,
    )
    answers = {(one[1], one[2], one[3]): int(float(one[4])) for one in counted}
    return Outcome(process.returncode or 0, output.decode(errors="replace"), answers)
