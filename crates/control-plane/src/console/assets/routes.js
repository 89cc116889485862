// Addresses of pages: `#/e/ENVIRONMENT/c/CLUSTER/tables/NAME/files` and the like. Links are real links.

import * as api from "./api.js";
import { access } from "./views/access.js";
import { audit } from "./views/audit.js";
import { commands } from "./views/commands.js";
import { disclosures } from "./views/disclosures.js";
import { missing } from "./views/missing.js";
import { organisation } from "./views/organisation.js";
import { table } from "./views/table.js";
import { tables } from "./views/tables.js";
import { workers } from "./views/workers.js";

const ROUTES = [
  ["organisation", organisation],
  ["disclosures", disclosures],
  ["access/:part", access],
  ["audit", audit],
  ["e/:env/c/:cluster/tables", tables],
  ["e/:env/c/:cluster/tables/:table", table],
  ["e/:env/c/:cluster/tables/:table/:tab", table],
  ["e/:env/c/:cluster/workers", workers],
  ["e/:env/c/:cluster/commands", commands],
];

// The clusters that the session may see, for the choice in the side bar and for names in headings.
let known = [];
let chosen = null;

export const route = {
  to: (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`,
  ofCluster: ({ env, cluster }, ...parts) => route.to("e", env, "c", cluster, ...parts),
  ofTable: (params, ...parts) => route.ofCluster(params, "tables", params.table, ...parts),
  all: () => known,
  chosen: () => chosen ?? known[0] ?? null,
  named: (params) =>
    known.find((one) => one.env === params.env && one.cluster === params.cluster) ?? {
      ...params,
      environmentName: params.env,
      clusterName: params.cluster,
    },

  /** Reads environments and clusters. What may not be read is left out. */
  async contexts({ again = false } = {}) {
    if (known.length && !again) return known;
    const found = [];
    try {
      const environments = await api.list("/environments", { atLeast: 1000 });
      for (const environment of environments.items) {
        const clusters = await api.list(api.path("environments", environment.id, "clusters"), { atLeast: 1000 });
        for (const cluster of clusters.items) {
          found.push({
            env: environment.id,
            cluster: cluster.id,
            environmentName: environment.name,
            clusterName: cluster.name,
          });
        }
      }
    } catch (error) {
      if (error.status !== 403 && error.status !== 404) throw error;
    }
    known = found;
    document.dispatchEvent(new CustomEvent("siltstone-contexts"));
    return known;
  },
};

function match(pattern, parts) {
  const wanted = pattern.split("/");
  if (wanted.length !== parts.length) return null;
  const params = {};
  for (const [at, part] of wanted.entries()) {
    if (part.startsWith(":")) params[part.slice(1)] = parts[at];
    else if (part !== parts[at]) return null;
  }
  return params;
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The view of an address, or where to go instead. */
export function resolve(hash) {
  const [at, query] = hash.replace(/^#\/?/, "").split("?");
  const parts = at.split("/").filter(Boolean).map(decoded);
  if (parts.length === 0) {
    const first = route.chosen();
    return { redirect: first ? route.ofCluster(first, "tables") : "#/organisation" };
  }
  for (const [pattern, view] of ROUTES) {
    const params = match(pattern, parts);
    if (!params) continue;
    if (params.env) chosen = route.named(params);
    const group = view.group?.(params);
    const options = Object.fromEntries(new URLSearchParams(query ?? ""));
    const kept = Object.fromEntries(Object.entries(options).filter(([name]) => view.kept?.includes(name)));
    return { view, params, options: kept, group, key: group ?? at, hash: `#/${at}` };
  }
  return { view: missing, params: {}, options: {}, key: at, hash: `#/${at}` };
}
