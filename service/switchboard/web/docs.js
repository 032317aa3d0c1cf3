// @ts-check
/** The contract as a page, built from /openapi.json. All text goes in as text; nothing of the document becomes markup. */

/** @typedef {Record<string, any>} Doc A part of the document. */
/** @typedef {{id: string, method: string, path: string, operation: Doc}} Operation */

const METHODS = ["get", "post", "put", "patch", "delete", "options"];
const DEEPEST = 6;

/** @type {Doc} */
let contract = {};

/** @param {string} id */
const $ = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/**
 * @param {string} tag
 * @param {Record<string, any>} [attributes] `class`, `data-…`, `aria-…`; handlers as `onclick`
 * @param {...(Node|string|null|undefined)} children
 * @returns {HTMLElement}
 */
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(.../** @type {any[]} */ (children.filter((child) => child !== null && child !== undefined)));
  return element;
}

// ---- Light Markdown: paragraphs, lists, `code`, **bold** ----

/**
 * @param {string} text
 * @returns {(HTMLElement|string)[]}
 */
function inline(text) {
  return text
    .split(/(`[^`]+`|\*\*[^*]+\*\*)/)
    .filter(Boolean)
    .map((part) => {
      if (/^`[^`]+`$/.test(part)) return el("code", { class: part.length < 30 ? "short" : null }, part.slice(1, -1));
      if (/^\*\*[^*]+\*\*$/.test(part)) return el("strong", {}, ...inline(part.slice(2, -2)));
      return part;
    });
}

/**
 * @param {string|undefined} text
 * @returns {HTMLElement[]}
 */
function blocks(text) {
  return (text ?? "")
    .trim()
    .split(/\n\s*\n/)
    .filter(Boolean)
    .map((block) => {
      if (!block.startsWith("- ")) return el("p", {}, ...inline(block.replace(/\s*\n\s*/g, " ")));
      const items = block.split(/\n(?=- )/).map((item) => item.slice(2).replace(/\s*\n\s*/g, " "));
      return el("ul", {}, ...items.map((item) => el("li", {}, ...inline(item))));
    });
}

/** @param {string|undefined} text */
const prose = (text) => (text ? el("div", { class: "prose" }, ...blocks(text)) : null);

/**
 * Paragraphs that open with a bold sentence become topics of their own.
 * @param {string} text
 */
function topics(text) {
  /** @type {HTMLElement[]} */
  const made = [];
  for (const block of blocks(text)) {
    const title = block.tagName === "P" && block.firstElementChild === block.firstChild && block.firstElementChild?.tagName === "STRONG" ? block.firstElementChild : null;
    if (title || made.length === 0) made.push(el("section", { class: "topic" }, el("div", { class: "prose" })));
    const topic = made[made.length - 1];
    if (title) {
      title.remove();
      topic.prepend(el("h3", {}, (title.textContent ?? "").replace(/\.$/, "")));
      const first = block.firstChild;
      if (first instanceof Text) first.data = first.data.trimStart();
    }
    topic.querySelector(".prose")?.append(block);
  }
  if (made.length && !made[0].querySelector("h3")) made[0].classList.add("wide");
  return made;
}

// ---- The document ----

/**
 * @param {Doc|undefined} node
 * @returns {Doc} the node, its `$ref` followed; what stands beside the reference refines it
 */
function follow(node) {
  if (!node?.$ref) return node ?? {};
  const { $ref, ...beside } = node;
  let target = contract;
  for (const name of $ref.slice(2).split("/")) target = target[name.replaceAll("~1", "/").replaceAll("~0", "~")];
  const base = follow(target);
  if (!beside.properties) return { ...base, ...beside };
  const properties = { ...base.properties };
  for (const [name, refined] of Object.entries(beside.properties)) properties[name] = { ...follow(properties[name]), ...refined };
  return { ...base, ...beside, properties };
}

/** @returns {Operation[]} */
function operations() {
  return Object.entries(contract.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ id: item[method].operationId, method: method.toUpperCase(), path, operation: item[method] })),
  );
}

/**
 * @param {Doc} response
 * @returns {string[]} the codes of a refusal; empty for an answer
 */
function codesOf(response) {
  const code = response.content?.["application/problem+json"]?.schema?.properties?.code;
  return code ? (code.enum ?? [code.const]) : [];
}

// ---- Schemas ----

/**
 * @param {any} value
 * @returns {HTMLElement}
 */
const literal = (value) => el("code", {}, typeof value === "string" ? value : JSON.stringify(value));

/**
 * @param {Node[]} things
 * @returns {(Node|string)[]}
 */
const listed = (things) => things.flatMap((thing, index) => (index === 0 ? [thing] : [index === things.length - 1 ? " or " : ", ", thing]));

/**
 * @param {Doc} schema
 * @returns {(Node|string)[]}
 */
function typeOf(schema) {
  if ("const" in schema) return ["always ", literal(schema.const)];
  if (schema.enum) return schema.enum.length > 12 ? [`one of ${schema.enum.length} values`] : listed(schema.enum.map(literal));
  if (schema.anyOf) return schema.anyOf.flatMap((/** @type {Doc} */ one, /** @type {number} */ index) => [...(index ? [" or "] : []), ...typeOf(follow(one))]);
  const types = [schema.type ?? "any"].flat().join(" or ");
  return [schema.format ? `${types} (${schema.format})` : types];
}

/**
 * @param {Doc} schema
 * @returns {string[]}
 */
function boundsOf(schema) {
  const { minimum, maximum, minLength, maxLength, pattern } = schema;
  const said = [];
  if (minimum !== undefined && maximum !== undefined) said.push(`${minimum} to ${maximum}`);
  else if (minimum) said.push(`at least ${minimum}`);
  if (maxLength !== undefined) said.push(`at most ${maxLength} characters`);
  else if (minLength > 1) said.push(`at least ${minLength} characters`);
  if (pattern) said.push(`matches ${pattern}`);
  if (schema.default !== undefined) said.push(`default ${JSON.stringify(schema.default)}`);
  return said;
}

/**
 * @param {Doc} schema
 * @returns {Doc|null} the object inside it that has members
 */
function objectIn(schema) {
  if (schema.properties) return schema;
  for (const one of schema.anyOf ?? []) {
    const inner = objectIn(follow(one));
    if (inner) return inner;
  }
  return null;
}

/**
 * @param {{name: string, schema: Doc, required?: boolean, description?: string, place?: string}} about
 * @param {number} [depth]
 */
function field({ name, schema, required, description, place }, depth = 0) {
  const bounds = boundsOf(schema);
  const inner = depth < DEEPEST ? objectIn(schema) : null;
  return el(
    "li",
    {},
    el(
      "div",
      { class: "field-head" },
      el("code", {}, name),
      required ? el("span", { class: "must" }, "required") : null,
      el("span", { class: "type" }, ...typeOf(schema), place ? ` · ${place}` : null),
    ),
    prose(description ?? schema.description),
    bounds.length ? el("p", { class: "bounds" }, ...bounds.flatMap((bound, index) => [index ? " · " : "", ...(bound.startsWith("matches ") ? ["matches ", el("code", {}, bound.slice(8))] : [bound])])) : null,
    inner ? members(inner, depth + 1) : null,
  );
}

/**
 * @param {Doc} schema
 * @param {number} [depth]
 */
function members(schema, depth = 0) {
  const required = new Set(schema.required ?? []);
  return el(
    "ul",
    { class: "fields" },
    ...Object.entries(schema.properties ?? {}).map(([name, one]) => field({ name, schema: follow(one), required: required.has(name) }, depth)),
  );
}

// ---- Samples ----

/** @type {Record<string, RegExp>} */
const TOKENS = {
  json: /(?<k>"(?:[^"\\]|\\.)*"(?=\s*:))|(?<s>"(?:[^"\\]|\\.)*")|(?<n>-?\d[\d.eE+-]*|true|false|null)/g,
  js: /(?<c>\/\/[^\n]*)|(?<s>"(?:[^"\\\n]|\\.)*"|`[^`]*`)|(?<k>\b(?:const|await|async|new|if|throw|return)\b)/g,
  shell: /(?<s>'[^']*'|"[^"]*")|(?<k>(?<=\s)-{1,2}[a-zA-Z][a-z-]*)/g,
};

/**
 * @param {string} text
 * @param {string} language
 * @returns {(Node|string)[]}
 */
function coloured(text, language) {
  const pattern = TOKENS[language];
  if (!pattern) return [text];
  const parts = [];
  let at = 0;
  for (const match of text.matchAll(pattern)) {
    const kind = Object.entries(match.groups ?? {}).find(([, found]) => found !== undefined)?.[0];
    parts.push(text.slice(at, match.index), el("span", { class: kind }, match[0]));
    at = match.index + match[0].length;
  }
  return [...parts, text.slice(at)];
}

/**
 * @param {HTMLElement} code
 * @returns {HTMLElement}
 */
function copyButton(code) {
  const button = el("button", { class: "copy", type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent ?? "");
      button.textContent = "Copied";
    } catch {
      getSelection()?.selectAllChildren(code); // no clipboard here: one keystroke is left to the reader
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => (button.textContent = "Copy"), 1600);
  });
  return button;
}

let tabs = 0;

/**
 * One or several texts to read and copy; several have tabs.
 * @param {string} label
 * @param {{name: string, text: string, language: string}[]} samples
 * @param {string} [lead] stands before the tabs
 */
function sample(label, samples, lead) {
  const code = el("code");
  const pre = el("pre", { tabindex: 0, "aria-label": label, id: `sample-${++tabs}` }, code);
  /** @param {number} index */
  const show = (index) => {
    const { text, language } = samples[index];
    pre.className = language === "shell" ? "wrap" : "";
    code.replaceChildren(.../** @type {any[]} */ (coloured(text, language)));
    buttons.forEach((button, at) => {
      button.setAttribute("aria-selected", String(at === index));
      button.tabIndex = at === index ? 0 : -1;
    });
  };
  const buttons =
    samples.length < 2
      ? []
      : samples.map(({ name }, index) => el("button", { type: "button", role: "tab", "aria-controls": pre.id, onclick: () => show(index) }, name));
  const list = el("div", { role: "tablist", "aria-label": label }, ...buttons);
  list.addEventListener("keydown", ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (!step) return;
    const next = (buttons.findIndex((button) => button.tabIndex === 0) + step + buttons.length) % buttons.length;
    show(next);
    buttons[next].focus();
  });
  show(0);
  return el("div", { class: "sample" }, el("div", { class: "bar" }, lead ? el("span", { class: "name" }, lead) : null, buttons.length ? list : el("span", { class: "name" }, samples[0].name), copyButton(code)), pre);
}

/** @param {any} value */
const shown = (value) => (typeof value === "string" ? { text: value.trimEnd(), language: "text" } : { text: JSON.stringify(value, null, 2), language: "json" });

/**
 * @param {Doc} media
 * @returns {{name: string, text: string, language: string}[]}
 */
function examplesOf(media) {
  return Object.entries(media.examples ?? {}).map(([name, reference]) => {
    const example = follow(reference);
    return { name: codesOf({ content: { "application/problem+json": media } }).length ? name : (example.summary ?? name), ...shown(example.value) };
  });
}

/** @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** @param {Operation} about */
function asCurl({ method, path, operation }) {
  const parameters = (operation.parameters ?? []).map(follow);
  const url = path.replace(/\{(\w+)\}/g, (_, name) => parameters.find((/** @type {Doc} */ one) => one.name === name)?.example ?? name);
  const lines = [`curl -i${method === "GET" ? "" : ` -X ${method}`} ${quoted(location.origin + url)}`];
  if (operation.security?.length) lines.push('-H "Authorization: Bearer $TOKEN"');
  const content = follow(operation.requestBody).content ?? {};
  const [mediaType, media] = Object.entries(content)[0] ?? [];
  if (mediaType === "application/json") {
    const values = Object.values(media.examples).map((example) => JSON.stringify(follow(example).value));
    const fullest = values.reduce((one, other) => (other.length > one.length ? other : one));
    lines.push(`-H ${quoted(`Content-Type: ${mediaType}`)}`, `--data ${quoted(fullest)}`);
  } else if (mediaType) {
    lines.push(`-H ${quoted(`Content-Type: ${mediaType}`)}`, "--data-binary @offer.sdp");
  }
  return lines.join(" \\\n  ");
}

/**
 * @param {Operation} about
 * @returns {{name: string, text: string, language: string}[]}
 */
function multipartCurl({ path, operation }) {
  const media = follow(operation.requestBody).content?.["multipart/form-data"];
  if (!media) return [];
  const { session } = /** @type {Doc} */ (Object.values(media.examples)[0]).value;
  return [
    {
      name: "curl, multipart",
      language: "shell",
      text: [
        `curl -i ${quoted(location.origin + path)}`,
        '-H "Authorization: Bearer $TOKEN"',
        "-F 'sdp=<offer.sdp;type=application/sdp'",
        `-F ${quoted(`session=${JSON.stringify(session)};type=application/json`)}`,
      ].join(" \\\n  "),
    },
  ];
}

// ---- One operation ----

/** @param {string} method */
const badge = (method) => el("span", { class: "method", "data-method": method }, method);

/** @param {string} path */
const templated = (path) => path.split(/(\{\w+\})/).filter(Boolean).map((part) => (part.startsWith("{") ? el("i", {}, part) : part));

/**
 * @param {string} title
 * @param {string|HTMLElement|null} aside
 * @param {...(Node|null)} content
 */
const part = (title, aside, ...content) => el("div", {}, el("h4", {}, title, aside ? el("small", {}, " ", aside) : null), ...content);

/** @param {Operation} about */
function who({ operation }) {
  if (!operation.security?.length) return el("p", { class: "who" }, "Open to everyone; no token is needed.");
  /** @type {Record<string, string>} */
  const names = { userToken: "the user’s JWT", grant: "a grant" };
  const ways = operation.security.flatMap((/** @type {Doc} */ way) => Object.keys(way)).map((/** @type {string} */ name) => el("a", { href: "#signing-in" }, names[name] ?? name));
  return el("p", { class: "who" }, el("span", {}, "Bearer token: ", ...listed(ways)));
}

/** @param {Doc} body */
function requestBody(body) {
  const media = Object.entries(body.content);
  const objects = media.map(([type, { schema }]) => [type, objectIn(follow(schema))]).filter(([, inner]) => inner);
  const types = media.map(([type]) => el("code", {}, type));
  return part(
    "Request body",
    body.required ? null : "(optional)",
    el("p", { class: "who" }, ...listed(types)),
    prose(body.description),
    ...objects.flatMap(([type, inner]) => [media.length > 1 ? el("p", { class: "who" }, el("span", {}, "Parts of ", el("code", {}, type), ":")) : null, members(inner)]),
  );
}

/**
 * @param {string} status
 * @param {Doc} response
 */
function answer(status, response) {
  const codes = codesOf(response);
  const media = Object.entries(response.content ?? {});
  const headers = Object.entries(response.headers ?? {}).map(([name, reference]) => {
    const header = follow(reference);
    return field({ name, schema: follow(header.schema), required: false, description: header.description });
  });
  const body = el(
    "div",
    { class: "body" },
    codes.length ? prose(response.description) : null,
    codes.length
      ? el("div", { class: "chips" }, ...codes.map((code) => el("a", { class: "chip", href: `#code-${code}` }, code)))
      : null,
  );
  for (const [type, { schema }] of media) {
    const inner = codes.length ? null : objectIn(follow(schema));
    if (!codes.length) body.append(part("Body", el("code", {}, type), inner && members(inner)));
  }
  if (headers.length) {
    body.append(
      el("details", { class: "parts" }, el("summary", {}, `${headers.length} headers`), el("ul", { class: "fields" }, ...headers)),
    );
  }
  if (codes.length) for (const [, one] of media) if (examplesOf(one).length) body.append(sample(`Example of ${status}`, examplesOf(one)));
  const said = codes.length ? el("span", { class: "chips" }, ...codes.map((code) => el("span", { class: "chip" }, code))) : el("span", {}, ...inline(response.description.trim()));
  return el("details", { open: status.startsWith("2") }, el("summary", {}, el("span", { class: "status", "data-class": status[0] }, status), said), body);
}

/** @param {Operation} about */
function card(about) {
  const { id, method, path, operation } = about;
  const parameters = (operation.parameters ?? []).map(follow);
  const body = operation.requestBody ? follow(operation.requestBody) : null;
  const responses = Object.entries(operation.responses).map(([status, reference]) => [status, follow(reference)]);
  const told = el("div", { class: "told" }, prose(operation.description), who(about));
  if (parameters.length) {
    told.append(
      part(
        "Parameters",
        null,
        el("ul", { class: "fields" }, ...parameters.map((/** @type {Doc} */ one) => field({ name: one.name, schema: follow(one.schema), required: one.required, description: one.description, place: one.in }))),
      ),
    );
  }
  if (body) told.append(requestBody(body));
  const answers = part("Answers", null, el("div", { class: "answers" }, ...responses.map(([status, response]) => answer(status, response))));

  const requests = [
    { name: "curl", language: "shell", text: asCurl(about) },
    ...(operation["x-codeSamples"] ?? []).map((/** @type {Doc} */ one) => ({ name: one.label ?? one.lang, language: "js", text: one.source.trimEnd() })),
    ...multipartCurl(about),
  ];
  const right = el("div", {}, sample(`Request: ${operation.summary}`, requests));
  for (const [type, media] of Object.entries(body?.content ?? {})) {
    const examples = type === "multipart/form-data" ? [] : examplesOf(media);
    if (examples.length) right.append(sample(`Request body as ${type}`, examples, "Body"));
  }
  for (const [status, response] of responses) {
    if (codesOf(response).length) continue;
    for (const media of Object.values(response.content ?? {})) {
      const examples = examplesOf(media);
      if (examples.length) right.append(sample(`Answer ${status}`, examples, status));
    }
  }
  return el(
    "article",
    { id, class: "operation card", "aria-labelledby": `${id}-title` },
    el(
      "header",
      {},
      el("h3", { id: `${id}-title` }, badge(method), el("code", {}, ...templated(path))),
      el("p", {}, operation.summary),
      el("a", { class: "here", href: `#${id}`, "aria-label": `Link to ${id}` }, `#${id}`),
    ),
    el("div", { class: "halves" }, told, el("div", { class: "shown" }, right), el("div", { class: "told" }, answers)),
  );
}

// ---- Problem codes ----

/** @param {Operation[]} all */
function codeRows(all) {
  /** @type {Record<string, Operation[]>} */
  const givers = {};
  for (const about of all) {
    for (const response of Object.values(about.operation.responses)) for (const code of codesOf(follow(response))) (givers[code] ??= []).push(about);
  }
  return Object.entries(contract["x-problem-codes"]).map(([code, { status, title, action }]) => {
    const by = (givers[code] ?? []).map(({ id, method, path }) => el("a", { href: `#${id}` }, `${method} ${path}`));
    const anywhere = code === "not_found" ? "any other path" : code === "method_not_allowed" ? "any other method" : "";
    const row = el(
      "tr",
      { id: `code-${code}` },
      el("td", {}, el("span", { class: "status", "data-class": String(status)[0] }, String(status))),
      el("th", { scope: "row" }, el("a", { href: `#code-${code}` }, el("code", {}, code))),
      el("td", {}, el("b", {}, title), prose(action), el("div", { class: "by" }, ...(by.length ? by : [anywhere]))),
    );
    row.dataset.text = [status, code, title, action, row.lastElementChild?.textContent].join(" ").toLowerCase();
    return row;
  });
}

function search() {
  const words = /** @type {HTMLInputElement} */ ($("search")).value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [.../** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("#code-table tbody tr"))];
  for (const row of rows) row.hidden = !words.every((word) => row.dataset.text?.includes(word));
  const left = rows.filter((row) => !row.hidden).length;
  $("found").textContent = words.length ? `${left} of ${rows.length}` : `${rows.length} codes`;
  $("code-table").hidden = left === 0;
}

// ---- The page ----

/** @param {Operation[]} all */
function contents(all) {
  /** @param {string} href @param {...any} content */
  const link = (href, ...content) => el("a", { href: `#${href}` }, ...content);
  const groups = contract.tags.map((/** @type {Doc} */ tag) =>
    el(
      "div",
      {},
      el("h2", {}, tag.name),
      ...all
        .filter(({ operation }) => operation.tags[0] === tag.name)
        .map(({ id, method, path, operation }) => {
          const made = link(id, badge(method), el("code", {}, path));
          made.title = operation.summary;
          return made;
        }),
    ),
  );
  $("contents").replaceChildren(
    el("div", {}, link("overview", "Overview"), link("signing-in", "Signing in")),
    ...groups,
    el("div", {}, el("h2", {}, "Refusals"), link("codes", "Problem codes"), link("problem-body", "Their body")),
  );
}

/** Marks where the reader is. */
function followReader() {
  const links = /** @type {HTMLAnchorElement[]} */ ([...document.querySelectorAll("#contents a")]);
  const targets = links.map((link) => $(link.hash.slice(1)));
  const mark = () => {
    const line = innerHeight * 0.25;
    let at = 0;
    targets.forEach((target, index) => {
      if (target.getBoundingClientRect().top <= line) at = index;
    });
    links.forEach((link, index) => (index === at ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
  };
  let waiting = false;
  addEventListener(
    "scroll",
    () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        mark();
      });
    },
    { passive: true },
  );
  mark();
}

/** Goes where the address points; a code that the search hides is shown again. */
function arrive() {
  const target = location.hash ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
  for (const hit of document.querySelectorAll(".hit")) hit.classList.remove("hit");
  if (!target) return;
  if (target.matches("tr")) {
    target.classList.add("hit");
    if (target.hidden || $("code-table").hidden) {
      /** @type {HTMLInputElement} */ ($("search")).value = "";
      search();
    }
  }
  target.scrollIntoView({ block: target.matches("tr") ? "center" : "start" });
}

function foldMenu() {
  const wide = matchMedia("(min-width: 960px)");
  const menu = /** @type {HTMLDetailsElement} */ ($("menu"));
  const fit = () => (menu.open = wide.matches);
  wide.addEventListener("change", fit);
  menu.addEventListener("click", ({ target }) => {
    if (!wide.matches && target instanceof Element && target.closest("a")) menu.open = false;
  });
  fit();
}

function build() {
  const all = operations();
  $("version").textContent = contract.info.version;
  $("summary").textContent = contract.info.summary;
  $("topics").replaceChildren(...topics(contract.info.description));
  $("schemes").replaceChildren(
    ...Object.entries(contract.components.securitySchemes).map(([name, scheme]) =>
      el("section", { class: "topic" }, el("h3", {}, { userToken: "The user’s JWT", grant: "A grant" }[name] ?? name), el("p", { class: "who" }, el("code", {}, `Authorization: Bearer ${name === "grant" ? "ek_swb_…" : "eyJ…"}`)), prose(scheme.description)),
    ),
  );
  $("operations").replaceChildren(
    ...contract.tags.map((/** @type {Doc} */ tag) =>
      el("section", {}, el("h2", {}, tag.name), el("p", { class: "lead" }, ...inline(tag.description)), ...all.filter(({ operation }) => operation.tags[0] === tag.name).map(card)),
    ),
  );
  document.querySelector("#code-table tbody")?.replaceChildren(...codeRows(all));
  const problem = contract.components.schemas.Problem;
  const example = contract.components.examples.override_not_allowed;
  $("problem-body").replaceChildren(
    el("div", { class: "halves" }, el("div", { class: "told" }, el("h3", {}, el("code", {}, "application/problem+json")), prose(problem.description), members(problem)), el("div", { class: "shown" }, el("div", {}, sample("A refusal", [{ name: example.summary, ...shown(example.value) }], String(example.value.status))))),
  );
  for (const id of ["signing-in", "codes"]) $(id).hidden = false;
  contents(all);
  foldMenu();
  search();
  $("search").addEventListener("input", search);
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement) return;
    event.preventDefault();
    $("search").focus();
    $("codes").scrollIntoView();
  });
  addEventListener("hashchange", arrive);
  followReader();
  arrive();
}

try {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  contract = await response.json();
  build();
} catch (error) {
  $("problem").hidden = false;
  $("problem").textContent = `The contract could not be shown (${error instanceof Error ? error.message : error}). It is at /openapi.yaml.`;
}
