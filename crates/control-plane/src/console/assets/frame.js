// The bars around a page.

import { can, session } from "./api.js";
import { h } from "./dom.js";
import { route } from "./routes.js";
import { clusterResource, select } from "./ui.js";

const THEMES = [
  ["system", "System"],
  ["light", "Light"],
  ["dark", "Dark"],
];

function theme() {
  return document.documentElement.dataset.theme ?? "system";
}

function setTheme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  try {
    if (name === "system") localStorage.removeItem("siltstone-theme");
    else localStorage.setItem("siltstone-theme", name);
  } catch {
    // Storage is switched off: the choice lasts as long as the page.
  }
}

// On a phone the side bar is folded away.
function setMenu(open) {
  document.body.classList.toggle("menu-open", open);
  document.querySelector(".menu-button")?.setAttribute("aria-expanded", String(open));
}

export const closeMenu = () => setMenu(false);

const toggleMenu = () => {
  const open = !document.body.classList.contains("menu-open");
  setMenu(open);
  if (open) document.querySelector("#side select, #side a")?.focus();
};

addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !document.body.classList.contains("menu-open")) return;
  closeMenu();
  document.querySelector(".menu-button").focus();
});

export function top({ signOut }) {
  const who = session();
  return h(
    "div",
    { class: "top-row" },
    who &&
      h(
        "button",
        { class: "menu-button quiet", "aria-expanded": "false", "aria-controls": "side", onclick: toggleMenu },
        h("span", { "aria-hidden": "true" }, "☰"),
        h("span", { class: "hidden-text" }, "Menu"),
      ),
    h(
      "a",
      { class: "brand", href: "#/" },
      h("img", { src: "/console/icon.svg", alt: "", width: 24, height: 24 }),
      "Siltstone",
    ),
    h("span", { class: "stretch" }),
    h("label", { class: "theme" }, h("span", { class: "hidden-text" }, "Colours"), select(THEMES, theme(), setTheme)),
    !who && h("a", { href: "#/" }, "Sign in"),
    who && h("span", { class: "who", title: `Signed in as ${nameOf(who)}` }, shortened(nameOf(who))),
    who && h("button", { class: "quiet", onclick: signOut }, "Sign out"),
  );
}

const shortened = (name) => name.replace(/^(\w+)\/\w{12,}(\w{6})$/, "$1 …$2").replace("_", " ");

export const nameOf = (who) => who.user?.name || who.user?.email || who.actor || "signed in";

function link(text, to, page) {
  const here = page && (page.hash === to || (page.hash.startsWith(`${to}/`) && to !== "#/"));
  return h("li", null, h("a", { href: to, "aria-current": here && (page.hash === to ? "page" : "true") }, text));
}

export function navigation(page) {
  if (!session()) return h("div", { hidden: true });
  const at = route.chosen();
  const all = route.all();
  const go = (value) => {
    const next = all[Number(value)];
    const parts = page?.params?.cluster ? [page.hash.split("/")[5] ?? "tables"] : ["tables"];
    location.hash = route.ofCluster(next, ...parts);
  };
  const options = all.map((one, index) => [String(index), `${one.environmentName} / ${one.clusterName}`]);
  const index = all.findIndex((one) => one.env === at?.env && one.cluster === at?.cluster);
  const cluster = at && [
    h("label", { class: "cluster-choice" }, h("span", null, "Cluster"), select(options, String(index), go)),
    h(
      "ul",
      null,
      link("Tables", route.ofCluster(at, "tables"), page),
      can("read_workers", clusterResource(at)) && link("Workers", route.ofCluster(at, "workers"), page),
      can("read_commands", clusterResource(at)) && link("Commands", route.ofCluster(at, "commands"), page),
    ),
  ];
  return h(
    "div",
    { class: "side-column" },
    cluster,
    h("h2", null, "Organisation"),
    h(
      "ul",
      null,
      link("Environments", route.to("organisation"), page),
      can("read_access") && link("API keys", route.to("access", "keys"), page),
      can("read_access") && link("Service accounts", route.to("access", "accounts"), page),
      can("read_access") && link("Users", route.to("access", "users"), page),
      can("read_access") && link("Roles", route.to("access", "roles"), page),
      can("read_audit") && link("Audit log", route.to("audit"), page),
      link("What we know", route.to("disclosures"), page),
    ),
  );
}
