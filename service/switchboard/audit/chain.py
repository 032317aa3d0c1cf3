"""The chain: each record holds the hash of the one before, so that none can be changed or left out unnoticed.

A line is the record's JSON with four more fields at its end:

    {…,"chain":"<24 hex>","seq":<from 1>,"prev":"<64 hex>","hash":"<64 hex>"}

`hash` is HMAC-SHA256 over the bytes of the line before `,"hash":`, as they are written; so nothing has to be serialised
again to verify it, and any tool can: `openssl dgst -sha256 -hmac KEY`. `prev` is the hash of the record before it, and
zeros for the first. A chain is one run of one process: it opens with `audit.open` and ends with `audit.close`.
"""

import hmac
from dataclasses import dataclass
from typing import Any

import orjson

from switchboard.audit.event import new_id, utc_text

CHAINED = ("chain", "seq", "prev", "hash")
OPENING, REOPENING, RESUMING, CLOSING = "audit.open", "audit.reopen", "audit.resume", "audit.close"
ENDING = b',"hash":"%b"}'  # of a line, which its hash does not cover
# Where things stand in a line, counted from its end: what is hashed, the ending, and in the first the hash before.
BODY = slice(-75)
END = slice(-75, None)
PREV = slice(-140, -76)


@dataclass(frozen=True, slots=True)
class Link:
    """Where a chain stands: its last record's number and hash."""

    seq: int = 0
    hash: bytes = b"0" * 64


class Mac:
    """HMAC-SHA256 with one key, as 64 hex characters."""

    def __init__(self, key: bytes) -> None:
        self._keyed = hmac.new(key, digestmod="sha256")

    def of(self, body: bytes) -> bytes:
        """The hash of one record's bytes."""
        mac = self._keyed.copy()  # the key is hashed once, not for each record
        mac.update(body)
        return mac.hexdigest().encode()


class Chain:
    """Seals the records of one process."""

    def __init__(self, key: bytes) -> None:
        self.id = new_id()
        self._mac = Mac(key)

    def seal(self, record: bytes, after: Link) -> tuple[bytes, Link]:
        """A record's line, and where the chain stands with it.

        Args:
            record: a JSON object with at least one field.
            after: where the chain stood before.
        """
        seq = after.seq + 1
        body = b'%b,"chain":"%b","seq":%d,"prev":"%b"' % (record[:-1], self.id.encode(), seq, after.hash)
        mac = self._mac.of(body)
        return body + ENDING % mac + b"\n", Link(seq, mac)


def own_record(action: str, **told: Any) -> bytes:
    """A record of the audit about itself; no decision."""
    return orjson.dumps({"time": utc_text(), "id": new_id(), "action": action, **told})
