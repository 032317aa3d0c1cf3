// @ts-check
/** The event log: bounded, filtered by type, each row opening to its JSON. */

const KEPT = 500;

export class EventLog {
  #list;
  #count;
  #filter;
  #deltas;

  /**
   * @param {{list: HTMLElement, count: HTMLElement, filter: HTMLInputElement, deltas: HTMLInputElement, clear: HTMLElement}} parts
   */
  constructor({ list, count, filter, deltas, clear }) {
    this.#list = list;
    this.#count = count;
    this.#filter = filter;
    this.#deltas = deltas;
    filter.addEventListener("input", () => this.#apply());
    deltas.addEventListener("change", () => this.#apply());
    clear.addEventListener("click", () => this.clear());
    this.#apply();
  }

  clear() {
    this.#list.replaceChildren();
    this.#apply();
  }

  /**
   * @param {"sent"|"received"} direction
   * @param {{type: string, [key: string]: any}} event
   * @param {number} ms since the click
   */
  add(direction, event, ms) {
    const follow = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight < 24;
    const row = document.createElement("details");
    row.dataset.type = event.type;
    row.dataset.direction = direction;
    row.innerHTML = '<summary><span class="arrow"></span><span class="type"></span><span class="brief"></span><time></time></summary>';
    const part = (/** @type {string} */ selector) => /** @type {HTMLElement} */ (row.querySelector(selector));
    const arrow = part(".arrow");
    arrow.textContent = direction === "sent" ? "↑" : "↓";
    arrow.setAttribute("role", "img");
    arrow.setAttribute("aria-label", direction);
    part(".type").textContent = event.type;
    part(".brief").textContent = brief(event);
    part("time").textContent = `${(ms / 1000).toFixed(2)} s`;
    // Most rows are never opened: their JSON is made when one is.
    row.addEventListener(
      "toggle",
      () => {
        const json = document.createElement("pre");
        json.tabIndex = 0;
        json.textContent = JSON.stringify(event, null, 2);
        row.append(json);
      },
      { once: true },
    );
    row.hidden = !this.#shows(row);
    this.#list.append(row);
    while (this.#list.childElementCount > KEPT) this.#list.firstElementChild?.remove();
    this.#tally();
    if (follow) this.#list.scrollTop = this.#list.scrollHeight;
  }

  /** @param {HTMLElement} row */
  #shows(row) {
    const type = row.dataset.type ?? "";
    const wanted = this.#filter.value.trim().toLowerCase();
    return (this.#deltas.checked || !type.endsWith(".delta")) && type.toLowerCase().includes(wanted);
  }

  #apply() {
    for (const row of this.#rows()) row.hidden = !this.#shows(row);
    this.#tally();
  }

  #rows() {
    return /** @type {HTMLElement[]} */ ([...this.#list.children]);
  }

  #tally() {
    const rows = this.#rows();
    const shown = rows.filter((row) => !row.hidden).length;
    this.#count.textContent = shown === rows.length ? `${shown}` : `${shown} of ${rows.length}`;
    this.#list.dataset.empty = String(shown === 0);
  }
}

/** The part of an event worth seeing before it is opened. @param {{type: string, [key: string]: any}} event */
function brief(event) {
  const text = event.delta ?? event.transcript ?? event.error?.message ?? event.item?.content?.[0]?.text ?? event.response?.status ?? event.session?.model ?? "";
  return String(text).slice(0, 120);
}
