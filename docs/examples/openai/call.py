from openai import OpenAI


def open_call(switchboard: str, user_token: str, offer: str) -> tuple[str, str]:
    """Opens a call with a peer connection's offer: its id, and the answer for that connection."""
    with OpenAI(
        base_url=f"{switchboard}/v1",  # 1. instead of OpenAI's
        api_key=user_token,  # 2. the JWT of your own login, or a grant; no key of OpenAI's
    ) as client:
        session = {"type": "realtime", "model": "support"}  # 3. the preset's name, and what it lets a caller change
        answer = client.realtime.calls.create(sdp=offer, session=session)
        return answer.response.headers["location"].rpartition("/")[2], answer.text


def hang_up(switchboard: str, user_token: str, call_id: str) -> None:
    with OpenAI(base_url=f"{switchboard}/v1", api_key=user_token) as client:
        client.realtime.calls.hangup(call_id)
