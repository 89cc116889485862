// Files, snapshots and offsets of a table: lists that go on by cursor.

import * as api from "../api.js";
import { h } from "../dom.js";
import { bytes, count, dataBytes, dataCount, exact, timeAgo, words } from "../format.js";
import { badge, empty, more, table, tag } from "../ui.js";

const PART = 100;

function listTab({ at, what, one, columns, id, none, note }) {
  return {
    load: (page) => api.list(page.at(at), { limit: PART, atLeast: page.state.shown, signal: page.signal }),
    render({ data, state, set, table: of }) {
      if (data.items.length === 0) return none;
      const all = typeof columns === "function" ? columns(data.items) : columns;
      return [
        note?.(of, data),
        table({
          caption: what,
          columns: all,
          items: data.items,
          id,
          sort: state.sort,
          onsort: (sort) => set({ sort }),
          scroll: true,
        }),
        more(
          data.cursor,
          data.items.length,
          () => set({ shown: state.shown + PART }, { reload: true }),
          data.items.length === 1 ? one : what,
        ),
      ];
    },
  };
}

const at = (ms) => new Date(ms).toISOString();
const READERS = {
  date: (days) => at(days * 86_400_000).slice(0, 10),
  timestamp: (micros) => at(micros / 1000).replace("Z", ""),
  timestamptz: (micros) => at(micros / 1000),
};

/** A typed value that was opted in, such as `{ date: 20700 }`. */
function text(value) {
  if (value === null || value === undefined) return "null";
  const [[type, inner]] = Object.entries(value);
  try {
    return String(READERS[type]?.(inner) ?? inner);
  } catch {
    return String(inner);
  }
}

function statistics(file) {
  const { bounds = [], partition = [] } = file.statistics ?? {};
  return [
    ...partition.map((one) => tag(`${one.field} = ${text(one.value)}`, "partition value, opted in")),
    ...bounds.map((one) =>
      tag(`${one.column}: ${text(one.least)} … ${text(one.greatest)}`, "least and greatest value, opted in"),
    ),
  ].flatMap((one) => [one, " "]);
}

const FILES = [
  {
    id: "path",
    label: "Path",
    head: true,
    wide: true,
    sort: (one) => one.path,
    cell: (one) => h("code", { class: "break" }, one.path),
  },
  { id: "rows", label: "Rows", number: true, sort: (one) => one.rows, cell: (one) => dataCount(one.rows) },
  { id: "bytes", label: "Size", number: true, sort: (one) => one.bytes, cell: (one) => dataBytes(one.bytes) },
  {
    id: "version",
    label: "Since version",
    number: true,
    sort: (one) => one.version,
    cell: (one) => exact(one.version),
  },
];
const DISCLOSED = { id: "statistics", label: "Opted in", cell: statistics };

export const filesTab = listTab({
  at: "files",
  what: "files",
  one: "file",
  id: (one) => one.path,
  columns: (items) => (items.some((one) => one.statistics) ? [...FILES, DISCLOSED] : FILES),
  none: empty("The table has no live file", "Files appear with the first commit that adds rows."),
  note: (of) => h("p", { class: "hint" }, "Paths below ", h("code", { class: "break" }, of.location), "."),
});

function change(added, removed, format, unit) {
  if (!added && !removed) return h("span", { class: "none" }, "–");
  const sign = (mark, value) =>
    value > 0 && h("span", { class: mark === "+" ? "plus" : "minus" }, `${mark}${format(value)}`);
  return h(
    "span",
    { title: `${exact(added)} ${unit} added, ${exact(removed)} removed` },
    sign("+", added),
    added > 0 && removed > 0 && " ",
    sign("−", removed),
  );
}

const SNAPSHOTS = [
  {
    id: "version",
    label: "Version",
    head: true,
    number: true,
    sort: (one) => one.version,
    cell: (one) => exact(one.version),
  },
  { id: "kind", label: "Change", sort: (one) => one.kind, cell: (one) => tag(words(one.kind)) },
  { id: "committed", label: "Committed", sort: (one) => one.committed_ms, cell: (one) => timeAgo(one.committed_ms) },
  {
    id: "rows",
    label: "Rows",
    number: true,
    sort: (one) => one.rows_added - one.rows_removed,
    cell: (one) => change(one.rows_added, one.rows_removed, count, "rows"),
  },
  {
    id: "files",
    label: "Files",
    number: true,
    sort: (one) => one.files_added - one.files_removed,
    cell: (one) => change(one.files_added, one.files_removed, count, "files"),
  },
  {
    id: "bytes",
    label: "Bytes",
    number: true,
    sort: (one) => one.bytes_added - one.bytes_removed,
    cell: (one) => change(one.bytes_added, one.bytes_removed, bytes, "bytes"),
  },
  {
    id: "rejected",
    label: "Rejected",
    number: true,
    sort: (one) => one.rejected,
    cell: (one) =>
      one.rejected ? badge("warn", count(one.rejected), `${exact(one.rejected)} records rejected`) : dataCount(0),
  },
];

export const snapshotsTab = listTab({
  at: "commits",
  what: "snapshots",
  one: "snapshot",
  id: (one) => String(one.version),
  columns: SNAPSHOTS,
  none: empty(
    "No commit is known",
    "Commits appear as workers report them. After an image of the whole table, only newer ones are known.",
  ),
});

const OFFSETS = [
  { id: "topic", label: "Topic", head: true, sort: (one) => one.topic, cell: (one) => one.topic },
  {
    id: "partition",
    label: "Partition",
    number: true,
    sort: (one) => one.partition,
    cell: (one) => exact(one.partition),
  },
  {
    id: "from",
    label: "From offset",
    number: true,
    sort: (one) => one.min_offset,
    cell: (one) => exact(one.min_offset),
  },
  {
    id: "to",
    label: "Committed up to",
    number: true,
    sort: (one) => one.max_offset,
    cell: (one) => exact(one.max_offset),
  },
  {
    id: "lost",
    label: "Lost",
    number: true,
    sort: (one) => one.lost_records,
    cell: (one) =>
      one.lost_records
        ? badge("bad", count(one.lost_records), "expired in Kafka before they were read")
        : dataCount(one.lost_records ?? 0),
  },
  {
    id: "cluster",
    label: "Kafka cluster",
    sort: (one) => one.cluster,
    cell: (one) => h("code", { class: "break" }, one.cluster),
  },
];

export const offsetsTab = listTab({
  at: "offsets",
  what: "partitions",
  one: "partition",
  id: (one) => `${one.cluster}/${one.topic}/${one.partition}`,
  columns: OFFSETS,
  none: empty("No offset is committed", "They appear with the first commit of records."),
});
