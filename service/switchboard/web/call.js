// @ts-check
/**
 * One voice call through Switchboard: what a frontend needs, in one file, with no DOM in it.
 * Copy it, or read it as the recipe.
 *
 *     const call = connect({ token: () => fetchTokenFromMyBackend(), preset: "support" });
 *     call.addEventListener("track", (event) => { audio.srcObject = event.detail.stream; });
 *     call.addEventListener("message", (event) => console.log(event.detail.event.type));
 *     await call.ready;                        // throws a Refusal that says what went wrong
 *     call.send({ type: "response.create" });
 *     await call.hangUp();
 */

/** @typedef {"login"|"token"|"microphone"|"offer"|"answer"|"ice"|"channel"|"session"|"audio"} StepName */
/** @typedef {"connecting"|"connected"|"ended"|"refused"} CallState */
/** @typedef {{step: StepName, ms: number}} Step Milliseconds since connect() was called. */
/** @typedef {{direction: "sent"|"received", event: {type: string, [key: string]: any}}} Message */
/** @typedef {{id: string, state: string, preset: string, started_at: string|number, deadline: string|number|null, idle_seconds: number|null, ended_at: string|number|null, ended_by: string|null}} CallStatus */
/** @typedef {"token"|"grant"|null} CredentialKind The user's own token, a secret minted from it, or none. */

/**
 * One HTTP exchange, for whoever wants to show or record it. It never holds a credential.
 * @typedef {object} Exchange
 * @property {string} name           which step it was
 * @property {string} method
 * @property {string} url            absolute
 * @property {Record<string, string>} headers  as sent, without Authorization
 * @property {CredentialKind} credential
 * @property {string|null} body
 * @property {number} status         0: there was no answer
 * @property {string} requestId
 * @property {string} rateLimit      the answer's `RateLimit` field; empty if it had none
 * @property {number} ms
 */

/**
 * @typedef {object} ConnectOptions
 * @property {string|(() => Promise<string>)} token  the signed-in user's token, or how to get one
 * @property {string} [base]      where Switchboard is; left out: the same origin
 * @property {string} [preset]    left out: the tenant's default
 * @property {"token"|"relay"} [via]  mint first and post the offer to calls_url, or one request to /sdp
 * @property {MediaStream|(() => Promise<MediaStream>)} [microphone]  left out: getUserMedia
 * @property {object} [session]   overrides that the preset allows; only for via "token"
 * @property {boolean} [reports]  tell Switchboard how the call goes; also the call's heartbeat. Default true
 * @property {RTCConfiguration} [rtc]
 */

/** How long an offer waits for its candidates: neither side trickles. */
const GATHER_MS = 1000;
/** From answer to open data channel. */
const OPEN_MS = 20_000;
/** A lost network may come back; after this it does not. */
const LOST_MS = 6000;
/** The longest from one heartbeat to the next, which also tells operators how the call sounds. */
const HEARTBEAT_MS = 20_000;
/** Heartbeats in a call's `idle_seconds`: one may get lost. */
const BEATS = 3;
/** The smallest `idle_seconds` that there is, for a call whose own could not be learned. */
const LEAST_IDLE_SECONDS = 10;
/** Waits between looks at a call that the other side has ended: the server notes that a moment later. */
const LOOKS_MS = [0, 100, 300, 600, 1000, 1500];

/** A "no", from Switchboard, the provider or this browser. `code` is stable; `detail` is a sentence. */
export class Refusal extends Error {
  /**
   * @param {string} code
   * @param {string} detail
   * @param {{status?: number, requestId?: string, retryAfter?: number|null, param?: string|null, step?: string, cause?: unknown}} [more]
   */
  constructor(code, detail, more = {}) {
    super(detail, { cause: more.cause });
    this.name = "Refusal";
    this.code = code;
    this.detail = detail;
    /** 0 when no server was involved. */
    this.status = more.status ?? 0;
    this.requestId = more.requestId ?? "";
    /** Seconds. */
    this.retryAfter = more.retryAfter ?? null;
    this.param = more.param ?? null;
    this.step = more.step ?? "";
  }

  /**
   * @param {Response} response
   * @param {string} step
   * @returns {Promise<Refusal>}
   */
  static async from(response, step) {
    /** @type {any} */
    let body = {};
    try {
      body = JSON.parse(await response.text());
    } catch {
      // Some proxy answered: the status is all there is.
    }
    const error = body?.error ?? {};
    return new Refusal(body?.code ?? error.code ?? `http_${response.status}`, body?.detail ?? error.message ?? "", {
      status: response.status,
      requestId: response.headers.get("X-Request-Id") ?? body?.request_id ?? "",
      retryAfter: seconds(response.headers.get("Retry-After")),
      param: error.param ?? null,
      step,
    });
  }
}

/**
 * Retry-After is a number of seconds or a date.
 * @param {string|null} value
 * @returns {number|null}
 */
function seconds(value) {
  if (!value) return null;
  const plain = Number(value);
  if (Number.isFinite(plain)) return Math.max(0, plain);
  const at = Date.parse(value);
  return Number.isNaN(at) ? null : Math.max(0, Math.ceil((at - Date.now()) / 1000));
}

/**
 * fetch, and an Exchange for the record. Throws a Refusal unless the answer is 2xx.
 * @param {string} name
 * @param {string} url
 * @param {{method?: string, body?: string, type?: string, bearer?: string|null, credential?: CredentialKind, signal?: AbortSignal, keepalive?: boolean}} how
 * @param {(exchange: Exchange) => void} [observe]
 * @returns {Promise<Response>}
 */
export async function request(name, url, how = {}, observe = () => {}) {
  const began = performance.now();
  /** @type {Record<string, string>} */
  const headers = how.type ? { "Content-Type": how.type } : {};
  /** @type {Exchange} */
  const exchange = {
    name,
    url,
    method: how.method ?? "GET",
    headers: { ...headers },
    credential: how.bearer ? (how.credential ?? "token") : null,
    body: how.body ?? null,
    status: 0,
    requestId: "",
    rateLimit: "",
    ms: 0,
  };
  if (how.bearer) headers.Authorization = `Bearer ${how.bearer}`;
  /** @type {Response} */
  let response;
  try {
    response = await fetch(url, {
      method: exchange.method,
      headers,
      body: how.body,
      signal: how.signal,
      keepalive: how.keepalive,
      credentials: "omit",
      cache: "no-store",
    });
  } catch (cause) {
    exchange.ms = performance.now() - began;
    observe(exchange);
    if (how.signal?.aborted) throw new Refusal("cancelled", "The call was given up before it was connected.", { step: name, cause });
    throw new Refusal("network_error", `No answer from ${new URL(url).host}.`, { step: name, cause });
  }
  exchange.ms = performance.now() - began;
  exchange.status = response.status;
  exchange.requestId = response.headers.get("X-Request-Id") ?? "";
  exchange.rateLimit = response.headers.get("RateLimit") ?? "";
  observe(exchange);
  if (!response.ok) throw await Refusal.from(response, name);
  return response;
}

/**
 * Ask for the microphone, and say in a Refusal why there is none.
 * @returns {Promise<MediaStream>}
 */
export async function openMicrophone() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Refusal("microphone_unavailable", "Browsers offer the microphone on https and localhost only.", { step: "microphone" });
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true } });
  } catch (cause) {
    const name = cause instanceof Error ? cause.name : "";
    const code =
      { NotAllowedError: "microphone_denied", SecurityError: "microphone_denied", NotFoundError: "microphone_absent", NotReadableError: "microphone_busy" }[name] ??
      "microphone_unavailable";
    throw new Refusal(code, cause instanceof Error ? cause.message : String(cause), { step: "microphone", cause });
  }
}

/**
 * Events: "state" {state, reason}, "step" Step, "message" Message, "exchange" Exchange, "track" {stream},
 * "microphone" {stream}, "status" CallStatus (when it is connected, if it reports, and when the other side has ended it);
 * each in `event.detail`.
 */
export class Call extends EventTarget {
  /** @type {CallState} */
  state = "connecting";
  /** The call's id at the provider; empty until the answer is here. */
  id = "";
  /** Where this call can be read and ended; empty for a call that went straight to the provider. */
  url = "";
  /** @type {Promise<void>} Resolves when events can be sent; rejects with a Refusal. */
  ready;
  /** @type {RTCPeerConnection|null} */
  pc = null;
  muted = false;

  /** @type {ConnectOptions} */ #options;
  #base;
  #began = performance.now();
  #abort = new AbortController();
  #jwt = "";
  /** @type {string} What opened the call. */ #bearer = "";
  /** @type {CredentialKind} */ #credential = "token";
  /** @type {MediaStream|null} */ #microphone = null;
  /** @type {RTCDataChannel|null} */ #channel = null;
  #steps = new Set();
  /** @type {Set<ReturnType<typeof setTimeout>>} */ #timers = new Set();
  #reporting = false;
  #heard = 0;
  /** @type {(reason?: any) => void} */ #fail = () => {};
  /** @type {() => void} */ #opened = () => {};

  /** @param {ConnectOptions} options */
  constructor(options) {
    super();
    this.#options = options;
    this.#base = new URL(options.base ?? globalThis.location.origin, globalThis.location?.href).href;
    /** @type {Promise<void>} */
    const open = new Promise((resolve, reject) => {
      this.#opened = resolve;
      this.#fail = reject;
    });
    // One microtask later, so that the caller can listen first.
    this.ready = Promise.resolve().then(() => Promise.race([this.#start().then(() => open), open])).catch((error) => this.#refused(error));
    this.ready.catch(() => {}); // whoever only listens to "state" is no unhandled rejection
  }

  /** Milliseconds since connect(). */
  get elapsed() {
    return performance.now() - this.#began;
  }

  /** Whether Switchboard knows this call and can end it. */
  get controllable() {
    return this.url !== "";
  }

  /**
   * Send one event to the provider over the data channel.
   * @param {{type: string, [key: string]: any}} event
   */
  send(event) {
    if (this.#channel?.readyState !== "open") throw new Refusal("channel_closed", "The data channel is not open.");
    this.#channel.send(JSON.stringify(event));
    this.#emit("message", { direction: "sent", event });
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.muted = muted;
    for (const track of this.#microphone?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  /** End the call here and, where it can be, on the server. Safe in a pagehide listener, and twice. */
  async hangUp() {
    if (this.state === "ended" || this.state === "refused") return;
    const connected = this.state === "connected";
    this.#report("ended"); // before the DELETE: a grant is good only while its call lives
    this.#end("ended", connected ? "you" : "cancelled");
    await this.#release();
  }

  /**
   * What Switchboard knows about this call; null for a call that it did not open.
   * @returns {Promise<CallStatus|null>}
   */
  async status() {
    if (!this.controllable) return null;
    try {
      return await (await this.#http("status", this.url)).json();
    } catch (error) {
      // A grant dies with its call; the user behind it may still ask.
      if (!(error instanceof Refusal) || error.status !== 401 || this.#credential !== "grant") throw error;
      return (await request("status", this.url, { bearer: this.#jwt }, this.#observe)).json();
    }
  }

  async #start() {
    const { via = "token" } = this.#options;
    if (!globalThis.RTCPeerConnection) throw new Refusal("webrtc_missing", "This browser has no WebRTC.");
    this.#jwt = await this.#login();
    this.#step("login");

    this.#bearer = this.#jwt;
    let callsUrl = this.#at("sdp");
    if (via === "token") callsUrl = await this.#mint();

    const { microphone } = this.#options;
    const stream = typeof microphone === "function" ? await microphone() : (microphone ?? (await openMicrophone()));
    this.#microphone = stream;
    if (this.#over) return this.#close();
    this.mute(this.muted);
    this.#step("microphone");
    this.#emit("microphone", { stream });

    const offer = await this.#offer(stream);
    if (this.#over) return;
    this.#step("offer");

    const response = await this.#http("offer", callsUrl, { method: "POST", type: "application/sdp", body: offer });
    this.#locate(response, callsUrl);
    const answer = await response.text(); // live servers say text/plain: the type is not checked
    if (this.#over) return;
    this.#step("answer");
    await this.pc?.setRemoteDescription({ type: "answer", sdp: answer });
    this.#after(OPEN_MS, () => {
      this.#fail(new Refusal("connection_failed", `No connection within ${OPEN_MS / 1000} seconds of the answer.`, { step: this.#steps.has("ice") ? "channel" : "ice" }));
    });
  }

  async #login() {
    const { token } = this.#options;
    return typeof token === "function" ? token() : token;
  }

  /** @returns {Promise<string>} where to post the offer */
  async #mint() {
    const { session } = this.#options;
    const body = session ? { type: "application/json", body: JSON.stringify({ session }) } : {};
    const response = await this.#http("token", this.#at("token"), { method: "POST", ...body });
    const minted = await response.json();
    this.#bearer = minted.value;
    this.#credential = "grant";
    this.#step("token");
    return new URL(minted.calls_url, this.#base).href;
  }

  /** @param {MediaStream} stream */
  async #offer(stream) {
    const pc = new RTCPeerConnection(this.#options.rtc);
    this.pc = pc;
    for (const track of stream.getAudioTracks()) pc.addTrack(track, stream);
    this.#channel = pc.createDataChannel("oai-events"); // before the offer, so that the offer has it
    this.#listen(pc, this.#channel);
    await pc.setLocalDescription(await pc.createOffer());
    await this.#gathered(pc);
    return /** @type {RTCSessionDescription} */ (pc.localDescription).sdp;
  }

  /** @param {RTCPeerConnection} pc */
  #gathered(pc) {
    return new Promise((/** @type {(value?: unknown) => void} */ resolve) => {
      if (pc.iceGatheringState === "complete") return resolve();
      pc.addEventListener("icegatheringstatechange", () => pc.iceGatheringState === "complete" && resolve());
      this.#after(GATHER_MS, resolve);
    });
  }

  /**
   * @param {RTCPeerConnection} pc
   * @param {RTCDataChannel} channel
   */
  #listen(pc, channel) {
    pc.addEventListener("track", (event) => {
      this.#emit("track", { stream: event.streams[0] ?? new MediaStream([event.track]) });
      this.#hear(event.receiver);
    });
    pc.addEventListener("iceconnectionstatechange", () => {
      if (pc.iceConnectionState === "connected" || pc.iceConnectionState === "completed") this.#step("ice");
    });
    pc.addEventListener("connectionstatechange", () => {
      if (pc.connectionState === "failed") this.#lost("The connection broke.");
      if (pc.connectionState === "disconnected") {
        this.#after(LOST_MS, () => pc.connectionState !== "connected" && this.#lost("The connection went away."));
      }
    });
    channel.addEventListener("open", () => {
      this.#step("channel");
      if (this.#over) return;
      this.#become("connected");
      this.#opened();
      this.#heartbeat();
    });
    channel.addEventListener("close", () => this.#lost("The other side closed the call."));
    channel.addEventListener("message", ({ data }) => this.#received(data));
  }

  /** @param {unknown} data */
  #received(data) {
    let event;
    try {
      event = JSON.parse(typeof data === "string" ? data : new TextDecoder().decode(/** @type {ArrayBuffer} */ (data)));
    } catch {
      event = { type: "(not JSON)", data: String(data) };
    }
    if (event.type === "session.created") this.#step("session");
    this.#emit("message", { direction: "received", event });
  }

  /**
   * The first sound from the other side is a step; silence is not.
   * @param {RTCRtpReceiver} receiver
   */
  #hear(receiver) {
    const look = () => {
      if (this.#over || this.#steps.has("audio")) return;
      if (receiver.getSynchronizationSources().some((source) => (source.audioLevel ?? 0) > 0.003)) this.#step("audio");
      else this.#after(40, look);
    };
    look();
  }

  /**
   * Location names the call: under /sdp/ it is Switchboard's, and can be ended there.
   * @param {Response} response
   * @param {string} asked
   */
  #locate(response, asked) {
    const location = response.headers.get("Location");
    if (!location) return;
    const url = new URL(location, asked);
    this.id = url.pathname.split("/").pop() ?? "";
    // Only where the bearer has already been: a Location may name any host.
    if (url.origin === new URL(asked).origin && /\/sdp\/[^/]+$/.test(url.pathname)) this.url = url.href;
    if (this.#over) this.#release(); // it was given up meanwhile
  }

  /** Nobody will use this call: end it. */
  async #release() {
    if (!this.controllable) return;
    // Read to its end: an answer left unread keeps its connection busy.
    await this.#http("hang up", this.url, { method: "DELETE", keepalive: true })
      .then((response) => response.text())
      .catch(() => {});
  }

  /** @param {string} path */
  #at(path) {
    const url = new URL(path, this.#base);
    if (this.#options.preset) url.searchParams.set("preset", this.#options.preset);
    return url.href;
  }

  /** @type {(exchange: Exchange) => void} */
  #observe = (exchange) => this.#emit("exchange", exchange);

  /**
   * @param {string} name
   * @param {string} url
   * @param {{method?: string, body?: string, type?: string, keepalive?: boolean}} [how]
   */
  #http(name, url, how = {}) {
    const signal = how.keepalive || name === "status" ? undefined : this.#abort.signal;
    return request(name, url, { ...how, signal, bearer: this.#bearer, credential: this.#credential }, this.#observe);
  }

  async #heartbeat() {
    if (this.#options.reports === false) return;
    this.#reporting = true;
    this.#report("connected");
    if (this.controllable) this.#report("alive"); // at once: only a call that has sent one is missed when they stop
    const ms = await this.#heartbeatMs();
    const beat = () => {
      this.#report("alive");
      this.#after(ms, beat);
    };
    if (!this.#over) this.#after(ms, beat);
  }

  /** Each one is a request, so not more often than this call's own `idle_seconds` asks for. */
  async #heartbeatMs() {
    if (!this.controllable) return HEARTBEAT_MS;
    const status = await this.status().catch(() => null);
    if (status) this.#emit("status", status);
    const idle = status ? status.idle_seconds : LEAST_IDLE_SECONDS;
    return idle === null ? HEARTBEAT_MS : Math.min(HEARTBEAT_MS, (idle * 1000) / BEATS);
  }

  /**
   * Best effort: a call never suffers from its report.
   * @param {"connected"|"failed"|"alive"|"ended"} event
   */
  async #report(event) {
    if (!this.#reporting) return;
    const url = this.controllable ? `${this.url}/report` : new URL("report", this.#base).href;
    // A secret of the provider means nothing to Switchboard; a grant does, and so does the user's token.
    const bearer = this.controllable ? this.#bearer : this.#jwt;
    const now = Math.round(this.elapsed);
    /** @type {Record<string, unknown>} */
    const body = { event };
    if (event === "connected") body.ms_to_connected = now;
    if (event === "alive") Object.assign(body, await this.#quality());
    if (event === "ended" && this.#heard) body.audio_seconds = this.#heard; // as last looked: a page that goes away cannot wait
    try {
      await request("report", url, { method: "POST", type: "application/json", body: JSON.stringify(body), bearer, keepalive: true });
    } catch (error) {
      if (!(error instanceof Refusal)) return;
      if (error.status === 404 || error.status === 405) this.#reporting = false;
      // The user's token ran out in a long call: sign in again, so that the call can still be ended.
      if (error.code === "expired_token" && bearer === this.#jwt) {
        const fresh = await this.#login().catch(() => this.#jwt);
        if (this.#bearer === this.#jwt) this.#bearer = fresh;
        this.#jwt = fresh;
      }
    }
  }

  async #quality() {
    /** @type {Record<string, number>} */
    const seen = {};
    for (const stat of (await this.pc?.getStats())?.values() ?? []) {
      if (stat.type === "candidate-pair" && stat.nominated && stat.currentRoundTripTime !== undefined) {
        seen.rtt_ms = Math.round(stat.currentRoundTripTime * 1000);
      }
      if (stat.type === "inbound-rtp" && stat.kind === "audio") {
        seen.jitter_ms = Math.round((stat.jitter ?? 0) * 1000);
        const lost = Math.max(0, stat.packetsLost ?? 0);
        if (stat.packetsReceived) seen.loss = Number((lost / (lost + stat.packetsReceived)).toFixed(4));
        if (stat.totalSamplesDuration) seen.audio_seconds = this.#heard = Math.round(stat.totalSamplesDuration);
      }
    }
    return seen;
  }

  /** @param {string} why */
  #lost(why) {
    if (this.#over) return;
    if (this.state !== "connected") return this.#fail(new Refusal("connection_failed", why, { step: "ice" }));
    this.#end("ended", why);
    this.#settle();
  }

  /** Learn why the other side is gone; what the server takes for open even then is of no use to anybody. */
  async #settle() {
    if (!this.controllable) return;
    for (const ms of LOOKS_MS) {
      await new Promise((resolve) => setTimeout(resolve, ms));
      const status = await this.status().catch(() => null);
      if (status?.ended_by) return this.#emit("status", status);
    }
    await this.#release();
  }

  /** @param {unknown} error */
  #refused(error) {
    const refusal = error instanceof Refusal ? error : new Refusal("browser_error", error instanceof Error ? error.message : String(error), { cause: error });
    if (!this.#over) {
      this.#reporting = refusal.code === "connection_failed" && this.#options.reports !== false;
      this.#report("failed");
      this.#release(); // an answered call that never connected is still open
      this.#end("refused", refusal.code);
    }
    throw refusal;
  }

  get #over() {
    return this.state === "ended" || this.state === "refused";
  }

  /**
   * @param {"ended"|"refused"} state
   * @param {string} reason
   */
  #end(state, reason) {
    this.#become(state, reason);
    this.#close();
    if (state === "ended") this.#fail(new Refusal("cancelled", "The call was given up before it was connected."));
  }

  #close() {
    this.#abort.abort();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    for (const track of this.#microphone?.getTracks() ?? []) track.stop();
    this.#channel?.close();
    this.pc?.close();
  }

  /**
   * @param {CallState} state
   * @param {string} [reason]
   */
  #become(state, reason = "") {
    if (this.state === state) return;
    this.state = state;
    this.#emit("state", { state, reason });
  }

  /** @param {StepName} step */
  #step(step) {
    if (this.#steps.has(step) || this.#over) return;
    this.#steps.add(step);
    this.#emit("step", { step, ms: this.elapsed });
  }

  /**
   * @param {number} ms
   * @param {() => void} then
   */
  #after(ms, then) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      then();
    }, ms);
    this.#timers.add(timer);
  }

  /**
   * @param {string} type
   * @param {object} detail
   */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/**
 * Start a call. It is returned at once, still connecting: listen to it, then `await call.ready`.
 * @param {ConnectOptions} options
 * @returns {Call}
 */
export function connect(options) {
  return new Call(options);
}
