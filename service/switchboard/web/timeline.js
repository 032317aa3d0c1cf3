// @ts-check
/** The steps of a call, each with its time since the click, and a bar that shows where the time went. */

/** @typedef {import("./attempt.js").StepName} StepName */

/** @typedef {{row: HTMLElement, hint: HTMLElement, time: HTMLElement, delta: HTMLElement, bar: HTMLElement}} Row */

/** @type {{name: StepName, title: string, hint: string}[]} */
const STEPS = [
  { name: "login", title: "Log in", hint: "The app’s own login signs" },
  { name: "token", title: "Token", hint: "Switchboard admits and mints" },
  { name: "microphone", title: "Microphone", hint: "This browser opens its audio" },
  { name: "offer", title: "Offer", hint: "SDP, candidates included" },
  { name: "answer", title: "Answer", hint: "201 with the provider’s SDP" },
  { name: "ice", title: "ICE connected", hint: "A path to the provider" },
  { name: "channel", title: "Data channel open", hint: "Events can flow" },
  { name: "session", title: "session.created", hint: "The provider is ready" },
  { name: "audio", title: "First audio", hint: "The assistant is heard" },
];

export class Timeline {
  /** @type {Map<StepName, Row>} */
  #rows = new Map();
  /** @type {{name: StepName, delta: number}[]} */
  #done = [];
  #last = 0;
  /** @type {number|null} */
  #asked = null;

  /** @param {HTMLElement} list an empty ol */
  constructor(list) {
    for (const { name, title } of STEPS) {
      const row = document.createElement("li");
      row.dataset.step = name;
      row.innerHTML =
        '<span class="dot" aria-hidden="true"></span><span class="what"><b></b> <small></small></span>' +
        '<span class="track" aria-hidden="true"><i></i></span><span class="ms"></span><span class="delta"></span>';
      const part = (/** @type {string} */ selector) => /** @type {HTMLElement} */ (row.querySelector(selector));
      part("b").textContent = title;
      this.#rows.set(name, { row, hint: part("small"), time: part(".ms"), delta: part(".delta"), bar: part("i") });
      list.append(row);
    }
    this.reset();
  }

  reset() {
    this.#done = [];
    this.#last = 0;
    this.#asked = null;
    for (const { name, hint } of STEPS) {
      const parts = this.#part(name);
      parts.row.dataset.status = "waiting";
      delete parts.row.dataset.ms;
      parts.hint.textContent = hint;
      parts.time.textContent = "";
      parts.delta.textContent = "";
      parts.bar.style.setProperty("--size", "0");
    }
  }

  start() {
    this.#activate();
  }

  /**
   * @param {StepName} name
   * @param {string} why
   */
  skip(name, why) {
    const { row, hint } = this.#part(name);
    row.dataset.status = "skipped";
    hint.textContent = why;
  }

  /** The user asked for speech: the wait before that was theirs. @param {number} ms */
  asked(ms) {
    this.#asked ??= ms;
  }

  /**
   * @param {StepName} name
   * @param {number} ms
   */
  done(name, ms) {
    const { row, hint, time, delta } = this.#part(name);
    const own = name === "audio" && this.#asked !== null && this.#asked > this.#last;
    const took = ms - (own ? /** @type {number} */ (this.#asked) : this.#last);
    this.#last = Math.max(this.#last, ms);
    row.dataset.ms = String(Math.round(ms));
    row.dataset.status = "done";
    if (own) hint.textContent = "From when you asked";
    time.textContent = `${format(ms)} ms`;
    delta.textContent = `+${format(took)}`;
    this.#done.push({ name, delta: Math.max(0, took) });
    this.#draw();
    this.#activate();
  }

  /** The call stopped here: mark the step that it waited for, and say which. */
  fail() {
    const row = [...this.#rows.values()].map(({ row }) => row).find((row) => row.dataset.status === "active");
    if (row) row.dataset.status = "failed";
    return row?.dataset.step ?? "";
  }

  stop() {
    for (const { row } of this.#rows.values()) if (row.dataset.status === "active") row.dataset.status = "waiting";
  }

  #activate() {
    const next = STEPS.map(({ name }) => this.#part(name).row).find((row) => row.dataset.status === "waiting" || row.dataset.status === "active");
    if (next) next.dataset.status = "active";
  }

  #draw() {
    const total = this.#done.reduce((sum, { delta }) => sum + delta, 0) || 1;
    let from = 0;
    for (const { name, delta } of this.#done) {
      const { bar } = this.#part(name);
      bar.style.setProperty("--from", String(from / total));
      bar.style.setProperty("--size", String(delta / total));
      from += delta;
    }
  }

  /** @param {StepName} name */
  #part(name) {
    return /** @type {Row} */ (this.#rows.get(name));
  }
}

/** @param {number} ms */
const format = (ms) => Math.round(ms).toLocaleString("en");
