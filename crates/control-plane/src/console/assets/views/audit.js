// The audit log, newest first.

import * as api from "../api.js";
import { h } from "../dom.js";
import { exact, timeAt } from "../format.js";
import { actor, named } from "./grants.js";
import { badge, empty, heading, more, search, select, table } from "../ui.js";

const PART = 200;
const OUTCOMES = [
  ["", "Every outcome"],
  ["changed", "Changed"],
  ["allowed", "Allowed"],
  ["denied", "Denied"],
  ["unauthenticated", "Unauthenticated"],
];

const COLUMNS = [
  {
    id: "sequence",
    label: "No.",
    head: true,
    number: true,
    sort: (one) => one.sequence,
    cell: (one) => exact(one.sequence),
  },
  { id: "at", label: "Time", sort: (one) => one.at_ms, cell: (one) => timeAt(one.at_ms) },
  { id: "actor", label: "Who", sort: (one) => one.actor, cell: (one) => actor(one.actor) },
  { id: "action", label: "Did", sort: (one) => one.action, cell: (one) => h("code", { class: "break" }, one.action) },
  {
    id: "resource",
    label: "On",
    sort: (one) => one.resource,
    cell: (one) => h("span", { title: one.resource }, named(one.resource)),
  },
  { id: "outcome", label: "Outcome", sort: (one) => one.outcome, cell: (one) => badge(one.outcome) },
  { id: "address", label: "From", sort: (one) => one.address, cell: (one) => h("code", null, one.address) },
];

export const audit = {
  title: () => "Audit log",
  kept: ["q", "outcome", "sort"],
  state: () => ({ q: "", outcome: "", sort: "-sequence", shown: PART }),
  load: ({ state, signal }) => api.list("/audit", { limit: PART, atLeast: state.shown, signal }),

  render({ data, state, set }) {
    const asked = state.q.toLowerCase();
    const fits = (one) =>
      (!state.outcome || one.outcome === state.outcome) &&
      [one.actor, one.action, one.resource, one.address].some((text) => text.toLowerCase().includes(asked));
    const items = data.items.filter(fits);
    return [
      heading("Audit log", {
        lead: [
          "Every authentication, decision and change, in a chain of hashes. ",
          h("code", null, "siltstone-control-plane audit verify"),
          " finds an entry that was changed, removed or moved.",
        ],
      }),
      h(
        "div",
        { class: "tools" },
        search("Filter by who, what or where", state.q, (q) => set({ q })),
        h(
          "label",
          null,
          h("span", { class: "hidden-text" }, "Outcome"),
          select(OUTCOMES, state.outcome, (outcome) => set({ outcome })),
        ),
      ),
      items.length === 0
        ? empty(
            "No entry matches",
            data.cursor
              ? "Only the newest entries are loaded: show more, or change the filter."
              : "Change the filter.",
          )
        : table({
            caption: "Audit log",
            columns: COLUMNS,
            items,
            id: (one) => String(one.sequence),
            sort: state.sort,
            onsort: (sort) => set({ sort }),
          }),
      more(
        data.cursor,
        items.length,
        () => set({ shown: state.shown + PART }, { reload: true }),
        items.length === 1 ? "entry" : "entries",
      ),
    ];
  },
};
