"""What `serve` cannot start without, said all at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from switchboard.settings import Settings


class CannotServe(Exception):
    """The settings lack what this configuration needs; the message says what."""


@dataclass(frozen=True, slots=True)
class Needed:
    """The settings that have no default, present."""

    public_url: str
    signing_keys: Sequence[bytes]
    user_key_secret: bytes
    audit_key: bytes | None
    """None: the records are not chained."""


def needed_of(settings: Settings) -> Needed:
    """The needed settings.

    Raises:
        CannotServe: some are missing, or contradict each other; all of them are named.
    """
    missing = []
    if settings.public_url is None:
        missing.append("SWITCHBOARD_PUBLIC_URL: where frontends reach this service, like https://voice.example.com")
    if not settings.signing_keys:
        missing.append("SWITCHBOARD_SIGNING_KEYS (or …_FILE): secrets for grants, 32 characters or more each")
    if settings.user_key_secret is None:
        missing.append("SWITCHBOARD_USER_KEY_SECRET (or …_FILE): a secret of 32 characters or more, never changed")
    if settings.audit_key is None:
        missing.append(
            "SWITCHBOARD_AUDIT_KEY (or …_FILE): a secret of 32 characters or more that chains the records of the audit,"
            " or the word none"
        )
    if settings.audit_fsync and settings.audit == "stdout":
        missing.append("SWITCHBOARD_AUDIT_FSYNC: needs a file, SWITCHBOARD_AUDIT=file:PATH")
    if settings.audit_anchors == "redis" and settings.redis_url is None:
        missing.append("SWITCHBOARD_AUDIT_ANCHORS: redis needs SWITCHBOARD_REDIS_URL")
    if settings.workers > 1 and settings.redis_url is None:
        missing.append(
            "SWITCHBOARD_REDIS_URL: needed by more than one worker; without Redis each would count quotas, used grants"
            " and calls for itself"
        )
    if settings.public_url is None or settings.user_key_secret is None or missing:
        raise CannotServe("\n".join(missing))
    return Needed(
        settings.public_url,
        [key.get_secret_value().encode() for key in settings.signing_keys],
        settings.user_key_secret.get_secret_value().encode(),
        settings.audit_key.get_secret_value().encode() if isinstance(settings.audit_key, SecretStr) else None,
    )
