// @ts-check
/** A call as the page watches it: its steps with their times, and its HTTP, around what switchboard.js does by itself. */

/** @typedef {import("./switchboard.js").Call} Call */
/** @typedef {"login"|"token"|"microphone"|"offer"|"answer"|"ice"|"channel"|"session"|"audio"} StepName */

/**
 * One HTTP exchange, to be shown. It never holds a credential.
 * @typedef {object} Exchange
 * @property {string} method
 * @property {string} url            absolute
 * @property {Record<string, string>} headers  as sent, without Authorization
 * @property {"token"|"grant"|null} credential  the user's own token, a secret minted from it, or none
 * @property {string|null} body
 * @property {number} status         0: there was no answer
 * @property {string} rateLimit      the answer's `RateLimit` field; empty if it had none
 * @property {number} ms
 */

/** Above the noise of a silent line. */
const AUDIBLE = 0.003;

/**
 * A fetch that tells of each exchange; of reports it does not, which go on as long as a call.
 * @param {(exchange: Exchange) => void} after
 * @param {(body: string|null) => void} [before]
 * @returns {typeof fetch}
 */
export const telling = (after, before = () => {}) => async (input, how = {}) => {
  const url = new URL(String(input), location.href).href;
  if (url.endsWith("/report")) return fetch(url, how);
  const { Authorization = "", ...headers } = /** @type {Record<string, string>} */ (how.headers ?? {});
  const body = typeof how.body === "string" ? how.body : null;
  /** @type {Exchange} */
  const exchange = { url, headers, body, method: how.method ?? "GET", credential: null, status: 0, rateLimit: "", ms: 0 };
  if (Authorization) exchange.credential = Authorization.startsWith("Bearer ek_") ? "grant" : "token";
  const began = performance.now();
  before(body);
  try {
    const answer = await fetch(url, how);
    exchange.status = answer.status;
    exchange.rateLimit = answer.headers.get("RateLimit") ?? "";
    return answer;
  } finally {
    exchange.ms = performance.now() - began;
    after(exchange);
  }
};

export class Attempt {
  /** @type {Call|null} Once it is connected. */
  call = null;
  muted = false;

  #began = performance.now();
  #giveUp = new AbortController();
  /** @type {MediaStream|null} */ #microphone = null;
  /** @type {Set<StepName>} */ #steps = new Set();
  #onStep;

  /** @param {(step: StepName, ms: number) => void} onStep */
  constructor(onStep) {
    this.#onStep = onStep;
  }

  /** Aborted when it is given up or hung up. */
  get signal() {
    return this.#giveUp.signal;
  }

  /** Milliseconds since it began. */
  get elapsed() {
    return performance.now() - this.#began;
  }

  hangUp() {
    this.#giveUp.abort();
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.muted = muted;
    for (const track of this.#microphone?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  /** @param {MediaStream} stream */
  speakInto(stream) {
    this.#microphone = stream;
    this.mute(this.muted);
    this.step("microphone");
  }

  /** @param {Exchange} exchange */
  answered({ method, url, body, status }) {
    if (method !== "POST" || status < 200 || status > 299) return;
    if (new URL(url).pathname === "/token") this.step("token");
    if (isOffer(body)) this.step("answer");
  }

  /** @param {string|null} body */
  asks(body) {
    if (isOffer(body)) this.step("offer");
  }

  /**
   * @param {RTCPeerConnection} peer
   * @param {RTCDataChannel} channel
   */
  watch(peer, channel) {
    peer.addEventListener("iceconnectionstatechange", () => {
      if (peer.iceConnectionState === "connected" || peer.iceConnectionState === "completed") this.step("ice");
    });
    peer.addEventListener("track", ({ receiver }) => this.#hear(peer, receiver));
    channel.addEventListener("open", () => this.step("channel"));
  }

  /** @param {StepName} name */
  step(name) {
    if (this.#steps.has(name) || this.signal.aborted) return;
    this.#steps.add(name);
    this.#onStep(name, this.elapsed);
  }

  /**
   * The first sound from the other side is a step; silence is not.
   * @param {RTCPeerConnection} peer
   * @param {RTCRtpReceiver} receiver
   */
  #hear(peer, receiver) {
    if (receiver.getSynchronizationSources().some(({ audioLevel = 0 }) => audioLevel > AUDIBLE)) this.step("audio");
    else if (peer.signalingState !== "closed") setTimeout(() => this.#hear(peer, receiver), 40);
  }
}

/** @param {string|null} body */
const isOffer = (body) => body?.startsWith("v=0") ?? false;
