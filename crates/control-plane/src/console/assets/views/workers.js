// The workers that are connected now. Nothing of this is in the database.

import * as api from "../api.js";
import { h } from "../dom.js";
import { count, dataBytes, dataCount, timeAgo, words } from "../format.js";
import { route } from "../routes.js";
import { ask, clusterResource, empty, heading, notice, table, tag } from "../ui.js";

const at = (params, ...parts) => api.path("environments", params.env, "clusters", params.cluster, ...parts);

function meter(percent) {
  return h(
    "span",
    { class: "meter" },
    h("meter", { min: 0, max: 100, value: percent, "aria-label": "utilisation" }),
    ` ${percent} %`,
  );
}

const COLUMNS = [
  {
    id: "worker",
    label: "Worker",
    head: true,
    sort: (one) => one.worker_id,
    cell: (one) => h("code", { title: one.worker_id, class: "break" }, one.worker_id),
  },
  { id: "version", label: "Version", sort: (one) => one.program_version, cell: (one) => one.program_version },
  {
    id: "utilisation",
    label: "Utilisation",
    number: true,
    sort: (one) => one.utilisation_percent,
    cell: (one) => meter(one.utilisation_percent),
  },
  { id: "vcpus", label: "vCPUs", number: true, sort: (one) => one.vcpus, cell: (one) => one.vcpus },
  {
    id: "memory",
    label: "Memory",
    number: true,
    sort: (one) => one.memory_bytes,
    cell: (one) => dataBytes(one.memory_bytes),
  },
  { id: "tables", label: "Tables", number: true, sort: (one) => one.tables, cell: (one) => dataCount(one.tables) },
  {
    id: "where",
    label: "Zone and address",
    sort: (one) => `${one.zone ?? ""} ${one.private_address ?? ""}`,
    cell: (one) => [one.zone && [tag(one.zone), " "], one.private_address && h("code", null, one.private_address)],
  },
  {
    id: "started",
    label: "Started",
    number: true,
    sort: (one) => one.started_ms,
    cell: (one) => timeAgo(one.started_ms),
  },
  { id: "seen", label: "Heard of", number: true, sort: (one) => one.seen_ms, cell: (one) => timeAgo(one.seen_ms) },
];

function details(one) {
  const samples = one.profile.reduce((sum, { samples: some }) => sum + some, 0);
  const events = one.events.map((event) =>
    h(
      "tr",
      null,
      h("th", { scope: "row" }, words(event.code)),
      h("td", null, event.table ?? ""),
      h("td", null, event.error ? tag(event.error) : ""),
      h("td", { class: "number" }, dataCount(event.count)),
    ),
  );
  const functions = one.profile
    .slice(0, 20)
    .map(({ function: name, samples: some }) =>
      h(
        "tr",
        null,
        h("th", { scope: "row" }, h("code", { class: "break" }, name)),
        h("td", { class: "number" }, `${((100 * some) / samples).toFixed(1)} %`),
      ),
    );
  const head = (...names) =>
    h(
      "thead",
      null,
      h(
        "tr",
        null,
        names.map((name) => h("th", { scope: "col" }, name)),
      ),
    );
  return h(
    "details",
    { "data-key": one.worker_id },
    h(
      "summary",
      null,
      h("code", null, one.worker_id),
      ` ${count(one.events.length)} kinds of events`,
      samples ? `, ${count(samples)} profile samples` : "",
    ),
    h(
      "div",
      { class: "pair" },
      events.length > 0 &&
        h(
          "div",
          { class: "table-box", tabindex: "0", role: "region", "aria-label": `Events of ${one.worker_id}` },
          h(
            "table",
            null,
            h("caption", null, "Events since it started or was first heard of"),
            head("Event", "Table", "Error", "Times"),
            h("tbody", null, events),
          ),
        ),
      functions.length > 0 &&
        h(
          "div",
          { class: "table-box", tabindex: "0", role: "region", "aria-label": `Profile of ${one.worker_id}` },
          h(
            "table",
            null,
            h("caption", null, "Where it spent its time, last sample"),
            head("Function", "Share"),
            h("tbody", null, functions),
          ),
        ),
    ),
  );
}

async function rotate(params) {
  const done = await ask({
    title: "Read API keys anew?",
    action: "Ask the workers",
    body: [
      h(
        "p",
        null,
        "Every worker of this cluster reads its API key again from its file or environment. ",
        "Put the new key there first; the old one goes on until its overlap is over.",
      ),
    ],
    submit: () => api.call("POST", at(params, "rotate")),
  });
  if (done) notice("The workers are asked to read their API key anew.");
}

export const workers = {
  title: ({ params }) => `Workers of ${route.named(params).clusterName}`,
  kept: ["sort"],
  state: () => ({ sort: "worker" }),
  load: ({ params, signal }) => api.list(at(params, "workers"), { signal, atLeast: 1000 }),

  render({ params, data, state, set }) {
    const cluster = route.named(params);
    const told = data.items.filter((one) => one.events.length || one.profile.length);
    const beside =
      api.can("command", clusterResource(params)) &&
      data.items.length > 0 &&
      h("div", { class: "actions" }, h("button", { onclick: () => rotate(params) }, "Rotate keys"));
    return [
      heading("Workers", {
        crumbs: [
          ["Environments", route.to("organisation")],
          [`${cluster.environmentName} / ${cluster.clusterName}`, route.ofCluster(params, "tables")],
        ],
        beside,
        lead: "Connected now. This is in memory only: it is in no database, and gone when the control plane restarts.",
      }),
      data.items.length === 0
        ? empty(
            "No worker is connected",
            "A worker connects when its config names this control plane and an API key with the role ",
            h("code", null, "worker"),
            " on this cluster. Make one under ",
            h("a", { href: route.to("access", "keys") }, "API keys"),
            ".",
          )
        : table({
            caption: "Workers",
            columns: COLUMNS,
            items: data.items,
            id: (one) => one.worker_id,
            sort: state.sort,
            onsort: (sort) => set({ sort }),
          }),
      told.length > 0 && [
        h("h2", null, "Events and profiles"),
        h(
          "p",
          { class: "hint" },
          "Closed codes and names of functions of the program. ",
          "There is no text of records in them, as there is no field for it.",
        ),
        told.map(details),
      ],
    ];
  },
};
