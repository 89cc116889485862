// Who may do what: API keys, service accounts, users and role bindings.

import * as api from "../api.js";
import { h } from "../dom.js";
import { timeAgo } from "../format.js";
import { route } from "../routes.js";
import {
  ask,
  badge,
  empty,
  field,
  heading,
  more,
  nameInput,
  notice,
  reveal,
  select,
  table,
  tag,
} from "../ui.js";
import { personOf, users } from "./users.js";
import { named, resourceField, roleField, ROLES, words } from "./grants.js";

const DAY = 86_400_000;
const LIFETIMES = [
  ["30", "30 days"],
  ["90", "90 days"],
  ["365", "1 year"],
  ["", "Does not expire"],
];
const OVERLAPS = [
  ["0", "The old key ends at once"],
  ["3600", "1 hour"],
  ["86400", "1 day"],
  ["604800", "7 days"],
];

const all = (at, signal) => api.list(at, { signal, atLeast: 2000, limit: 500 });
const nameOf = (accounts, id) => accounts.find((one) => one.id === id)?.name ?? id;

function keyState(key) {
  if (key.revoked_ms) return "revoked";
  if (key.expires_ms && key.expires_ms <= Date.now()) return "expired";
  return key.expires_ms && key.expires_ms - Date.now() < 14 * DAY ? "expires_soon" : "active";
}

async function makeKey({ data, refresh }) {
  const label = h("input", { name: "label", maxlength: 100, autocomplete: "off", required: true });
  const account = select(
    data.accounts.map((one) => [one.id, one.name]),
    data.accounts[0]?.id,
    null,
    { name: "account" },
  );
  const days = select(LIFETIMES, "90", null, { name: "days" });
  let made;
  const done = await ask({
    title: "New API key",
    action: "Make it",
    body: [
      field("Service account", account, "The key may do what the account's roles allow."),
      field("Label", label, "Where it will be used."),
      field("Expires after", days),
    ],
    submit: async (form) => {
      const body = { service_account: form.get("account"), label: form.get("label").trim() };
      if (form.get("days")) body.expires_ms = Date.now() + Number(form.get("days")) * DAY;
      made = await api.call("POST", "/api-keys", { body });
    },
  });
  if (!done) return;
  await reveal("The new API key", made.key);
  refresh();
}

async function rotateKey(key, refresh) {
  let made;
  const overlap = select(OVERLAPS, "86400", null, { name: "overlap" });
  const done = await ask({
    title: `Rotate ${key.label || key.id}?`,
    action: "Rotate",
    body: [
      h("p", null, "A successor is made. Both keys count until the overlap is over, so nothing stops meanwhile."),
      field("Old key goes on for", overlap),
    ],
    submit: async (form) => {
      made = await api.call("POST", `${api.path("api-keys", key.id)}/rotate`, {
        body: { overlap_seconds: Number(form.get("overlap")) },
      });
    },
  });
  if (!done) return;
  await reveal("The successor", made.key, "Workers read it anew when you choose Rotate keys on the page of workers.");
  refresh();
}

async function revokeKey(key, refresh) {
  const done = await ask({
    title: `Revoke ${key.label || key.id}?`,
    action: "Revoke",
    danger: true,
    body: [
      h("p", null, "It ends at once. Whatever uses it is turned away at its next request. This cannot be undone."),
    ],
    submit: () => api.call("DELETE", api.path("api-keys", key.id)),
  });
  if (done) {
    notice("The key is revoked.");
    refresh();
  }
}

function keys(page) {
  const { data, state, set, refresh } = page;
  const manage = api.can("manage_access");
  const columns = [
    {
      id: "label",
      label: "Label",
      head: true,
      sort: (one) => one.label,
      cell: (one) => identified(one.label || h("span", { class: "none" }, "no label"), one.id),
    },
    {
      id: "account",
      label: "Service account",
      sort: (one) => nameOf(data.accounts, one.service_account),
      cell: (one) => nameOf(data.accounts, one.service_account),
    },
    { id: "state", label: "State", sort: keyState, cell: (one) => badge(keyState(one)) },
    { id: "scope", label: "Scope", cell: (one) => scope(one) },
    { id: "created", label: "Made", sort: (one) => one.created_ms, cell: (one) => timeAgo(one.created_ms) },
    {
      id: "expires",
      label: "Expires",
      sort: (one) => one.expires_ms || null,
      cell: (one) => timeAgo(one.expires_ms, "never"),
    },
  ];
  if (manage) {
    columns.push({
      id: "do",
      label: "Change",
      cell: (one) =>
        !["revoked", "expired"].includes(keyState(one)) &&
        h(
          "span",
          { class: "row-actions" },
          h(
            "button",
            { onclick: () => rotateKey(one, refresh), "aria-label": `Rotate ${one.label || one.id}` },
            "Rotate",
          ),
          h(
            "button",
            {
              class: "danger",
              onclick: () => revokeKey(one, refresh),
              "aria-label": `Revoke ${one.label || one.id}`,
            },
            "Revoke",
          ),
        ),
    });
  }
  const items = data.items.filter((one) => state.ended || !["revoked", "expired"].includes(keyState(one)));
  const beside =
    manage &&
    h(
      "div",
      { class: "actions" },
      data.accounts.length > 0
        ? h("button", { class: "primary", onclick: () => makeKey(page) }, "New API key")
        : h("a", { class: "button primary", href: route.to("access", "accounts") }, "Make a service account first"),
    );
  return [
    heading("API keys", {
      beside,
      lead: "Workers and scripts sign in with these. Only hashes are kept; a key is shown once, when it is made.",
    }),
    h(
      "div",
      { class: "tools" },
      h(
        "label",
        { class: "check" },
        h("input", {
          type: "checkbox",
          checked: state.ended === "yes",
          onchange: (event) => set({ ended: event.target.checked ? "yes" : "" }),
        }),
        " Show revoked and expired keys",
      ),
    ),
    items.length === 0
      ? empty("No API key", "Make one for each worker group or script, so that each can be revoked alone.")
      : table({
          caption: "API keys",
          columns,
          items,
          id: (one) => one.id,
          sort: state.sort,
          onsort: (sort) => set({ sort }),
        }),
    more(null, items.length, null, items.length === 1 ? "key" : "keys"),
  ];
}

function scope(key) {
  if (!key.scope?.length) return h("span", { class: "none" }, "all of its account");
  return h(
    "ul",
    { class: "plain" },
    key.scope.map((one) =>
      h("li", null, tag(words(one.role)), " ", h("span", { title: one.resource }, named(one.resource))),
    ),
  );
}

const identified = (name, id) => [name, h("br"), h("code", { class: "id" }, id)];

async function makeAccount(refresh) {
  const input = nameInput();
  const done = await ask({
    title: "New service account",
    action: "Make it",
    body: [field("Name", input, "What will use it, such as workers-eu or ci.")],
    submit: (form) => api.call("POST", "/service-accounts", { body: { name: form.get("name").trim() } }),
  });
  if (done) {
    notice("The service account is made. Give it a role under Roles, then make a key.");
    refresh();
  }
}

async function deleteAccount(account, refresh) {
  const done = await ask({
    title: `Delete ${account.name}?`,
    action: "Delete",
    danger: true,
    body: [h("p", null, "Its API keys end at once, and its role bindings are taken away.")],
    submit: () => api.call("DELETE", api.path("service-accounts", account.id)),
  });
  if (done) {
    notice(`${account.name} is deleted.`);
    refresh();
  }
}

function accounts({ data, state, set, refresh }) {
  const manage = api.can("manage_access");
  const columns = [
    { id: "name", label: "Name", head: true, sort: (one) => one.name, cell: (one) => identified(one.name, one.id) },
    {
      id: "roles",
      label: "Roles",
      cell: (one) => roles(data.bindings.filter((binding) => binding.service_account === one.id)),
    },
    { id: "created", label: "Made", sort: (one) => one.created_ms, cell: (one) => timeAgo(one.created_ms) },
  ];
  if (manage) {
    columns.push({
      id: "do",
      label: "Change",
      cell: (one) =>
        h(
          "span",
          { class: "row-actions" },
          h(
            "button",
            { class: "danger", onclick: () => deleteAccount(one, refresh), "aria-label": `Delete ${one.name}` },
            "Delete",
          ),
        ),
    });
  }
  const beside =
    manage &&
    h(
      "div",
      { class: "actions" },
      h("button", { class: "primary", onclick: () => makeAccount(refresh) }, "New service account"),
    );
  return [
    heading("Service accounts", { beside, lead: "Who API keys belong to. What an account may do is in its roles." }),
    data.items.length === 0
      ? empty("No service account", "Make one for each group of workers and each script.")
      : table({
          caption: "Service accounts",
          columns,
          items: data.items,
          id: (one) => one.id,
          sort: state.sort,
          onsort: (sort) => set({ sort }),
        }),
    more(null, data.items.length, null, data.items.length === 1 ? "account" : "accounts"),
  ];
}

function roles(bindings) {
  if (bindings.length === 0) return h("span", { class: "none" }, "no role: it may do nothing");
  return h(
    "ul",
    { class: "plain" },
    bindings.map((one) =>
      h("li", null, tag(words(one.role)), " ", h("span", { title: one.resource }, named(one.resource))),
    ),
  );
}

async function makeBinding({ data, refresh }) {
  const who = [
    ...data.users.map((one) => [`user/${one.id}`, personOf(one)]),
    ...data.accounts.map((one) => [`account/${one.id}`, one.name]),
  ];
  const account = select(who, who[0]?.[0], null, { name: "who" });
  const resource = resourceField();
  const done = await ask({
    title: "New role binding",
    action: "Give the role",
    body: [field("User or service account", account), roleField(), resource.nodes],
    submit: (form) => {
      const [kind, id] = form.get("who").split("/");
      const of = kind === "user" ? { user: id } : { service_account: id };
      const body = { ...of, role: form.get("role"), resource: resource.value() };
      return api.call("POST", "/role-bindings", { body });
    },
  });
  if (done) {
    notice("The role is given. It counts at once.");
    refresh();
  }
}

async function deleteBinding(binding, account, refresh) {
  const done = await ask({
    title: "Take the role away?",
    action: "Take it away",
    danger: true,
    body: [
      h(
        "p",
        null,
        `${account} will no longer be ${words(binding.role)} on ${named(binding.resource)}. It counts at once.`,
      ),
    ],
    submit: () => api.call("DELETE", api.path("role-bindings", binding.id)),
  });
  if (done) {
    notice("The role is taken away.");
    refresh();
  }
}

function bindings(page) {
  const { data, state, set, refresh } = page;
  const manage = api.can("manage_access");
  const user = (id) => personOf(data.users.find((one) => one.id === id) ?? { id });
  const account = (one) => (one.user ? user(one.user) : nameOf(data.accounts, one.service_account));
  const columns = [
    { id: "account", label: "User or service account", head: true, sort: account, cell: account },
    { id: "role", label: "Role", sort: (one) => one.role, cell: (one) => tag(words(one.role), ROLES[one.role]) },
    {
      id: "resource",
      label: "On",
      sort: (one) => one.resource,
      cell: (one) => h("span", { title: one.resource }, named(one.resource)),
    },
    { id: "created", label: "Given", sort: (one) => one.created_ms, cell: (one) => timeAgo(one.created_ms) },
  ];
  if (manage) {
    columns.push({
      id: "do",
      label: "Change",
      cell: (one) =>
        h(
          "span",
          { class: "row-actions" },
          h(
            "button",
            {
              class: "danger",
              onclick: () => deleteBinding(one, account(one), refresh),
              "aria-label": `Take ${words(one.role)} on ${named(one.resource)} from ${account(one)}`,
            },
            "Take away",
          ),
        ),
    });
  }
  const beside =
    manage &&
    data.accounts.length + data.users.length > 0 &&
    h(
      "div",
      { class: "actions" },
      h("button", { class: "primary", onclick: () => makeBinding(page) }, "New role binding"),
    );
  return [
    heading("Roles", {
      beside,
      lead: [
        "Who has which role where. A role counts for everything below the resource that it is bound to; ",
        "what no role allows is denied.",
      ],
    }),
    data.items.length === 0
      ? empty("No role binding", "Without one, an account may do nothing.")
      : table({
          caption: "Role bindings",
          columns,
          items: data.items,
          id: (one) => one.id,
          sort: state.sort,
          onsort: (sort) => set({ sort }),
        }),
    more(null, data.items.length, null, data.items.length === 1 ? "binding" : "bindings"),
    h("h2", null, "What roles allow"),
    h(
      "dl",
      { class: "roles" },
      Object.entries(ROLES).map(([role, about]) => h("div", null, h("dt", null, words(role)), h("dd", null, about))),
    ),
  ];
}

const PARTS = {
  keys: ["API keys", "/api-keys", keys],
  accounts: ["Service accounts", "/service-accounts", accounts],
  users: ["Users", "/users", users],
  roles: ["Roles", "/role-bindings", bindings],
};
const partOf = ({ params }) => PARTS[params.part] ?? PARTS.keys;

export const access = {
  title: (page) => partOf(page)[0],
  kept: ["sort", "ended"],
  state: () => ({ sort: "", ended: "" }),

  async load(page) {
    const [items, accountsOf, bindingsOf, usersOf] = await Promise.all([
      all(partOf(page)[1], page.signal),
      all("/service-accounts", page.signal),
      all("/role-bindings", page.signal),
      all("/users", page.signal),
    ]);
    const [accounts, bindings, users] = [accountsOf.items, bindingsOf.items, usersOf.items];
    return { items: items.items, accounts, bindings, users };
  },

  render: (page) => partOf(page)[2](page),
};
