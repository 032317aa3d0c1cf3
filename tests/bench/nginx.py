"""nginx in two parts: the provider that is never the bottleneck, and the gateway that is the practical ceiling."""

import time
from pathlib import Path

import orjson

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv" / "nginx"  # scripts/setup unpacks it here, because its package would start a service on port 80
BINARY = FOLDER / "nginx"
DELAY_SECONDS = 0.25

# What a provider's answer holds, and about as long; the fingerprint and candidates are nobody's.
ANSWER = [
    "v=0",
    "o=- 3974482201 1763640000 IN IP4 0.0.0.0",
    "s=-",
    "t=0 0",
    "a=msid-semantic:WMS *",
    "a=fingerprint:sha-256 " + ":".join(["5A"] * 32),
    "a=ice-lite",
    "a=group:BUNDLE 0 1",
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 0 8",
    "c=IN IP4 0.0.0.0",
    "a=setup:passive",
    "a=mid:0",
    "a=ice-ufrag:bEnChUfRaGbEnCh0",
    "a=ice-pwd:bEnChPwDbEnChPwDbEnChPwDbEnChPwD",
    "a=rtcp-mux",
    "a=rtcp-rsize",
    "a=rtpmap:111 opus/48000/2",
    "a=fmtp:111 minptime=10;useinbandfec=1",
    "a=rtcp-fb:111 transport-cc",
    "a=rtpmap:0 PCMU/8000",
    "a=rtpmap:8 PCMA/8000",
    "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    "a=ssrc:2882400001 cname:bench",
    "a=sendrecv",
    "a=candidate:993865896 1 udp 2130706431 192.0.2.10 3478 typ host ufrag bEnChUfRaGbEnCh0",
    "a=candidate:993865897 1 tcp 1671430143 192.0.2.10 443 typ host tcptype passive ufrag bEnChUfRaGbEnCh0",
    "a=end-of-candidates",
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
    "c=IN IP4 0.0.0.0",
    "a=setup:passive",
    "a=mid:1",
    "a=sendrecv",
    "a=sctp-port:5000",
    "a=max-message-size:1073741823",
    "a=ice-ufrag:bEnChUfRaGbEnCh0",
    "a=ice-pwd:bEnChPwDbEnChPwDbEnChPwDbEnChPwD",
    "",
]


def secret() -> bytes:
    """A provider's answer to `client_secrets`, with the session echoed and its defaults filled in."""
    return orjson.dumps(
        {
            "value": "ek_" + "b3" * 16,
            "expires_at": int(time.time()) + 7200,
            "session": {
                "type": "realtime",
                "object": "realtime.session",
                "id": "sess_bench",
                "model": "gpt-realtime-2.1",
                "output_modalities": ["audio"],
                "instructions": "You help a customer with orders. Be brief, and ask before you change anything.",
                "tools": [],
                "tool_choice": "auto",
                "max_output_tokens": "inf",
                "tracing": None,
                "truncation": "auto",
                "prompt": None,
                "expires_at": 0,
                "include": None,
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24000},
                        "transcription": None,
                        "noise_reduction": None,
                        "turn_detection": {
                            "type": "server_vad",
                            "threshold": 0.5,
                            "prefix_padding_ms": 300,
                            "silence_duration_ms": 200,
                            "idle_timeout_ms": None,
                            "create_response": True,
                            "interrupt_response": True,
                        },
                    },
                    "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1.0},
                },
            },
        }
    )


def provider(folder: Path, *, port: int, slow_port: int, key_set: bytes) -> list[str]:
    """The command of a provider: at once on one port, after 250 ms on the other; each call gets an id of its own."""
    answer = "\\r\\n".join(ANSWER)
    answers = f"""
        location = /healthz {{ return 200 ok; }}
        location = /jwks.json {{ default_type application/json; return 200 '{key_set.decode()}'; }}
        location ~ /hangup$ {{ return 200 ''; }}
        location @secret {{ default_type application/json; return 200 '{secret().decode()}'; }}
        location @answer {{
            default_type 'text/plain; charset=utf-8';
            add_header Location /v1/realtime/calls/rtc_$request_id;
            return 201 "{answer}";
        }}"""
    return _nginx(
        folder,
        f"""
    server {{
        listen 127.0.0.1:{port} backlog=16384;
        location = /v1/realtime/client_secrets {{ default_type application/json; return 200 '{secret().decode()}'; }}
        location = /v1/realtime/calls {{
            default_type 'text/plain; charset=utf-8';
            add_header Location /v1/realtime/calls/rtc_$request_id;
            return 201 "{answer}";
        }}
        {answers}
    }}
    server {{
        listen 127.0.0.1:{slow_port} backlog=16384;
        location = /v1/realtime/client_secrets {{ echo_sleep {DELAY_SECONDS}; echo_exec @secret; }}
        location = /v1/realtime/calls {{ echo_sleep {DELAY_SECONDS}; echo_exec @answer; }}
        {answers}
    }}""",
        load=f"load_module {FOLDER}/ngx_http_echo_module.so;",
    )


def gateway(folder: Path, *, port: int, provider_port: int, api_key: str) -> list[str]:
    """The command of the ceiling: one `proxy_pass` and one `limit_req` per client; it verifies and records nothing."""
    return _nginx(
        folder,
        f"""
    upstream provider {{
        server 127.0.0.1:{provider_port};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    limit_req_zone $http_x_forwarded_for zone=users:64m rate=100000r/s;
    server {{
        listen 127.0.0.1:{port} backlog=16384;
        location = /healthz {{ return 200 ok; }}
        location = /token {{
            limit_req zone=users burst=100000 nodelay;
            proxy_pass http://provider/v1/realtime/client_secrets;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_set_header Authorization 'Bearer {api_key}';
        }}
    }}""",
    )


def _nginx(folder: Path, servers: str, *, load: str = "") -> list[str]:
    """Write the configuration into a folder of its own, and give the command."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = "\n    ".join(
        f"{name}_temp_path {folder / name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"""{load}
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {folder / "pid"};
error_log stderr error;
events {{ worker_connections 32768; }}
http {{
    access_log off;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_body_buffer_size 64k;
    reset_timedout_connection on;
    {paths}
{servers}
}}
"""
    )
    return [str(BINARY), "-p", str(folder), "-c", str(file), "-e", "stderr"]
