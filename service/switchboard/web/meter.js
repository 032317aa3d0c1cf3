// @ts-check
/** Level meters, the microphone and a stand-in for one. Meters and stand-in need WebAudio, and share one context. */

import { SwitchboardError } from "./switchboard.js";

/** What counts as silence and as full, in dBFS. */
const FLOOR = -60;
const CEILING = -8;
/** Screen readers and tests need no 60 values a second. */
const ARIA_MS = 100;

/** @type {AudioContext|undefined} */
let shared;

/** @returns {AudioContext} */
export function audioContext() {
  shared ??= new AudioContext({ latencyHint: "interactive" });
  // Allowed only after a gesture; every way to a call starts with one.
  if (shared.state === "suspended") shared.resume().catch(() => {});
  return shared;
}

/**
 * Shows the level of a stream on an element with role="meter": sets --level and --peak (0..1) and
 * aria-valuenow. A remote stream must also play in a media element, or Chromium gives WebAudio silence.
 */
export class Meter {
  #element;
  #samples = new Float32Array(1024);
  /** @type {MediaStreamAudioSourceNode|null} */ #source = null;
  /** @type {AnalyserNode|null} */ #analyser = null;
  #frame = 0;
  #level = 0;
  #peak = 0;
  #said = 0;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
    this.#show(0, true);
  }

  /** @param {MediaStream} stream */
  attach(stream) {
    this.detach();
    const context = audioContext();
    this.#source = context.createMediaStreamSource(stream);
    this.#analyser = new AnalyserNode(context, { fftSize: this.#samples.length, smoothingTimeConstant: 0 });
    this.#source.connect(this.#analyser);
    this.#frame = requestAnimationFrame(this.#tick);
  }

  detach() {
    cancelAnimationFrame(this.#frame);
    this.#source?.disconnect();
    this.#source = null;
    this.#analyser = null;
    this.#level = 0;
    this.#peak = 0;
    this.#show(0, true);
  }

  #tick = () => {
    if (!this.#analyser) return;
    this.#analyser.getFloatTimeDomainData(this.#samples);
    let sum = 0;
    for (const sample of this.#samples) sum += sample * sample;
    const decibels = 10 * Math.log10(sum / this.#samples.length + 1e-12);
    const now = Math.min(1, Math.max(0, (decibels - FLOOR) / (CEILING - FLOOR)));
    // Up at once, down slowly: what a meter's needle does.
    this.#level = Math.max(now, this.#level * 0.88);
    this.#peak = Math.max(now, this.#peak - 0.006);
    this.#show(this.#level);
    this.#frame = requestAnimationFrame(this.#tick);
  };

  /**
   * @param {number} level
   * @param {boolean} [force]
   */
  #show(level, force = false) {
    this.#element.style.setProperty("--level", level.toFixed(3));
    this.#element.style.setProperty("--peak", this.#peak.toFixed(3));
    const time = performance.now();
    if (!force && time - this.#said < ARIA_MS) return;
    this.#said = time;
    const percent = Math.round(level * 100);
    this.#element.setAttribute("aria-valuenow", String(percent));
    this.#element.setAttribute("aria-valuetext", percent < 5 ? "silent" : percent < 45 ? "quiet" : percent < 90 ? "clear" : "loud");
  }
}

const WITHOUT = new Map([
  ["NotAllowedError", "microphone_denied"],
  ["SecurityError", "microphone_denied"],
  ["NotFoundError", "microphone_absent"],
  ["NotReadableError", "microphone_busy"],
]);

/** The microphone, or why there is none. */
export async function openMicrophone() {
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true } });
  } catch (cause) {
    const { name, message } = /** @type {Error} */ (cause); // a TypeError where browsers offer none: without https
    throw new SwitchboardError(WITHOUT.get(name) ?? "microphone_unavailable", message, { cause });
  }
}

/**
 * A stream that needs no microphone: soft, spaced notes, or nothing at all.
 * @param {"tone"|"silence"} kind
 * @returns {MediaStream}
 */
export function syntheticStream(kind) {
  const context = audioContext();
  const out = context.createMediaStreamDestination();
  if (kind === "tone") {
    const seconds = 2;
    const buffer = context.createBuffer(1, context.sampleRate * seconds, context.sampleRate);
    const data = buffer.getChannelData(0);
    const notes = [293.66, 369.99, 440, 587.33];
    notes.forEach((pitch, index) => {
      const start = Math.floor(index * 0.25 * context.sampleRate);
      const length = Math.floor(0.4 * context.sampleRate);
      for (let i = 0; i < length; i++) {
        const t = i / context.sampleRate;
        data[start + i] += 0.22 * Math.sin(2 * Math.PI * pitch * t) * Math.min(1, t / 0.02) * Math.exp(-t * 7);
      }
    });
    const player = new AudioBufferSourceNode(context, { buffer, loop: true });
    player.connect(out);
    player.start();
  }
  return out.stream;
}
