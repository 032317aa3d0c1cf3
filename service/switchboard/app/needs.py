"""What `serve` cannot start without, said all at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from switchboard.settings import Settings


class CannotServe(Exception):
    """The settings lack what this configuration needs; the message says what."""


@dataclass(frozen=True, slots=True)
class Needed:
    """The settings that have no default, present."""

    public_url: str
    signing_keys: Sequence[bytes]
    user_key_secret: bytes


def needed_of(settings: Settings) -> Needed:
    """The needed settings.

    Raises:
        CannotServe: some are missing; all of them are named.
    """
    missing = []
    if settings.public_url is None:
        missing.append("SWITCHBOARD_PUBLIC_URL: where frontends reach this service, like https://voice.example.com")
    if not settings.signing_keys:
        missing.append("SWITCHBOARD_SIGNING_KEYS (or …_FILE): secrets for grants, 32 characters or more each")
    if settings.user_key_secret is None:
        missing.append("SWITCHBOARD_USER_KEY_SECRET (or …_FILE): a secret of 32 characters or more, never changed")
    if settings.public_url is None or settings.user_key_secret is None or missing:
        raise CannotServe("\n".join(missing))
    return Needed(
        settings.public_url,
        [key.get_secret_value().encode() for key in settings.signing_keys],
        settings.user_key_secret.get_secret_value().encode(),
    )
