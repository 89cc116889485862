// People who signed on.

import * as api from "../api.js";
import { h } from "../dom.js";
import { timeAgo } from "../format.js";
import { ask, badge, empty, heading, more, notice, table } from "../ui.js";

/** How a person is named. */
export const personOf = (user) => user.name || user.email || user.subject || user.id;

async function change(user, { title, action, about, method, path, said }, refresh) {
  const done = await ask({
    title,
    action,
    danger: true,
    body: [h("p", null, about)],
    submit: () => api.call(method, api.path("users", user.id, ...path)),
  });
  if (done) {
    notice(said);
    refresh();
  }
}

const disable = (user, refresh) =>
  change(
    user,
    {
      title: `Disable ${personOf(user)}?`,
      action: "Disable",
      about: "All sessions end at once, and nobody signs on as this user until it is enabled again.",
      method: "POST",
      path: ["disable"],
      said: `${personOf(user)} is disabled.`,
    },
    refresh,
  );

const remove = (user, refresh) =>
  change(
    user,
    {
      title: `Delete ${personOf(user)}?`,
      action: "Delete",
      about: "Sessions and roles go, too. Who may still sign on at the provider comes back as a new user.",
      method: "DELETE",
      path: [],
      said: `${personOf(user)} is deleted.`,
    },
    refresh,
  );

async function enable(user, refresh) {
  try {
    await api.call("POST", api.path("users", user.id, "enable"));
    notice(`${personOf(user)} may sign on again.`);
    refresh();
  } catch (error) {
    notice(`${error.title}. ${error.detail}`, "bad");
  }
}

function actions(user, refresh) {
  const button = (text, does, kind) =>
    h("button", { class: kind, onclick: () => does(user, refresh), "aria-label": `${text} ${personOf(user)}` }, text);
  return h(
    "span",
    { class: "row-actions" },
    user.disabled_ms ? button("Enable", enable, "quiet") : button("Disable", disable, "danger"),
    button("Delete", remove, "danger"),
  );
}

export function users({ data, state, set, refresh }) {
  const columns = [
    { id: "name", label: "Name", head: true, sort: personOf, cell: personOf },
    { id: "email", label: "Email", sort: (one) => one.email, cell: (one) => one.email },
    { id: "provider", label: "Signs on with", sort: (one) => one.provider, cell: (one) => one.provider },
    { id: "state", label: "State", cell: (one) => badge(one.disabled_ms ? "disabled" : "active") },
    { id: "sessions", label: "Sessions", sort: (one) => one.sessions, cell: (one) => one.sessions },
    {
      id: "last",
      label: "Last sign-on",
      sort: (one) => one.last_sign_on_ms,
      cell: (one) => timeAgo(one.last_sign_on_ms),
    },
  ];
  if (api.can("manage_access")) {
    columns.push({ id: "do", label: "Change", cell: (one) => actions(one, refresh) });
  }
  const none = api.providers().length
    ? "Who signs on is listed here."
    : "This control plane has no provider of sign-on: see [[oidc]] in its config.";
  return [
    heading("Users", { lead: "People who signed on at least once. What they may do is in their roles." }),
    data.items.length === 0
      ? empty("No user", none)
      : table({
          caption: "Users",
          columns,
          items: data.items,
          id: (one) => one.id,
          sort: state.sort,
          onsort: (sort) => set({ sort }),
        }),
    more(null, data.items.length, null, data.items.length === 1 ? "user" : "users"),
  ];
}
