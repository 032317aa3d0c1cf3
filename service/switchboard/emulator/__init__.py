"""The provider as a program: real answers, real errors and real WebRTC for `switchboard dev`, tests and load.

It behaves as the upstream page, section 10, says. `create_app` builds an ASGI app; nothing here is a mock.
"""

from switchboard.emulator.app import MediaUnavailableError, create_app
from switchboard.emulator.options import Faults, Options
from switchboard.emulator.state import Emulator, SeenRequest

__all__ = ["Emulator", "Faults", "MediaUnavailableError", "Options", "SeenRequest", "create_app"]
