// Commands to workers and how they ended.

import * as api from "../api.js";
import { h } from "../dom.js";
import { timeAgo, words } from "../format.js";
import { route } from "../routes.js";
import { actor } from "./grants.js";
import { badge, empty, heading, more, table, tag } from "../ui.js";

const PART = 100;
const FAULTS = {
  unknown_table: "the table is not in the worker's spec",
  expired: "it came after its time",
  not_allowed: "the worker's own settings do not allow commands",
};

function stateOf(one) {
  if (one.outcomes.some((end) => end.outcome !== "done"))
    return one.outcomes.some((end) => end.outcome === "done") ? "partly" : "failed";
  if (one.outcomes.length > 0) return "done";
  return one.expires_ms < Date.now() ? "expired" : "waiting";
}

function outcomes(one) {
  if (one.outcomes.length === 0)
    return h(
      "span",
      { class: "none" },
      stateOf(one) === "waiting" ? "no worker has answered yet" : "no worker fetched it in time",
    );
  return h(
    "ul",
    { class: "plain" },
    one.outcomes.map((end) =>
      h(
        "li",
        null,
        badge(end.outcome === "done" ? "done" : "failed", end.outcome),
        " ",
        end.error && [tag(end.error, "kind of the error"), " "],
        FAULTS[end.outcome] && `${FAULTS[end.outcome]} `,
        h("code", { title: end.worker_id }, end.worker_id.slice(0, 8)),
        " ",
        timeAgo(end.at_ms),
      ),
    ),
  );
}

const columns = (params) => [
  { id: "action", label: "Command", head: true, sort: (one) => one.action, cell: (one) => words(one.action) },
  {
    id: "table",
    label: "Table",
    sort: (one) => one.table,
    cell: (one) =>
      one.table
        ? h("a", { href: route.ofTable({ ...params, table: one.table }) }, one.table)
        : h("span", { class: "none" }, "the workers"),
  },
  { id: "state", label: "State", sort: stateOf, cell: (one) => badge(stateOf(one)) },
  { id: "created", label: "Given", sort: (one) => one.created_ms, cell: (one) => timeAgo(one.created_ms) },
  {
    id: "by",
    label: "By",
    sort: (one) => one.created_by,
    cell: (one) => actor(one.created_by),
  },
  { id: "outcomes", label: "Outcomes", cell: outcomes },
];

const list = (params, { signal, atLeast, table: name }) =>
  api.list(api.path("environments", params.env, "clusters", params.cluster, "commands"), {
    limit: PART,
    atLeast,
    signal,
    parameters: { table: name },
  });

const show = (params, { items, cursor }, { state, set }) => [
  table({
    caption: "Commands",
    columns: columns(params),
    items,
    id: (one) => one.id,
    sort: state.sort,
    onsort: (sort) => set({ sort }),
  }),
  more(
    cursor,
    items.length,
    () => set({ shown: state.shown + PART }, { reload: true }),
    items.length === 1 ? "command" : "commands",
  ),
];

export const commands = {
  title: ({ params }) => `Commands of ${route.named(params).clusterName}`,
  kept: ["sort"],
  state: () => ({ sort: "-created", shown: PART }),
  load: ({ params, state, signal }) => list(params, { signal, atLeast: state.shown }),

  render(page) {
    const { params, data } = page;
    const cluster = route.named(params);
    return [
      heading("Commands", {
        crumbs: [
          ["Environments", route.to("organisation")],
          [`${cluster.environmentName} / ${cluster.clusterName}`, route.ofCluster(params, "tables")],
        ],
        lead: "What workers were asked to do. They fetch commands themselves; nobody calls a worker.",
      }),
      data.items.length === 0
        ? empty(
            "No command was given",
            "Pause, resume, compact and expire are on the page of a ",
            h("a", { href: route.ofCluster(params, "tables") }, "table"),
            ".",
          )
        : show(params, data, page),
    ];
  },
};

export const commandsTab = {
  load: ({ params, state, signal }) =>
    api.can("read_commands", `environment/${params.env}/cluster/${params.cluster}`)
      ? list(params, { signal, atLeast: state.shown, table: params.table })
      : { items: [], cursor: null },

  render(page) {
    const { params, data } = page;
    const items = data.items.filter((one) => one.table === params.table);
    if (items.length === 0)
      return empty("No command was given to this table", "Pause, compact and expire are at the top of this page.");
    return show(params, { ...data, items }, page);
  },
};
