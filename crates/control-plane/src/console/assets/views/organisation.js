// Environments and their clusters.

import * as api from "../api.js";
import { h } from "../dom.js";
import { timeAgo } from "../format.js";
import { route } from "../routes.js";
import { ask, clusterResource, empty, field, heading, nameInput, notice } from "../ui.js";

async function make(what, at, refresh) {
  const input = nameInput();
  const done = await ask({
    title: `New ${what}`,
    action: "Make it",
    body: [field("Name", input, "Letters, digits, dashes, dots and underscores.")],
    submit: (form) => api.call("POST", at, { body: { name: form.get("name").trim() } }),
  });
  if (done) await changed(`The ${what} is made.`, refresh);
}

async function remove(what, name, at, refresh) {
  const typed = h("input", { name: "typed", required: true, autocomplete: "off", spellcheck: "false" });
  const done = await ask({
    title: `Delete ${what} ${name}?`,
    action: "Delete",
    danger: true,
    body: [
      h(
        "p",
        null,
        "All that is known of its tables is deleted here, and cannot be brought back. ",
        "The tables themselves are not touched.",
      ),
      field(`Type ${name} to confirm`, typed),
    ],
    submit: async (form) => {
      if (form.get("typed") !== name)
        throw Object.assign(new Error(`Type ${name}.`), { title: "The name does not match" });
      await api.call("DELETE", at);
    },
  });
  if (done) await changed(`${name} is deleted.`, refresh);
}

async function changed(text, refresh) {
  notice(text);
  await route.contexts({ again: true });
  refresh();
}

export const organisation = {
  title: () => "Environments",

  async load({ signal }) {
    const named = api.can("read_organisation") ? await api.get("/organisation", { signal }) : null;
    const { items } = await api.list("/environments", { signal, atLeast: 1000 });
    const clusters = await Promise.all(
      items.map((one) => api.list(api.path("environments", one.id, "clusters"), { signal, atLeast: 1000 })),
    );
    return { named, environments: items.map((one, at) => ({ ...one, clusters: clusters[at].items })) };
  },

  render({ data, refresh }) {
    const beside =
      api.can("manage_environments") &&
      h(
        "div",
        { class: "actions" },
        h(
          "button",
          { class: "primary", onclick: () => make("environment", "/environments", refresh) },
          "New environment",
        ),
      );
    return [
      heading("Environments", { beside, lead: data.named && `Organisation ${data.named.name}` }),
      data.environments.length === 0
        ? empty(
            "There is no environment that you may see",
            "An environment holds clusters, such as production and staging. ",
            api.can("manage_environments")
              ? "Make one with New environment."
              : "Ask an organisation admin for a role binding.",
          )
        : data.environments.map((one) => card(one, refresh)),
    ];
  },
};

function card(one, refresh) {
  const resource = `environment/${one.id}`;
  const at = api.path("environments", one.id);
  const id = `environment-${one.id}`;
  return h(
    "section",
    { class: "card", "data-key": one.id, "aria-labelledby": id },
    h(
      "div",
      { class: "section-head" },
      h("h2", { id }, one.name),
      h("small", null, "since ", timeAgo(one.created_ms)),
      h("span", { class: "stretch" }),
      api.can("manage_clusters", resource) &&
        h("button", { onclick: () => make("cluster", `${at}/clusters`, refresh) }, "New cluster"),
      api.can("manage_environments", resource) &&
        h(
          "button",
          {
            class: "danger",
            onclick: () => remove("environment", one.name, at, refresh),
            "aria-label": `Delete environment ${one.name}`,
          },
          "Delete",
        ),
    ),
    one.clusters.length === 0
      ? h(
          "p",
          { class: "hint" },
          "No cluster yet. A cluster is a group of workers with one credential, and their tables.",
        )
      : h(
          "ul",
          { class: "clusters" },
          one.clusters.map((cluster) => {
            const params = { env: one.id, cluster: cluster.id };
            return h(
              "li",
              { "data-key": cluster.id },
              h("strong", null, h("a", { href: route.ofCluster(params, "tables") }, cluster.name)),
              api.can("read_workers", clusterResource(params)) &&
                h(
                  "a",
                  { href: route.ofCluster(params, "workers"), "aria-label": `Workers of ${cluster.name}` },
                  "Workers",
                ),
              api.can("read_commands", clusterResource(params)) &&
                h(
                  "a",
                  { href: route.ofCluster(params, "commands"), "aria-label": `Commands of ${cluster.name}` },
                  "Commands",
                ),
              h("span", { class: "stretch" }),
              h("code", { class: "id" }, cluster.id),
              api.can("manage_clusters", `${resource}/cluster/${cluster.id}`) &&
                h(
                  "button",
                  {
                    class: "danger quiet",
                    onclick: () =>
                      remove("cluster", cluster.name, `${at}${api.path("clusters", cluster.id)}`, refresh),
                    "aria-label": `Delete cluster ${cluster.name}`,
                  },
                  "Delete",
                ),
            );
          }),
        ),
  );
}
