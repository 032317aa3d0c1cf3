// The shape of the provider's sample server: no caller is verified, limited or recorded; one fetch, its JSON sent on.
// node server.js PORT PROVIDER
import express from "express";

const [port, provider] = process.argv.slice(2);
const apiKey = process.env.OPENAI_API_KEY;
const sessionConfig = JSON.stringify({
  session: { type: "realtime", model: "gpt-realtime-2.1", audio: { output: { voice: "marin" } } },
});
const app = express();

app.get("/token", async (request, response) => {
  try {
    const answer = await fetch(`${provider}/v1/realtime/client_secrets`, {
      method: "POST",
      headers: { Authorization: `Bearer ${apiKey}`, "Content-Type": "application/json" },
      body: sessionConfig,
    });
    response.json(await answer.json());
  } catch (error) {
    console.error("Token generation error:", error);
    response.status(500).json({ error: "Failed to generate token" });
  }
});

app.get("/healthz", (request, response) => response.json({ status: "ok" }));

app.listen(Number(port), "127.0.0.1");
