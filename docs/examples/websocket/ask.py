from openai import OpenAI


def ask(switchboard: str, provider: str, user_token: str, question: str) -> str:
    """Asks in text: by a client secret from Switchboard, over a WebSocket that goes straight to the provider."""
    with OpenAI(base_url=f"{switchboard}/v1", api_key=user_token) as here:  # 1. the JWT of your own login
        minted = here.realtime.client_secrets.create()
    with (
        OpenAI(base_url=provider, api_key=minted.value) as there,  # 2. the secret in place of a key
        there.realtime.connect(model=minted.session.model) as connection,  # 3. the model of the preset
    ):
        connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        content = [{"type": "input_text", "text": question}]
        connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        connection.response.create()
        for event in connection:
            if event.type == "error":
                raise ConnectionError(event.error.message)
            if event.type == "response.output_text.done":
                return event.text
    raise ConnectionError("the provider has closed the session")
