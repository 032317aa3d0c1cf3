import pytest

from switchboard.ledger import connection


@pytest.fixture
def patient(monkeypatch):
    """Redis may take its time, on a machine that may have other things to do: times are not what is tested."""
    monkeypatch.setattr(connection, "SOCKET_SECONDS", 10.0)
