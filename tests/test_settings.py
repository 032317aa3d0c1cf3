import pytest
from pydantic import ValidationError

from switchboard.settings import Settings

LONG = "a-secret-of-more-than-32-characters-01"


def test_defaults(monkeypatch):
    made = Settings()
    assert (made.port, made.ops_host, made.ops_port, made.signing_keys) == (8080, "127.0.0.1", 9090, ())


def test_from_the_environment(monkeypatch):
    monkeypatch.setenv("SWITCHBOARD_PORT", "9999")
    monkeypatch.setenv("SWITCHBOARD_PUBLIC_URL", "https://voice.example.com/base")
    monkeypatch.setenv("SWITCHBOARD_SIGNING_KEYS", f"{LONG}, {LONG}2 ,")
    monkeypatch.setenv("SWITCHBOARD_USER_KEY_SECRET", LONG)
    monkeypatch.setenv("SWITCHBOARD_LOG_LEVEL", "")
    made = Settings()
    assert (made.port, made.log_level) == (9999, "info")
    assert [key.get_secret_value() for key in made.signing_keys] == [LONG, f"{LONG}2"]
    assert LONG not in repr(made)


def test_secrets_as_files(monkeypatch, tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"{LONG},{LONG}2\n")
    monkeypatch.setenv("SWITCHBOARD_SIGNING_KEYS_FILE", str(file))
    monkeypatch.setenv("SWITCHBOARD_USER_KEY_SECRET_FILE", str(file))
    made = Settings()
    assert [key.get_secret_value() for key in made.signing_keys] == [LONG, f"{LONG}2"]
    assert made.user_key_secret is not None


def test_the_admin_token_as_a_file(monkeypatch, tmp_path):
    assert Settings().admin_token is None
    file = tmp_path / "token"
    file.write_text(f"{LONG}\n")
    monkeypatch.setenv("SWITCHBOARD_ADMIN_TOKEN_FILE", str(file))
    made = Settings()
    assert made.admin_token is not None
    assert made.admin_token.get_secret_value() == LONG
    assert LONG not in repr(made)


def test_a_secret_file_that_is_not_there(monkeypatch):
    monkeypatch.setenv("SWITCHBOARD_USER_KEY_SECRET_FILE", "/nowhere/at/all")
    with pytest.raises(ValueError, match="SWITCHBOARD_USER_KEY_SECRET_FILE: /nowhere/at/all cannot be read"):
        Settings()


def test_only_secrets_come_as_files(monkeypatch, tmp_path):
    file = tmp_path / "port"
    file.write_text("1234")
    monkeypatch.setenv("SWITCHBOARD_PORT_FILE", str(file))
    assert Settings().port == 8080


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "x"),
        ("PUBLIC_URL", "voice.example.com"),
        ("PUBLIC_URL", "https://voice.example.com?x=1"),
        ("USER_KEY_SECRET", "short"),
        ("SIGNING_KEYS", f"{LONG},short"),
        ("ADMIN_TOKEN", "short"),
        ("ADMIN_TOKEN", f"{LONG} {LONG}"),
        ("ADMIN_TOKEN", f"{LONG}é"),
        ("AUDIT", "syslog"),
        ("AUDIT", "file:"),
        ("AUDIT", "/var/log/audit.jsonl"),
        ("AUDIT_KEY", "short"),
        ("AUDIT_KEY", "None"),
        ("AUDIT_CLIENT_IP", "some"),
        ("AUDIT_ROTATE_BYTES", "-1"),
        ("AUDIT_ANCHORS", "stdout"),
        ("AUDIT_ANCHORS", "redis://host"),
        ("LOG_LEVEL", "loud"),
        ("PROVIDER_TIMEOUT", "0"),
        ("DRAIN_SECONDS", "-1"),
        ("TRUSTED_PROXIES", "proxy.example.com"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "0.0.0.0/0"),
        ("TRUSTED_PROXIES", "10.0.0.0/8, ::/0"),
        ("EDGE_EXEMPT", "10.0.0.0/33"),
        ("EDGE_LIMIT", "300"),
        ("EDGE_LIMIT", "300/fortnight"),
        ("EDGE_LIMIT", "0/minute"),
        ("EDGE_LIMIT", "20/second;-1/minute"),
        ("EDGE_LIMIT", "20/second;1000/2 days"),
    ],
)
def test_wrong_values(monkeypatch, name, value):
    monkeypatch.setenv(f"SWITCHBOARD_{name}", value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert f"input_value={value!r}" not in str(refused.value)


def test_a_dotenv_file_is_never_read(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("SWITCHBOARD_PORT=1234\n")
    monkeypatch.chdir(tmp_path)
    assert Settings().port == 8080


def test_the_edge(monkeypatch):
    assert (Settings().trusted_proxies, Settings().edge_limit, Settings().edge_exempt) == ((), "300/minute", ())
    monkeypatch.setenv("SWITCHBOARD_TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.7, fd00::/8")
    monkeypatch.setenv("SWITCHBOARD_EDGE_LIMIT", "20/second; 300 per minute;5000/day")
    monkeypatch.setenv("SWITCHBOARD_EDGE_EXEMPT", "0.0.0.0/0,::/0")
    made = Settings()
    assert [str(one) for one in made.trusted_proxies] == ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"]
    assert [str(one) for one in made.edge_exempt] == ["0.0.0.0/0", "::/0"]
    assert made.edge_limit == "20/second; 300 per minute;5000/day"


def test_the_audit(monkeypatch, tmp_path):
    made = Settings()
    assert (made.audit, made.audit_fsync, made.audit_key, made.audit_anchors) == ("stdout", False, None, None)
    monkeypatch.setenv("SWITCHBOARD_AUDIT", "file:/var/log/audit.jsonl")
    monkeypatch.setenv("SWITCHBOARD_AUDIT_FSYNC", "1")
    monkeypatch.setenv("SWITCHBOARD_AUDIT_KEY", "none")
    monkeypatch.setenv("SWITCHBOARD_AUDIT_ANCHORS", "file:/mnt/anchors")
    made = Settings()
    assert (made.audit, made.audit_fsync) == ("file:/var/log/audit.jsonl", True)
    assert (made.audit_key, made.audit_anchors) == ("none", "file:/mnt/anchors")
    monkeypatch.delenv("SWITCHBOARD_AUDIT_KEY")
    file = tmp_path / "key"
    for content, wanted in ((LONG, LONG), ("none\n", "none")):
        file.write_text(content)
        monkeypatch.setenv("SWITCHBOARD_AUDIT_KEY_FILE", str(file))
        key = Settings().audit_key
        assert (key if key == "none" or key is None else key.get_secret_value()) == wanted
        assert LONG not in repr(Settings())
