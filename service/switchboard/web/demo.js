// @ts-check
/** The demo page: wires the form, the call and what is shown of it. */

import { attacks } from "./attacks.js";
import { Attempt, telling } from "./attempt.js";
import { EventLog } from "./events.js";
import { audioContext, Meter, openMicrophone, syntheticStream } from "./meter.js";
import { ENDINGS, inWords, needsMicrophone } from "./refusals.js";
import { connect, request, SwitchboardError } from "./switchboard.js";
import { Timeline } from "./timeline.js";
import { Transcript } from "./transcript.js";
import { Wire } from "./wire.js";

/** @typedef {{name: string, delivery: "relay"|"direct", model?: string|null, voice?: string|null, requires?: Record<string, string[]>}} Preset */
/** @typedef {{name: string, default_preset: string, presets: Preset[]}} Tenant */
/** @typedef {{tenants: Tenant[], users: string[], live: boolean, ops_url: string}} Config */

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
const $ = (id) => /** @type {T} */ (document.getElementById(id));
/** @param {string} id */
const input = (id) => /** @type {HTMLInputElement} */ ($(id));
/** @param {string} id */
const select = (id) => /** @type {HTMLSelectElement} */ ($(id));
/** @param {string} id */
const button = (id) => /** @type {HTMLButtonElement} */ ($(id));

const audio = /** @type {HTMLAudioElement} */ ($("audio"));
const timeline = new Timeline($("timeline"));
const transcript = new Transcript($("transcript"));
const events = new EventLog({ list: $("events"), count: $("event-count"), filter: input("filter"), deltas: input("deltas"), clear: $("clear-events") });
const wire = new Wire({ tabs: $("requests"), code: $("curl"), copy: button("copy-curl") });
const meterYou = new Meter($("meter-you"));
const meterAssistant = new Meter($("meter-assistant"));

/** @type {Config} */
let config = { tenants: [], users: [], live: false, ops_url: "" };
/** @type {Attempt|null} The call that is being made, or the last one. */
let attempt = null;
let tokensIn = 0;
let tokensOut = 0;
let connectedAt = 0;

// ---- The form ----

const tenant = () => config.tenants.find(({ name }) => name === select("tenant").value);
const preset = () => tenant()?.presets.find(({ name }) => name === select("preset").value);
const path = () => /** @type {"token"|"relay"} */ (input("path-relay").checked ? "relay" : "token");

/** @param {HTMLElement} parent @param {[value: string, label: string][]} options */
function fill(parent, options) {
  parent.replaceChildren(...options.map(([value, label]) => new Option(label, value)));
}

function showPresets() {
  const chosen = tenant();
  fill($("preset"), (chosen?.presets ?? []).map(({ name, delivery }) => [name, `${name} · ${delivery}`]));
  if (chosen) select("preset").value = chosen.default_preset;
  showRoute();
}

/** The way of the call in four hops, as the form now stands. */
function showRoute() {
  const { delivery = "relay", model, voice, requires = {} } = preset() ?? {};
  const needs = Object.entries(requires).map(([claim, values]) => `needs ${claim} ${values.join(" or ")}`);
  $("preset-note").textContent = [model, voice, ...needs].filter(Boolean).join(", ");
  const provider = config.live ? "Provider" : "Emulator";
  const relayed = path() === "relay" || delivery === "relay";
  /** @type {[from: string, to: string, how: string, why: string][]} */
  const hops = [["Your app", "Browser", "JWT", "Your own login says who this is"]];
  if (path() === "token") {
    hops.push(["Browser", "Switchboard", "POST /token", relayed ? "Admitted: a grant that opens one call, here only" : "Admitted: a short secret of the provider"]);
  }
  if (relayed) {
    hops.push(["Browser", "Switchboard", "POST /sdp", path() === "relay" ? "Admitted with the user’s own token" : "The grant and the offer"]);
    hops.push(["Switchboard", provider, "POST /realtime/calls", "With the real key; the call can be capped and ended"]);
  } else {
    hops.push(["Browser", provider, "POST /realtime/calls", "The secret and the offer; from here the server has no hand on it"]);
  }
  hops.push(["Browser", provider, "WebRTC", "Audio and events, past Switchboard"]);
  $("route").replaceChildren(
    ...hops.map(([from, to, how, why], index) => {
      const hop = document.createElement("li");
      hop.innerHTML = '<span class="ends"><b></b><i role="img" aria-label="to"></i><b></b></span><code></code><small></small>';
      const [a, b] = hop.querySelectorAll("b");
      a.textContent = from;
      b.textContent = to;
      /** @type {HTMLElement} */ (hop.querySelector("i")).textContent = index === hops.length - 1 ? "⇄" : "→";
      /** @type {HTMLElement} */ (hop.querySelector("code")).textContent = how;
      /** @type {HTMLElement} */ (hop.querySelector("small")).textContent = why;
      return hop;
    }),
  );
}

/** @returns {Record<string, string>} */
const claims = () => (select("plan").value ? { plan: select("plan").value } : {});

/**
 * The dev issuer plays the part of the app's own login.
 * @param {string} subject
 * @param {number} [seconds] how long it is good for; left out: as the issuer likes
 * @returns {Promise<string>}
 */
async function issue(subject, seconds) {
  const body = JSON.stringify({ tenant: select("tenant").value, subject, claims: claims(), seconds });
  const response = await ask("/demo/issue", { method: "POST", type: "application/json", body });
  return (await response.json()).token;
}

/**
 * A request outside of a call, shown among the others.
 * @param {string} where
 * @param {{method?: string, body?: string, type?: string, bearer?: string}} how
 */
function ask(where, { type, bearer, ...how }) {
  const headers = { ...(type && { "Content-Type": type }), ...(bearer && { Authorization: `Bearer ${bearer}` }) };
  return request(telling((exchange) => wire.add(exchange)), new URL(where, location.href).href, { ...how, headers });
}

// ---- The call ----

/** @param {string} [source] */
async function start(source = select("source").value) {
  if (isLive()) return;
  hideRefusal();
  timeline.reset();
  transcript.clear();
  events.clear();
  wire.clear();
  $("timeline-note").hidden = true;
  $("session").hidden = true;
  $("facts").hidden = true;
  $("usage").textContent = "";
  tokensIn = tokensOut = connectedAt = 0;

  const user = input("user").value.trim();
  const relayed = path() === "relay";
  const wanted = select("preset").value;
  audioContext(); // now, while the click still counts as a gesture
  const mine = new Attempt((step, ms) => timeline.done(step, ms));
  attempt = mine;
  if (relayed) timeline.skip("token", "Not needed: /sdp admits the user");
  timeline.start();
  showState("connecting");
  reveal($("state"));

  /** @param {import("./attempt.js").Exchange} exchange */
  const show = (exchange) => {
    wire.add(exchange);
    showQuota(exchange.rateLimit);
    mine.answered(exchange);
  };
  let failedAt = "";
  try {
    mine.call = await connect({
      url: location.origin,
      preset: wanted,
      token: async () => {
        const token = await issue(user);
        mine.step("login");
        return token;
      },
      // The user's own token opens a call as well: one request less.
      credential: relayed ? async (value) => ({ value, calls_url: `/sdp?preset=${encodeURIComponent(wanted)}` }) : undefined,
      microphone: async () => {
        const stream = source === "microphone" ? await openMicrophone() : syntheticStream(source === "silence" ? "silence" : "tone");
        mine.speakInto(stream);
        meterYou.attach(stream);
        return stream;
      },
      onPeer: (peer, channel) => {
        mine.watch(peer, channel);
        peer.addEventListener("track", ({ streams }) => play(streams[0]));
      },
      onEvent: (event) => receive(mine, event),
      onState: (state, why, error) => {
        if (state === "ended") failedAt = ended(mine, why, error);
      },
      reconnect: false, // so that what happens can be seen
      signal: mine.signal,
      fetch: telling(show, (body) => mine.asks(body)),
    });
  } catch (error) {
    if (!(error instanceof SwitchboardError)) throw error;
    if (error.code !== "cancelled") showRefusal(error, { at: failedAt, retry: true });
    return;
  }
  if (mine.signal.aborted) return;
  connectedAt = Date.now();
  showState("connected");
  showFacts(mine.call);
}

/**
 * It is over, or never was: shows why, and gives the step that failed.
 * @param {Attempt} mine
 * @param {string} why
 * @param {SwitchboardError} [error]
 */
function ended(mine, why, error) {
  meterYou.detach();
  meterAssistant.detach();
  audio.srcObject = null;
  $("unblock").hidden = true;
  if (error) {
    const step = timeline.fail();
    showState("refused", error.code);
    return step;
  }
  timeline.stop();
  showState("ended", mine.call ? (ENDINGS[why] ?? `Ended by: ${why}.`) : "You hung up before it was connected.");
  if (mine.call && why === "owner") {
    note(
      mine.call.url
        ? "Hung up with DELETE: the server has ended the call."
        : "A direct call can’t be ended by the server: this browser closed it, and the secret is good until it expires.",
    );
  }
  return "";
}

/** Unix seconds or ISO 8601. @param {string|number} value */
const time = (value) => (typeof value === "number" ? value * 1000 : Date.parse(value));

/** @param {MediaStream} stream */
async function play(stream) {
  audio.srcObject = stream; // before the meter: Chromium feeds WebAudio only what also plays
  meterAssistant.attach(stream);
  try {
    await audio.play();
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotAllowedError") $("unblock").hidden = false;
  }
}

/**
 * @param {Attempt} mine
 * @param {{type: string, [key: string]: any}} event
 */
function receive(mine, event) {
  events.add("received", event, mine.elapsed);
  transcript.see(event);
  if (event.type === "session.created") mine.step("session");
  if (event.type === "session.created" || event.type === "session.updated") showSession(event.session ?? {});
  if (event.type === "response.done") {
    tokensIn += event.response?.usage?.input_tokens ?? 0;
    tokensOut += event.response?.usage?.output_tokens ?? 0;
    if (tokensIn + tokensOut) $("usage").textContent = `${tokensIn.toLocaleString("en")} tokens in, ${tokensOut.toLocaleString("en")} out`;
  }
  if (event.type === "error") {
    const { code, type, message, param } = event.error ?? {};
    showRefusal(new SwitchboardError(code ?? type ?? "error", message ?? "", { param }), { at: "data channel" });
  }
}

/** @param {{type: string, [key: string]: any}} event */
function send(event) {
  try {
    attempt?.call?.send(event);
    events.add("sent", event, attempt?.elapsed ?? 0);
  } catch {
    note("The data channel is not open.");
  }
}

function respond() {
  if (attempt) timeline.asked(attempt.elapsed);
  send({ type: "response.create" });
}

function hangUp() {
  const focused = document.activeElement;
  attempt?.hangUp();
  if (focused === $("hangup") || focused === document.body) $("connect").focus({ preventScroll: true });
}

function toggleMute() {
  if (!attempt) return;
  attempt.mute(!attempt.muted);
  showMute();
}

// ---- What is shown ----

const STATES = { idle: "Ready", connecting: "Connecting…", connected: "Connected", ended: "Ended", refused: "Refused" };

const isLive = () => ["connecting", "connected"].includes($("state").dataset.state ?? "");

/**
 * @param {keyof typeof STATES} state
 * @param {string} [reason]
 */
function showState(state, reason = "") {
  $("state").dataset.state = state;
  const live = isLive();
  $("state").textContent = STATES[state];
  $("reason").textContent = reason;
  document.body.dataset.call = state;
  $("connect").setAttribute("aria-disabled", String(live));
  button("hangup").disabled = !live;
  button("mute").disabled = !live;
  for (const id of ["say-hello", "message", "send"]) /** @type {HTMLButtonElement|HTMLInputElement} */ ($(id)).disabled = state !== "connected";
  showMute();
  tick();
}

function showMute() {
  const muted = attempt?.muted ?? false;
  $("mute").setAttribute("aria-pressed", String(muted));
  const label = $("mute").firstChild;
  if (label) label.textContent = muted ? "Unmute " : "Mute ";
  $("label-you").textContent = muted && !button("mute").disabled ? "You, muted" : "You";
}

/** @param {string} text */
function note(text) {
  $("timeline-note").textContent = text;
  $("timeline-note").hidden = false;
}

/**
 * @param {HTMLElement} list
 * @param {[name: string, value: string|number|null|undefined, id?: string][]} facts
 */
function describe(list, facts) {
  list.replaceChildren(
    ...facts
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([name, value, id]) => {
        const row = document.createElement("div");
        const term = document.createElement("dt");
        const text = document.createElement("dd");
        term.textContent = name;
        text.textContent = String(value);
        if (id) text.id = id;
        row.append(term, text);
        return row;
      }),
  );
}

/** @param {import("./switchboard.js").Call} call */
function showFacts(call) {
  describe($("facts"), [
    ["Call", call.id],
    ["Preset", select("preset").value],
    ["Can be ended by", call.url ? "you, Switchboard, the provider" : "this browser, the provider"],
  ]);
  $("facts").hidden = false;
}

/** @param {Record<string, any>} session */
function showSession(session) {
  const turns = session.audio?.input?.turn_detection?.type;
  describe($("session-facts"), [
    ["Session", session.id],
    ["Model", session.model],
    ["Voice", session.audio?.output?.voice?.id ?? session.audio?.output?.voice],
    ["Turns", turns],
    ["Tools", session.tools?.length || "none"],
    ["Expires", session.expires_at ? new Date(session.expires_at * 1000).toLocaleTimeString() : ""],
  ]);
  $("session-instructions").textContent = session.instructions || "(none)";
  $("session").hidden = false;
}

/** Clock and deadline, once a second. */
function tick() {
  const live = $("state").dataset.state === "connected" && connectedAt;
  if (live) {
    const deadline = attempt?.call?.status?.deadline;
    const left = deadline ? `, ${minutes(time(deadline) - Date.now())} left` : "";
    $("clock").textContent = minutes(Date.now() - connectedAt) + left;
  } else if (!connectedAt) $("clock").textContent = "";
}

/** @param {number} ms */
function minutes(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** @type {ReturnType<typeof setInterval>|undefined} */
let countdown;

/**
 * @param {SwitchboardError} refusal
 * @param {{at?: string, retry?: boolean, scroll?: boolean}} [how]
 */
function showRefusal(refusal, { at = "", retry = false, scroll = true } = {}) {
  clearInterval(countdown);
  const panel = $("refusal");
  const { what, next } = inWords(refusal);
  panel.dataset.code = refusal.code;
  $("refusal-title").textContent = what;
  $("refusal-next").textContent = next;
  describe($("refusal-facts"), [
    ["Code", refusal.code],
    ["Status", refusal.status || ""],
    ["At", at],
    ["Parameter", refusal.param],
    ["Detail", refusal.message === what ? "" : refusal.message],
    ["Request id", refusal.requestId],
    ["Try again", refusal.retryAfter === null ? "" : "now", "retry-after"],
  ]);
  $("refusal-tone").hidden = !needsMicrophone(refusal.code);
  $("refusal-retry").hidden = !retry;
  if (refusal.retryAfter !== null) count(refusal.retryAfter);
  panel.hidden = false;
  if (scroll) reveal(panel);
}

/**
 * What is left of the caller's quotas, as the last counted answer said (draft-ietf-httpapi-ratelimit-headers).
 * @param {string} field  such as `"user-minute";r=7;t=42, "user-day";r=97;t=86020`
 */
function showQuota(field) {
  const left = [...field.matchAll(/"([^"]+)";r=(\d+);t=(\d+)/g)].map(([, policy, remaining, seconds]) => {
    const [whose, window] = policy.split("-");
    return `${remaining} left this ${window}${whose === "tenant" ? " for the whole tenant" : ""}, anew in ${inTime(Number(seconds))}`;
  });
  if (!left.length) return;
  $("quota").textContent = `Quota: ${left.join("; ")}.`;
  $("quota").hidden = false;
}

/** @param {number} seconds @returns {string} */
function inTime(seconds) {
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

/** Scroll only if it is out of sight. @param {HTMLElement} element */
function reveal(element) {
  const { top, bottom } = element.getBoundingClientRect();
  if (top < 0 || bottom > innerHeight) element.scrollIntoView({ block: "center" });
}

/** @param {number} seconds */
function count(seconds) {
  const until = Date.now() + seconds * 1000;
  const show = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    $("retry-after").textContent = left > 0 ? `in ${left} s` : "now";
    button("refusal-retry").disabled = left > 0;
    if (left <= 0) clearInterval(countdown);
  };
  countdown = setInterval(show, 1000);
  show();
}

function hideRefusal() {
  clearInterval(countdown);
  button("refusal-retry").disabled = false;
  $("refusal").hidden = true;
  delete $("refusal").dataset.code;
}

// ---- Try to break it ----

function showAttacks() {
  for (const attack of attacks) {
    const row = document.createElement("li");
    row.innerHTML = '<button type="button"></button><p></p><output></output>';
    const run = /** @type {HTMLButtonElement} */ (row.querySelector("button"));
    const result = /** @type {HTMLOutputElement} */ (row.querySelector("output"));
    run.id = `break-${attack.id}`;
    run.textContent = attack.title;
    /** @type {HTMLElement} */ (row.querySelector("p")).textContent = attack.why;
    run.addEventListener("click", async () => {
      run.setAttribute("aria-busy", "true");
      result.textContent = "…";
      delete result.dataset.outcome;
      const refusal = await refused(attack);
      run.removeAttribute("aria-busy");
      result.dataset.outcome = refusal?.code === attack.expect ? "refused" : "other";
      result.textContent = refusal ? `${refusal.status || "no answer"} ${refusal.code}` : attack.allowed;
      if (!refusal) return;
      const words = document.createElement("span");
      words.textContent = inWords(refusal).what;
      result.append(words);
      showRefusal(refusal, { scroll: false }); // whoever is here wants to try the next one
    });
    $("attacks").append(row);
  }
}

/** @param {import("./attacks.js").Attack} attack @returns {Promise<SwitchboardError|null>} */
async function refused(attack) {
  try {
    await attack.run({ issue, user: input("user").value.trim() || "alice", request: ask });
    return null;
  } catch (error) {
    return error instanceof SwitchboardError ? error : new SwitchboardError("browser_error", String(error));
  }
}

// ---- Wiring ----

/** @param {EventTarget|null} target */
const typing = (target) => target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) && !/^(radio|checkbox)$/.test(/** @type {HTMLInputElement} */ (target).type);

function listen() {
  $("caller").addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  $("tenant").addEventListener("change", showPresets);
  for (const id of ["preset", "path-token", "path-relay"]) $(id).addEventListener("change", showRoute);
  $("mute").addEventListener("click", toggleMute);
  $("hangup").addEventListener("click", hangUp);
  $("unblock").addEventListener("click", async () => {
    await audio.play();
    $("unblock").hidden = true;
  });
  $("refusal-close").addEventListener("click", () => {
    hideRefusal();
    $("connect").focus({ preventScroll: true });
  });
  $("refusal-retry").addEventListener("click", () => start());
  $("refusal-tone").addEventListener("click", () => {
    select("source").value = "tone";
    start("tone");
  });
  $("say-hello").addEventListener("click", respond);
  $("talk").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input("message").value.trim();
    if (!text) return;
    send({ type: "conversation.item.create", item: { type: "message", role: "user", content: [{ type: "input_text", text }] } });
    respond();
    input("message").value = "";
  });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || typing(event.target)) return;
    if (event.key.toLowerCase() === "m" && !button("mute").disabled) toggleMute();
    else if (event.key === "Escape" && !button("hangup").disabled) hangUp();
    else return;
    event.preventDefault();
  });
  setInterval(tick, 1000);
}

/** A link may choose: /demo?tenant=acme&user=bob&plan=pro&preset=support&path=relay */
function choose() {
  const wanted = new URLSearchParams(location.search);
  /** @param {string} id */
  const take = (id) => {
    const value = wanted.get(id);
    const options = [...select(id).options].map((option) => option.value);
    if (value !== null && options.includes(value)) select(id).value = value;
  };
  take("tenant");
  showPresets();
  take("preset");
  take("plan");
  take("source");
  input("user").value = wanted.get("user") ?? config.users[0] ?? "";
  if (wanted.get("path") === "relay") input("path-relay").checked = true;
  showRoute();
}

async function load() {
  listen();
  showAttacks();
  try {
    const response = await request(fetch, new URL("/demo/config", location.href).href);
    config = await response.json();
  } catch (error) {
    $("problem").textContent = "Switchboard did not say what it serves. Is switchboard dev running? Reload this page when it is.";
    $("problem").hidden = false;
    return;
  }
  fill($("tenant"), config.tenants.map(({ name }) => [name, name]));
  fill($("users"), config.users.map((name) => [name, name]));
  $("mode").textContent = config.live ? "Live provider: calls are billed" : "Emulator: no key, no cost";
  $("mode").dataset.live = String(config.live);
  $("mode").hidden = false;
  if (config.ops_url) {
    /** @type {HTMLAnchorElement} */ ($("ops")).href = new URL("/metrics", config.ops_url).href;
    $("ops").hidden = false;
  }
  choose();
  document.documentElement.dataset.ready = "true";
}

load();
