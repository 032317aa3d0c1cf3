// @ts-check
/** What was said, in the order of the conversation, from the provider's events. */

export class Transcript {
  #list;
  /** @type {Map<string, HTMLElement>} */
  #turns = new Map();

  /** @param {HTMLElement} list */
  constructor(list) {
    this.#list = list;
  }

  clear() {
    this.#turns.clear();
    this.#list.replaceChildren();
  }

  /** @param {{type: string, [key: string]: any}} event */
  see(event) {
    switch (event.type) {
      case "conversation.item.added":
      case "conversation.item.created":
        return this.#item(event.item);
      case "conversation.item.input_audio_transcription.delta":
        return this.#append(event.item_id, "user", event.delta);
      case "conversation.item.input_audio_transcription.completed":
        return this.#finish(event.item_id, "user", event.transcript);
      case "conversation.item.input_audio_transcription.failed":
        return this.#finish(event.item_id, "user", "(could not be transcribed)");
      case "response.output_audio_transcript.delta":
      case "response.output_text.delta":
        return this.#append(event.item_id, "assistant", event.delta);
      case "response.output_audio_transcript.done":
        return this.#finish(event.item_id, "assistant", event.transcript);
      case "response.output_text.done":
        return this.#finish(event.item_id, "assistant", event.text);
      case "conversation.item.truncated":
        this.#turns.get(event.item_id)?.classList.add("cut");
        return undefined;
      default:
        return undefined;
    }
  }

  /** @param {{id?: string, type?: string, role?: string, content?: {type: string, text?: string, transcript?: string|null}[]}} [item] */
  #item(item) {
    if (item?.type !== "message" || !item.id || (item.role !== "user" && item.role !== "assistant")) return;
    const text = (item.content ?? []).map((part) => part.text ?? part.transcript ?? "").join(" ").trim();
    const turn = this.#turn(item.id, item.role);
    if (text) this.#finish(item.id, item.role, text);
    else if (item.role === "user") this.#text(turn).textContent = "(spoken)";
  }

  /**
   * @param {string} id
   * @param {string} role
   * @param {string} delta
   */
  #append(id, role, delta) {
    const turn = this.#turn(id, role);
    const text = this.#text(turn);
    if (turn.getAttribute("aria-busy") !== "true") text.textContent = "";
    turn.setAttribute("aria-busy", "true"); // read aloud once, when it is whole
    text.textContent += delta ?? "";
    this.#follow();
  }

  /**
   * @param {string} id
   * @param {string} role
   * @param {string} text
   */
  #finish(id, role, text) {
    const turn = this.#turn(id, role);
    this.#text(turn).textContent = text || "(nothing)";
    turn.removeAttribute("aria-busy");
    this.#follow();
  }

  /**
   * @param {string} id
   * @param {string} role
   */
  #turn(id, role) {
    let turn = this.#turns.get(id);
    if (!turn) {
      turn = document.createElement("p");
      turn.dataset.role = role;
      const who = document.createElement("b");
      who.textContent = role === "user" ? "You" : "Assistant";
      turn.append(who, document.createElement("span"));
      this.#turns.set(id, turn);
      this.#list.append(turn);
      this.#follow();
    }
    return turn;
  }

  /** @param {HTMLElement} turn */
  #text(turn) {
    return /** @type {HTMLElement} */ (turn.lastElementChild);
  }

  #follow() {
    this.#list.scrollTop = this.#list.scrollHeight;
  }
}
