// What can be known here, and what cannot: the list that the message types themselves give.

import * as api from "../api.js";
import { h } from "../dom.js";
import { route } from "../routes.js";
import { heading, search, table, tag } from "../ui.js";

const NEVER = [
  ["Keys and values of records", "no message has a field for them"],
  ["Headers of records", "no message has a field for them"],
  ["The contents of data files", "workers write them to your storage; only path, size and counts are reported"],
  ["Bounds and partition values of columns", "unless the table's spec, which lies with you, opts in"],
  ["Documentation, defaults and enum symbols of schemas", "left out, as they can hold anything"],
  ["Messages of errors and log lines", "only closed codes and counts are reported"],
  ["Credentials of Kafka, registries, storage and catalogs", "they stay in the worker's environment"],
];

const GROUPS = [
  [
    "database",
    "Kept in the database",
    "Until the table, cluster or environment is deleted here. Schemas and paths are encrypted under your key.",
  ],
  ["memory", "In memory only", "Gone when the control plane restarts. Never in a database or a backup."],
  [
    "opt-in",
    "Only when opted in",
    "A worker sends these only when the table's spec names them under disclose. Nothing here can switch it on.",
  ],
];

const group = (one) => (one.opt_in ? "opt-in" : one.kept);

const COLUMNS = [
  { id: "path", label: "Field", head: true, cell: (one) => h("code", { class: "break" }, one.path) },
  { id: "message", label: "Message", cell: (one) => tag(one.message) },
  {
    id: "about",
    label: "What it is",
    cell: (one) => [one.description, one.opt_in && [" Only with ", h("code", null, one.opt_in), "."]],
  },
  { id: "kind", label: "Type", cell: (one) => h("span", { class: "kind break" }, one.kind) },
];

async function optedIn(signal) {
  const found = [];
  for (const at of route.all().slice(0, 20)) {
    const base = api.path("environments", at.env, "clusters", at.cluster, "tables");
    const page = await api.list(base, { signal, limit: 200 });
    for (const one of page.items.filter(({ disclosed }) => disclosed)) found.push({ ...one, at });
  }
  return found;
}

export const disclosures = {
  title: () => "What we know, and what we cannot know",
  open: true,
  still: true,
  kept: ["q"],
  state: () => ({ q: "" }),

  async load({ signal }) {
    const { items } = await api.list("/disclosures", { signal, atLeast: 10_000 });
    return { fields: items, opted: api.session() ? await optedIn(signal) : [] };
  },

  render({ data, state, set }) {
    const asked = state.q.toLowerCase();
    const fits = (one) => [one.path, one.message, one.description].some((text) => text.toLowerCase().includes(asked));
    const part = ([id, title, about]) => {
      const fields = data.fields.filter((one) => group(one) === id);
      const items = fields.filter(fits);
      return h(
        "details",
        { class: "group", "data-key": id, open: asked !== "" && items.length > 0 },
        h(
          "summary",
          null,
          h("h2", null, title),
          h("span", { class: "tag" }, `${items.length} of ${fields.length} fields`),
        ),
        h("p", null, about),
        id === "opt-in" && opted(data.opted),
        items.length > 0 &&
          table({ caption: title, columns: COLUMNS, items, id: (one) => `${one.message} ${one.path}` }),
      );
    };
    return [
      heading("What we know, and what we cannot know", {
        lead: [
          "Every field that a worker can send, read from the types of the messages themselves. ",
          "What is not on this page has no field, and cannot arrive.",
        ],
      }),
      h(
        "section",
        { class: "never", "aria-labelledby": "never" },
        h("h2", { id: "never" }, "Never"),
        h(
          "ul",
          null,
          NEVER.map(([what, why]) => h("li", null, h("strong", null, what), h("span", null, why))),
        ),
      ),
      h(
        "div",
        { class: "tools" },
        search("Filter fields", state.q, (q) => set({ q })),
      ),
      GROUPS.map(part),
    ];
  },
};

function opted(tables) {
  if (tables.length === 0) return h("p", { class: "hint" }, "No table that you may see has opted in to anything.");
  return h(
    "ul",
    { class: "plain" },
    tables.map(({ name, at, disclosed }) =>
      h(
        "li",
        null,
        h("a", { href: route.ofTable({ ...at, table: name }) }, name),
        ": ",
        [
          ...(disclosed.bounds ?? []).map((column) => tag(`bounds of ${column}`)),
          disclosed.partition_values && tag("partition values"),
        ]
          .filter(Boolean)
          .flatMap((one) => [one, " "]),
      ),
    ),
  );
}
