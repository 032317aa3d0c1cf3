import pytest

from switchboard.ledger import connection


@pytest.fixture
def patient(monkeypatch):
    """Redis may take its time, on a machine that may have other things to do: times are not what is tested."""
    for name in ("SOCKET_SECONDS", "LONE_SOCKET_SECONDS"):
        monkeypatch.setattr(connection, name, 10.0)
