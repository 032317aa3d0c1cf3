// @ts-check
/**
 * A voice call through Switchboard, for a page of yours.
 *
 *     import { connect } from "https://switchboard.example/switchboard.js";
 *     const call = await connect({ url: "https://switchboard.example", token: userToken, audio: speaker });
 *     call.send({ type: "response.create" });
 *     await call.hangUp();
 *
 * A "no" is thrown as a SwitchboardError. A page that goes away hangs up. A connection that breaks is made anew, once.
 */

/** @typedef {{value: string, calls_url: string}} Credential  what opens one call, and where its offer goes */
/** @typedef {{id: string, state: string, deadline: string|number|null, idle_seconds: number|null, ended_by: string|null}} Status */
/**
 * @typedef {object} Options
 * @property {string} url        where Switchboard is
 * @property {string|(() => string|Promise<string>)} token  the user's JWT, or what gives one, which is asked again when that has expired
 * @property {string} [preset]   left out: the tenant's default
 * @property {object} [session]  what the preset lets a caller change
 * @property {MediaStream|(() => Promise<MediaStream>)} [microphone]  left out: the browser's
 * @property {HTMLMediaElement} [audio]  plays the other side
 * @property {(event: any) => void} [onEvent]  hears each event of the provider
 * @property {(state: "connected"|"reconnecting"|"ended", why: string, error?: SwitchboardError) => void} [onState]
 *   why it has ended: `owner`, `deadline`, `idle`, `replaced`, `admin`, `suspended`, `provider`, `lost`, or the error's code
 * @property {(peer: RTCPeerConnection, channel: RTCDataChannel) => void} [onPeer]  gets each connection before its offer
 * @property {boolean} [reconnect]  false: a connection that breaks is the end
 * @property {AbortSignal} [signal]  hangs up, also before it is connected
 * @property {RTCConfiguration} [rtc]
 * @property {typeof fetch} [fetch]
 * @property {(token: string) => Promise<Credential>} [credential]  left out: POST /token
 */

const GATHER_MS = 1000; // for an offer's candidates: neither side trickles
const OPEN_MS = 20_000; // from the answer to an open channel
const LOST_MS = 6000; // a network may come back; after this it does not
const HEARTBEAT_MS = 20_000; // at the longest; else three in the call's idle_seconds, so that one may get lost
const LEAST_IDLE = { idle_seconds: 10 }; // of a call whose own could not be learned
const LOOKS_MS = [0, 300, 900]; // for why the other side is gone: Switchboard notes that a moment later

/** What Switchboard, the provider or this browser says no with: `code` is stable, `message` a sentence. */
export class SwitchboardError extends Error {
  name = "SwitchboardError";

  /** @param {string} code @param {string} message @param {{status?: number, retryAfter?: number|null, param?: string|null, requestId?: string|null, cause?: unknown}} [more] */
  constructor(code, message, more = {}) {
    super(message, { cause: more.cause });
    this.code = code;
    /** 0: no server was involved. */
    this.status = more.status ?? 0;
    /** Seconds. */
    this.retryAfter = more.retryAfter ?? null;
    this.param = more.param ?? null;
    this.requestId = more.requestId ?? null;
  }
}

/** A fetch that throws unless the answer is 2xx. @param {typeof fetch} fetcher @param {string} url @param {RequestInit} [how] */
export async function request(fetcher, url, how = {}) {
  const answer = await fetcher(url, { credentials: "omit", cache: "no-store", ...how }).catch((cause) => {
    if (how.signal?.aborted) throw how.signal.reason;
    throw new SwitchboardError("network_error", `No answer from ${new URL(url).host}.`, { cause });
  });
  if (answer.ok) return answer;
  const { code, detail, error } = (await answer.json().catch(() => null)) ?? {};
  throw new SwitchboardError(code ?? error?.code ?? `http_${answer.status}`, detail ?? error?.message ?? `The answer was ${answer.status}.`, {
    status: answer.status,
    retryAfter: Number(answer.headers.get("Retry-After")) || null,
    param: error?.param,
    requestId: answer.headers.get("X-Request-Id"),
  });
}

const openMicrophone = () =>
  Promise.resolve() // without https there are no mediaDevices: that is to be told as well
    .then(() => navigator.mediaDevices.getUserMedia({ audio: true }))
    .catch((cause) => {
      throw new SwitchboardError("microphone_unavailable", `No microphone: ${cause.message}`, { cause });
    });

/** One call, made by `connect`. After a reconnect it has another peer, channel, id and url. */
export class Call {
  /** @type {RTCPeerConnection|undefined} */ peer;
  /** @type {RTCDataChannel|undefined} */ channel;
  /** @type {MediaStream|undefined} */ microphone;
  /** The provider's name for it. */ id = "";
  /** Where Switchboard can show and end it; empty for a call by the provider's own secret. */ url = "";
  /** @type {Status|null} As Switchboard last told. */ status = null;

  #options;
  /** @type {typeof fetch} */ #fetch;
  #over = new AbortController();
  #token = "";
  #grant = "";
  #began = 0;
  #heard = 0;
  #connected = false;
  #mayReconnect;
  /** @type {ReturnType<typeof setInterval>|undefined} */ #heartbeat;

  /** @param {Options} options */
  constructor(options) {
    this.#options = options;
    this.#fetch = options.fetch ?? fetch.bind(globalThis);
    this.#mayReconnect = options.reconnect ?? true;
    const hangUp = () => void this.hangUp();
    addEventListener("pagehide", hangUp, { signal: this.#over.signal });
    options.signal?.addEventListener("abort", hangUp, { signal: this.#over.signal });
  }

  /** @param {Options} options */
  static async open(options) {
    const call = new Call(options);
    await call.#open();
    return call;
  }

  /** To the provider. @param {{type: string, [member: string]: any}} event */
  send(event) {
    this.channel?.send(JSON.stringify(event));
  }

  /** Ends it here and, if it has a `url`, at the provider. A second time is no mistake. */
  async hangUp() {
    const told = this.#connected && this.#report("ended", this.#heard ? { audio_seconds: this.#heard } : {}); // as last looked
    await this.#end("owner");
    await told;
  }

  async #open() {
    try {
      await this.#connect(this.#options);
    } catch (cause) {
      const error = cause instanceof SwitchboardError ? cause : new SwitchboardError("browser_error", String(cause), { cause });
      if (error.code === "connection_failed") this.#report("failed");
      this.#close(); // what came after the end
      this.#end(error.code, error);
      throw error;
    }
    this.#connected = true;
    this.#options.onState?.("connected", "");
    this.#beat();
  }

  /** @param {Options} options */
  async #connect({ session, microphone = openMicrophone, audio, rtc, onEvent, onPeer, credential }) {
    const { signal } = this.#over;
    this.#began = performance.now();
    this.#token = await this.#login();
    const json = { method: "POST", signal, ...(session && { headers: { "Content-Type": "application/json" }, body: JSON.stringify({ session }) }) };
    const { value, calls_url } = await (credential ? credential(this.#token) : this.#ask(this.#at("token"), json).then((answer) => answer.json()));
    this.microphone ??= typeof microphone === "function" ? await microphone() : microphone;
    signal.throwIfAborted();

    const peer = (this.peer = new RTCPeerConnection(rtc));
    const channel = (this.channel = peer.createDataChannel("oai-events")); // now, so that the offer has it
    channel.addEventListener("message", ({ data }) => onEvent?.(JSON.parse(data)));
    for (const track of this.microphone.getAudioTracks()) peer.addTrack(track, this.microphone);
    if (audio) peer.addEventListener("track", ({ track }) => Object.assign(audio, { autoplay: true, srcObject: new MediaStream([track]) }));
    onPeer?.(peer, channel);
    await peer.setLocalDescription();
    await gathered(peer);

    const how = { method: "POST", signal, headers: { "Content-Type": "application/sdp", Authorization: `Bearer ${value}` }, body: peer.localDescription?.sdp };
    const where = new URL(calls_url, this.#options.url);
    const answer = await this.#ask(where.href, how);
    const location = new URL(answer.headers.get("Location") ?? "/", where);
    this.id = location.pathname.split("/").pop() ?? "";
    // A Location may name any host: only where the credential has been already.
    if (location.origin === where.origin && /\/sdp\/[^/]+$/.test(location.pathname)) this.url = location.href;
    this.#grant = value === this.#token || !this.url ? "" : value;
    await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    await opened(peer, channel, signal);
    channel.addEventListener("close", () => this.#lost(peer));
    peer.addEventListener("connectionstatechange", () => {
      if (peer.connectionState === "failed") this.#lost(peer);
      if (peer.connectionState === "disconnected") setTimeout(() => peer.connectionState !== "connected" && this.#lost(peer), LOST_MS);
    });
  }

  /** The other side is gone: by intent, or it is called again. @param {RTCPeerConnection} peer */
  async #lost(peer) {
    if (!this.#connected || peer !== this.peer) return;
    this.#connected = false;
    clearInterval(this.#heartbeat);
    peer.close();
    for (const ms of this.url ? LOOKS_MS : []) {
      await new Promise((resolve) => setTimeout(resolve, ms));
      const by = (await this.#look())?.ended_by;
      if (by) return this.#end(by);
    }
    if (this.#over.signal.aborted) return;
    if (!this.#mayReconnect) return this.#end("lost");
    this.#mayReconnect = false;
    this.#options.onState?.("reconnecting", "lost");
    await this.#release(); // first: a user may have one call open
    this.url = this.#grant = "";
    this.status = null;
    await this.#open().catch(() => {}); // onState has told
  }

  /** @param {string} why @param {SwitchboardError} [error] */
  async #end(why, error) {
    if (this.#over.signal.aborted) return;
    this.#connected = false;
    this.#over.abort(new SwitchboardError("cancelled", "The call was ended before it was connected."));
    this.#close();
    this.#options.onState?.("ended", why, error);
    if (!this.status?.ended_by) await this.#release();
  }

  #close() {
    clearInterval(this.#heartbeat);
    this.peer?.close();
    if (this.#options.microphone !== this.microphone) for (const track of this.microphone?.getTracks() ?? []) track.stop();
  }

  async #release() {
    const how = { method: "DELETE", keepalive: true };
    if (this.url) await this.#ask(this.url, how).then((answer) => answer.text()).catch(() => {}); // unread, it would keep its connection
  }

  async #beat() {
    const alive = async () => this.#report("alive", await this.#quality());
    this.#report("connected", { ms_to_connected: Math.round(performance.now() - this.#began) });
    let every = HEARTBEAT_MS;
    if (this.url) {
      alive(); // at once: only a call that has sent one is missed when they stop
      const { idle_seconds: idle } = (await this.#look()) ?? LEAST_IDLE;
      if (idle) every = Math.min(every, (idle * 1000) / 3);
    }
    if (this.#connected) this.#heartbeat = setInterval(alive, every);
  }

  async #look() {
    const told = await this.#ask(this.url).then((answer) => answer.json()).catch(() => null);
    return (this.status = told ?? this.status);
  }

  /** A call never suffers from its report. @param {"connected"|"failed"|"alive"|"ended"} event @param {object} [numbers] */
  async #report(event, numbers) {
    const how = { method: "POST", keepalive: true, headers: { "Content-Type": "application/json" }, body: JSON.stringify({ event, ...numbers }) };
    try {
      await this.#ask(this.url ? `${this.url}/report` : this.#at("report"), how);
    } catch (error) {
      // In a long call, so that it can still be ended.
      if (/** @type {SwitchboardError} */ (error).code === "expired_token") this.#token = await this.#login().catch(() => this.#token);
    }
  }

  async #quality() {
    /** @type {Record<string, number>} */
    const seen = {};
    for (const stat of (await this.peer?.getStats())?.values() ?? []) {
      if (stat.type === "candidate-pair" && stat.nominated && stat.currentRoundTripTime !== undefined) seen.rtt_ms = Math.round(stat.currentRoundTripTime * 1000);
      if (stat.type !== "inbound-rtp" || stat.kind !== "audio") continue;
      const lost = Math.max(0, stat.packetsLost ?? 0);
      seen.jitter_ms = Math.round((stat.jitter ?? 0) * 1000);
      if (stat.packetsReceived) seen.loss = Number((lost / (lost + stat.packetsReceived)).toFixed(4));
      if (stat.totalSamplesDuration) seen.audio_seconds = this.#heard = Math.round(stat.totalSamplesDuration);
    }
    return seen;
  }

  async #login() {
    const { token } = this.#options;
    return typeof token === "function" ? token() : token;
  }

  /** @param {string} path */
  #at(path) {
    const { url, preset } = this.#options;
    return `${url.replace(/\/$/, "")}/${path}${preset ? `?preset=${encodeURIComponent(preset)}` : ""}`;
  }

  /** @param {string} url @param {RequestInit} [how] */
  #ask(url, how = {}) {
    return request(this.#fetch, url, { ...how, headers: { Authorization: `Bearer ${this.#grant || this.#token}`, ...how.headers } });
  }
}

/** @param {RTCPeerConnection} peer */
const gathered = (peer) =>
  new Promise((resolve) => {
    const look = () => peer.iceGatheringState === "complete" && resolve(null);
    peer.addEventListener("icegatheringstatechange", look);
    setTimeout(resolve, GATHER_MS);
    look();
  });

/** @param {RTCPeerConnection} peer @param {RTCDataChannel} channel @param {AbortSignal} signal */
const opened = (peer, channel, signal) =>
  new Promise((resolve, reject) => {
    const giveUp = () => reject(signal.aborted ? signal.reason : new SwitchboardError("connection_failed", "The call was accepted, but no connection came about."));
    signal.addEventListener("abort", giveUp);
    channel.addEventListener("close", giveUp);
    channel.addEventListener("open", resolve);
    peer.addEventListener("connectionstatechange", () => peer.connectionState === "failed" && giveUp());
    setTimeout(giveUp, OPEN_MS);
    if (channel.readyState === "open") resolve(null);
  });

/**
 * Connects, and gives the call once events can be sent; throws a SwitchboardError.
 * @param {Options} options
 */
export const connect = (options) => Call.open(options);
