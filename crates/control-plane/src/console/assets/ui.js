// Parts that every page uses: tables that sort, badges, states of a page, dialogs, notices.

import { draw, h } from "./dom.js";
import { known } from "./format.js";

let serial = 0;
export const freshId = (name) => `${name}-${(serial += 1)}`;

/** Where the name of something new is typed. */
export const nameInput = () =>
  h("input", { name: "name", required: true, maxlength: 100, autocomplete: "off", spellcheck: "false" });

/** A message that stays for a while and is read out. */
export function notice(text, kind = "good") {
  const host = document.getElementById("toasts");
  const close = h("button", { class: "quiet", "aria-label": "Dismiss", onclick: () => toast.remove() }, "×");
  const toast = h("div", { class: `toast ${kind}` }, h("span", null, text), close);
  host.append(toast);
  while (host.children.length > 4) host.firstChild.remove();
  setTimeout(() => toast.remove(), 12_000);
}

const STATES = {
  good: "good",
  warn: "warn",
  bad: "bad",
  running: "good",
  done: "good",
  changed: "good",
  allowed: "good",
  active: "good",
  starting: "info",
  waiting: "info",
  handed_out: "info",
  pending: "info",
  paused: "warn",
  retrying: "warn",
  expires_soon: "warn",
  partly: "warn",
  stopped: "bad",
  failed: "bad",
  denied: "bad",
  unauthenticated: "bad",
  revoked: "off",
  expired: "off",
};

/** A word with a coloured mark; the word alone says it all. */
export function badge(state, text = state, title) {
  return h("span", { class: `badge ${STATES[state] ?? "off"}`, title }, String(text).replaceAll("_", " "));
}

export const tag = (text, title) => h("span", { class: "tag", title }, text);

export function empty(title, ...what) {
  return h("div", { class: "empty" }, h("h2", null, title), h("p", null, ...what));
}

export function problem(error, retry) {
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("h2", null, error.title ?? "Something went wrong"),
    h("p", null, error.detail || error.message || "There is no more to say about it."),
    retry && h("button", { onclick: retry }, "Try again"),
  );
}

export function skeleton() {
  return h(
    "div",
    { class: "skeleton", "aria-hidden": "true" },
    h("div", { class: "bone wide" }),
    h("div", { class: "bone tiles" }),
    h("div", { class: "bone block" }),
  );
}

/** Heading of a page, with what belongs beside it. */
export function heading(title, { crumbs = [], beside, lead } = {}) {
  const trail =
    crumbs.length > 0 &&
    h(
      "nav",
      { class: "crumbs", "aria-label": "Breadcrumb" },
      h(
        "ol",
        null,
        crumbs.map(([text, to]) => h("li", null, h("a", { href: to }, text))),
      ),
    );
  return h(
    "div",
    { class: "heading" },
    trail,
    h("div", { class: "heading-row" }, h("h1", { tabindex: "-1", id: "heading" }, title), beside),
    lead && h("p", { class: "lead" }, lead),
  );
}

export function tile(label, value, note) {
  return h("div", { class: "tile" }, h("dt", null, label), h("dd", null, value, note && h("small", null, note)));
}

export const tiles = (...all) => h("dl", { class: "tiles" }, all);

export function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => known(value) && value !== false)
      .map(([label, value]) => h("div", null, h("dt", null, label), h("dd", null, value))),
  );
}

const order = new Intl.Collator(undefined, { numeric: true });

function compare(left, right) {
  // What is not known comes last, whichever way the rest is sorted.
  if (typeof left === "number" && typeof right === "number") return left - right;
  return order.compare(String(left), String(right));
}

export function sorted(items, columns, sort) {
  const column = columns.find((one) => one.id === sort?.replace(/^-/, "") && one.sort);
  if (!column) return items;
  const sign = sort.startsWith("-") ? -1 : 1;
  const missing = (value) => !known(value) || value === "";
  return [...items].sort((a, b) => {
    const [left, right] = [column.sort(a), column.sort(b)];
    if (missing(left) || missing(right)) return missing(left) - missing(right);
    return sign * compare(left, right);
  });
}

/**
 * A table. A column is `{ id, label, cell(item), sort?(item), number?, head? }`; with `sort` its heading is a button.
 * On narrow screens a row becomes a card, and sorting a choice above the cards.
 */
export function table({ caption, columns, items, id, sort, onsort, scroll }) {
  const label = (column, on) => {
    const next = sort === column.id ? `-${column.id}` : column.id;
    const direction = sort === column.id ? "ascending" : sort === `-${column.id}` ? "descending" : "none";
    if (!column.sort || !onsort) {
      return h("th", { scope: "col", role: "columnheader", class: column.number && "number" }, column.label);
    }
    return h(
      "th",
      { scope: "col", role: "columnheader", "aria-sort": direction, class: column.number && "number" },
      h(
        "button",
        { class: "sort", onclick: () => onsort(next), "data-on": on },
        column.label,
        h(
          "span",
          { class: "arrow", "aria-hidden": "true" },
          direction === "ascending" ? "▲" : direction === "descending" ? "▼" : "↕",
        ),
      ),
    );
  };
  const cell = (column, item) => {
    const props = { class: [column.number && "number", column.wide && "wide"].filter(Boolean).join(" ") || null };
    const name = column.head ? "th" : "td";
    const role = column.head ? "rowheader" : "cell";
    return h(
      name,
      { ...props, role, scope: column.head && "row", "data-label": column.label },
      h("span", { class: "cell" }, column.cell(item)),
    );
  };
  const shown = sorted(items, columns, sort);
  const body = shown.map((item) =>
    h(
      "tr",
      { role: "row", "data-key": id(item) },
      columns.map((column) => cell(column, item)),
    ),
  );
  return h(
    "div",
    { class: "table-part" },
    onsort && chooser(columns, sort, onsort),
    h(
      "div",
      scroll ? { class: "table-box", tabindex: "0", role: "region", "aria-label": caption } : { class: "table-box" },
      h(
        "table",
        { role: "table" },
        h("caption", { class: "hidden-text" }, caption),
        h(
          "thead",
          { role: "rowgroup" },
          h(
            "tr",
            { role: "row" },
            columns.map((column) => label(column)),
          ),
        ),
        h("tbody", { role: "rowgroup" }, body),
      ),
    ),
  );
}

function chooser(columns, sort, onsort) {
  const options = columns
    .filter((column) => column.sort)
    .flatMap((column) => [
      [column.id, `${column.label}, least first`],
      [`-${column.id}`, `${column.label}, greatest first`],
    ]);
  if (!sort) options.unshift(["", "As listed"]);
  return h("label", { class: "sort-choice" }, "Sort by ", select(options, sort ?? "", onsort));
}

export function select(options, chosen, onchange, props = {}) {
  const node = h(
    "select",
    { ...props, onchange: (event) => onchange?.(event.target.value) },
    options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)),
  );
  node.value = chosen;
  return node;
}

/** A search box; `/` goes there. */
export function search(label, value, oninput) {
  return h(
    "label",
    { class: "search" },
    h("span", { class: "hidden-text" }, label),
    h("input", {
      type: "search",
      value,
      placeholder: label,
      autocomplete: "off",
      spellcheck: "false",
      "data-search": true,
      "aria-keyshortcuts": "/",
      oninput: (event) => oninput(event.target.value),
    }),
    h("kbd", { "aria-hidden": "true" }, "/"),
  );
}

export function more(cursor, shown, onmore, what) {
  if (!cursor) return h("p", { class: "count" }, `${shown.toLocaleString("en")} ${what}`);
  return h(
    "div",
    { class: "more" },
    h("span", null, `${shown.toLocaleString("en")} ${what} shown`),
    h("button", { onclick: onmore }, "Show more"),
  );
}

export function field(label, control, hint) {
  const id = control.id || freshId("field");
  control.id = id;
  const hintId = `${id}-hint`;
  if (hint) control.setAttribute("aria-describedby", hintId);
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    control,
    hint && h("small", { id: hintId }, hint),
  );
}

/**
 * A dialog. `submit` may reject: what went wrong is then shown in the dialog, which stays. Resolves to true when done.
 */
export function ask({ title, body = [], action = "Save", danger = false, submit, dismiss = "Cancel" }) {
  return new Promise((resolve) => {
    const id = freshId("dialog");
    const fault = h("div");
    const send = action && h("button", { class: danger ? "danger" : "primary", type: "submit" }, action);
    let done = false;
    const onsubmit = async (event) => {
      event.preventDefault();
      if (!form.reportValidity()) return;
      send.disabled = true;
      try {
        await submit?.(new FormData(form));
        done = true;
        dialog.close();
      } catch (error) {
        draw(fault, problem(error));
      } finally {
        send.disabled = false;
      }
    };
    const cancel = h(
      "button",
      { type: "button", class: action ? "" : "primary", onclick: () => dialog.close() },
      dismiss,
    );
    const form = h(
      "form",
      { onsubmit },
      h("h2", { id }, title),
      body,
      fault,
      h("div", { class: "buttons" }, cancel, send),
    );
    const dialog = h(
      "dialog",
      {
        "aria-labelledby": id,
        onclose: () => {
          dialog.remove();
          resolve(done);
        },
      },
      form,
    );
    document.body.append(dialog);
    dialog.showModal();
    // A dialog that destroys begins at the button that does not.
    if (danger) cancel.focus();
  });
}

/** A secret that is shown once. */
export function reveal(title, secret, note) {
  const box = h("input", {
    class: "secret",
    type: "text",
    readonly: true,
    value: secret,
    spellcheck: "false",
    "aria-label": "API key",
    onfocus: (event) => event.target.select(),
  });
  const said = h("span", { class: "said", role: "status" });
  const copy = h(
    "button",
    {
      type: "button",
      class: "primary",
      onclick: async () => {
        try {
          await navigator.clipboard.writeText(secret);
          said.textContent = "Copied.";
        } catch {
          box.focus();
          said.textContent = "The browser does not let this page copy: it is selected, press Ctrl+C.";
        }
      },
    },
    "Copy",
  );
  const warning = h(
    "p",
    { class: "warning" },
    h("strong", null, "It is shown this once. "),
    "Only a hash of it is kept. Put it where your worker or script reads it, before you close this.",
  );
  return ask({
    title,
    body: [warning, h("div", { class: "secret-row" }, box, copy), said, note && h("p", null, note)],
    action: null,
    dismiss: "I have stored it",
  });
}

/** The environment and cluster of a page, as resources of rights. */
export const clusterResource = ({ env, cluster }) => `environment/${env}/cluster/${cluster}`;
export const tableResource = (params) => `${clusterResource(params)}/table/${params.table}`;
