// Choosing a role and what it is on.

import { h } from "../dom.js";
import { words } from "../format.js";
import { route } from "../routes.js";
import { field, select } from "../ui.js";

export { words };

export const ROLES = {
  organisation_admin: "Everything in the organisation: access, audit, environments.",
  environment_admin: "Clusters of an environment, their tables and commands.",
  operator: "Reads tables and workers; pauses, resumes, compacts, expires.",
  metadata_reader: "Reads tables: schemas, files, snapshots, offsets, plots.",
  worker: "Reports for one cluster and fetches its commands; reads nothing.",
};

export function roleField() {
  const about = h("small", null, ROLES.metadata_reader);
  const choice = select(
    Object.keys(ROLES).map((role) => [role, words(role)]),
    "metadata_reader",
    (role) => {
      about.textContent = ROLES[role];
    },
    { name: "role", required: true },
  );
  const part = field("Role", choice);
  about.id = `${choice.id}-hint`;
  choice.setAttribute("aria-describedby", about.id);
  part.append(about);
  return part;
}

/** A choice of a resource: the organisation, an environment, a cluster, or tables of a cluster by name or prefix. */
export function resourceField() {
  const options = [["organisation", "The whole organisation"]];
  const seen = new Set();
  for (const one of route.all()) {
    if (!seen.has(one.env)) options.push([`environment/${one.env}`, `Environment ${one.environmentName}`]);
    seen.add(one.env);
    options.push([
      `environment/${one.env}/cluster/${one.cluster}`,
      `Cluster ${one.environmentName} / ${one.clusterName}`,
    ]);
  }
  const tables = h("input", {
    name: "tables",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "every table",
    disabled: true,
  });
  const where = select(
    options,
    "organisation",
    (value) => {
      tables.disabled = !value.includes("/cluster/");
    },
    { name: "resource" },
  );
  return {
    nodes: [
      field("On", where),
      field("Only tables", tables, "A name, or a prefix and a star, such as shop.*; for a cluster alone."),
    ],
    value: () =>
      tables.disabled || !tables.value.trim() ? where.value : `${where.value}/table/${tables.value.trim()}`,
  };
}

/** A resource for people: `production / eu-west / shop.*`, with names in place of ids where they are known. */
export function named(resource) {
  const [environment, cluster, table] = resource.split("/").filter((_, at) => at % 2 === 1);
  if (!environment) return resource;
  const all = route.all();
  const names = [all.find((one) => one.env === environment)?.environmentName ?? environment];
  if (cluster) names.push(all.find((one) => one.cluster === cluster)?.clusterName ?? cluster);
  if (table) names.push(table);
  return names.join(" / ");
}

/** Who did something: the kind, and the end of the id, which tells ids of one time apart. */
export function actor(text) {
  const [kind, id] = text.split("/");
  if (!id || id.length < 12) return h("span", { class: "break" }, words(text));
  return h("span", { class: "nowrap", title: text }, `${words(kind)} `, h("code", null, `…${id.slice(-6)}`));
}
