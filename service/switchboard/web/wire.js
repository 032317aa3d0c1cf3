// @ts-check
/** The HTTP of a call, request by request, as curl to copy. Credentials are shown as a variable, never as themselves. */

/** @typedef {import("./attempt.js").Exchange} Exchange */

const KEPT = 12;

/** @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/**
 * @param {Exchange} exchange
 * @returns {string}
 */
export function asCurl({ method, url, headers, body, credential }) {
  const lines = [`curl -i -X ${method} ${quoted(url)}`];
  if (credential) lines.push(`-H "Authorization: Bearer $${credential === "grant" ? "SECRET" : "TOKEN"}"`);
  for (const [name, value] of Object.entries(headers)) lines.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (body?.startsWith("v=0")) lines.push("--data-binary @offer.sdp");
  else if (body !== null) lines.push(`--data ${quoted(body)}`);
  const note = { token: "# TOKEN: the user’s JWT (hidden)\n", grant: "# SECRET: value from /token (hidden)\n" };
  return (credential ? note[credential] : "") + lines.join(" \\\n  ");
}

export class Wire {
  #tabs;
  #code;
  /** @type {Exchange|null} */
  #shown = null;

  /** @param {{tabs: HTMLElement, code: HTMLElement, copy: HTMLButtonElement}} parts */
  constructor({ tabs, code, copy }) {
    this.#tabs = tabs;
    this.#code = code;
    copy.addEventListener("click", async () => {
      if (!this.#shown) return;
      try {
        await navigator.clipboard.writeText(asCurl(this.#shown));
        copy.textContent = "Copied";
      } catch {
        getSelection()?.selectAllChildren(code); // no clipboard here: one keystroke is left to the reader
        copy.textContent = "Press Ctrl+C";
      }
      setTimeout(() => (copy.textContent = "Copy"), 1600);
    });
  }

  clear() {
    this.#tabs.replaceChildren();
  }

  /** @param {Exchange} exchange */
  add(exchange) {
    const tab = document.createElement("button");
    tab.type = "button";
    tab.innerHTML = "<b></b> <code></code> <span></span> <time></time>";
    const [method, path, status, time] = tab.children;
    method.textContent = exchange.method;
    const url = new URL(exchange.url);
    path.textContent = (url.origin === location.origin ? "" : url.host) + url.pathname;
    status.textContent = exchange.status ? String(exchange.status) : "no answer";
    tab.setAttribute("aria-pressed", "false");
    tab.dataset.ok = String(exchange.status >= 200 && exchange.status < 300);
    time.textContent = `${Math.round(exchange.ms)} ms`;
    tab.addEventListener("click", () => this.#show(exchange, tab));
    this.#tabs.append(tab);
    while (this.#tabs.childElementCount > KEPT) this.#tabs.firstElementChild?.remove();
    // Reading the status is no step of the call: it is listed, not shown.
    if (exchange.method !== "GET") this.#show(exchange, tab);
    this.#tabs.scrollTop = this.#tabs.scrollHeight;
  }

  /**
   * @param {Exchange} exchange
   * @param {HTMLElement} tab
   */
  #show(exchange, tab) {
    this.#shown = exchange;
    for (const other of this.#tabs.children) other.setAttribute("aria-pressed", String(other === tab));
    this.#code.textContent = asCurl(exchange);
  }
}
