// One table, in tabs.

import * as api from "../api.js";
import { h } from "../dom.js";
import { dataBytes, dataCount, dataDuration, timeAgo } from "../format.js";
import { route } from "../routes.js";
import { ask, badge, heading, notice, tableResource, tag, tile, tiles } from "../ui.js";
import { healthOf, stateOf } from "./health.js";
import { commandsTab } from "./commands.js";
import { filesTab, offsetsTab, snapshotsTab } from "./lists.js";
import { schemaTab } from "./schema.js";
import { overviewTab } from "./overview.js";

const TABS = [
  ["", "Overview", overviewTab],
  ["schema", "Schema", schemaTab],
  ["files", "Files", filesTab],
  ["snapshots", "Snapshots", snapshotsTab],
  ["offsets", "Offsets", offsetsTab],
  ["commands", "Commands", commandsTab],
];

const tabOf = (params) => TABS.find(([id]) => id === (params.tab ?? "")) ?? TABS[0];
const allowed = (params) =>
  TABS.filter(([id]) => id !== "commands" || api.can("read_commands", tableResource(params)));

const ACTIONS = {
  pause: ["Pause", "Every worker stops reading the topic of this table; what is read is committed first."],
  resume: ["Resume", "Every worker goes on reading the topic of this table."],
  compact: ["Compact", "One worker does a round of compaction now."],
  expire: ["Expire", "One worker does a round of maintenance now: it expires what the table's spec says may expire."],
};

const at = (params, ...parts) =>
  api.path("environments", params.env, "clusters", params.cluster, "tables", params.table, ...parts);

function actions({ params, data, refresh }) {
  if (!api.can("command", tableResource(params))) return null;
  const paused = stateOf(data.table) === "paused";
  const offered = [paused ? "resume" : "pause", "compact", "expire"];
  const give = async (action) => {
    const [name, about] = ACTIONS[action];
    const done = await ask({
      title: `${name} ${params.table}?`,
      action: name,
      body: [
        h("p", null, about),
        h("p", null, "Workers fetch commands themselves: it takes effect at their next call."),
      ],
      submit: () => api.call("POST", at(params, "commands"), { body: { action } }),
    });
    if (!done) return;
    notice(`Asked the workers to ${action} ${params.table}. Its outcome is shown under Commands.`);
    refresh();
  };
  return h(
    "div",
    { class: "actions", role: "group", "aria-label": "Commands" },
    offered.map((action) => h("button", { onclick: () => give(action), "data-key": action }, ACTIONS[action][0])),
    api.can("delete_tables", tableResource(params)) &&
      h("button", { class: "danger", "data-key": "forget", onclick: () => forget(params) }, "Forget"),
  );
}

async function forget(params) {
  const done = await ask({
    title: `Forget ${params.table}?`,
    action: "Forget it",
    danger: true,
    body: [
      h(
        "p",
        null,
        "All that this control plane knows of the table is deleted. The table itself, its files and its topic are ",
        "not touched. While a worker still works on it, it will be reported again.",
      ),
    ],
    submit: () => api.call("DELETE", at(params)),
  });
  if (!done) return;
  notice(`${params.table} is forgotten.`);
  location.hash = route.ofCluster(params, "tables");
}

export const table = {
  title: ({ params }) => (params.tab ? `${params.table}: ${tabOf(params)[1].toLowerCase()}` : params.table),
  kept: ["sort", "range", "q"],
  state: () => ({ sort: "", range: "24h", q: "", shown: 100 }),
  group: ({ env, cluster, table: name }) => `table/${env}/${cluster}/${name}`,

  async load(page) {
    const [, , tab] = tabOf(page.params);
    const [one, of] = await Promise.all([
      api.get(at(page.params), page),
      tab.load({ ...page, at: (...parts) => at(page.params, ...parts) }),
    ]);
    return { table: one, tab: of };
  },

  render(page) {
    const { params, data } = page;
    const [current, , tab] = tabOf(params);
    const one = data.table;
    const now = healthOf(one);
    const cluster = route.named(params);
    const tabs = h(
      "nav",
      { class: "tabs", "aria-label": "Parts of the table" },
      h(
        "ul",
        null,
        allowed(params).map(([id, text]) =>
          h(
            "li",
            null,
            h(
              "a",
              {
                href: id ? route.ofTable(params, id) : route.ofTable(params),
                "aria-current": id === current && "page",
              },
              text,
            ),
          ),
        ),
      ),
    );
    const state = [
      badge(stateOf(one), stateOf(one) === "unknown" ? "not reported" : stateOf(one)),
      now.error && [" ", tag(now.error, "kind of the last error")],
      " ",
      one.formats.map((format) => [tag(format), " "]),
    ];
    return [
      heading(params.table, {
        crumbs: [
          ["Environments", route.to("organisation")],
          [`${cluster.environmentName} / ${cluster.clusterName}`, route.ofCluster(params, "tables")],
        ],
        beside: actions(page),
        lead: state,
      }),
      tiles(
        tile("Freshness", dataDuration(now.freshness_ms), "oldest uncommitted"),
        tile("Lag", dataCount(now.lag_records), "records to read"),
        tile("Rows", dataCount(one.rows)),
        tile("Size", dataBytes(one.bytes), [dataCount(one.files), " files"]),
        tile("To compact", dataCount(now.backlog_files), now.backlog_bytes ? dataBytes(now.backlog_bytes) : "files"),
        tile("Committed", timeAgo(one.committed_ms, "never"), `version ${one.version.toLocaleString("en")}`),
      ),
      tabs,
      h(
        "section",
        { class: "tab", "data-key": `tab-${current}`, "aria-label": `${tabOf(params)[1]} of ${params.table}` },
        tab.render({ ...page, data: data.tab, table: one }),
      ),
    ];
  },
};
