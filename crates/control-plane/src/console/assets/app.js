// The frame: sign-in, routes, the top and side bars, and when a page is loaded, drawn and refreshed.

import * as api from "./api.js";
import { draw, h } from "./dom.js";
import { tick, timeAgo } from "./format.js";
import { resolve, route } from "./routes.js";
import { closeMenu, navigation, top } from "./frame.js";
import { heading, notice, problem, skeleton } from "./ui.js";
import { signInPage } from "./views/signin.js";

const REFRESH_MS = 10_000;
const main = document.getElementById("main");
const shown = { page: null, timer: 0 };

/** What is on the page: its view, parameters, loaded data, and what the reader chose. */
class Page {
  constructor(target, options) {
    Object.assign(this, target);
    this.state = { ...this.view.state?.(), ...options };
    this.data = null;
    this.fault = null;
    this.loadedMs = 0;
    this.abort = new AbortController();
  }

  /** Changes what the reader chose, and draws; `reload` asks the server, too. */
  set = (change, { reload = false } = {}) => {
    Object.assign(this.state, change);
    keep(this);
    this.draw();
    if (!reload) return;
    // Typing asks once, when it pauses.
    clearTimeout(this.wait);
    this.wait = setTimeout(() => this.load(), 150);
  };

  refresh = () => this.load();

  async load() {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    main.setAttribute("aria-busy", "true");
    try {
      const data = await this.view.load({ ...this, signal: this.abort.signal });
      if (turn !== this.turn || this !== shown.page) return;
      Object.assign(this, { data, fault: null, loadedMs: Date.now() });
    } catch (error) {
      if (error.name === "AbortError" || turn !== this.turn || this !== shown.page) return;
      if (!error.title) console.error(error);
      this.fault = error;
    }
    main.removeAttribute("aria-busy");
    this.draw();
    plan();
  }

  draw() {
    if (this !== shown.page) return;
    document.title = `${this.view.title(this)} · Siltstone`;
    draw(main, h("div", { class: "page", "data-key": this.key }, this.body()));
  }

  body() {
    if (this.data === null) {
      const away = h("a", { href: "#/" }, "Go to the tables");
      return [heading(this.view.title(this)), this.fault ? [problem(this.fault, this.refresh), away] : skeleton()];
    }
    const stale =
      this.fault &&
      h(
        "div",
        { class: "stale", role: "status" },
        h("strong", null, this.fault.title),
        ` ${this.fault.detail} Shown as of `,
        timeAgo(this.loadedMs),
        ".",
      );
    return [stale, this.view.render(this)];
  }
}

/** Keeps what the view wants in the address, so that a link or a reload shows the same. */
function keep(page) {
  const kept = (page.view.kept ?? []).map((name) => [name, page.state[name]]).filter(([, value]) => value);
  const query = kept.length ? `?${new URLSearchParams(kept)}` : "";
  history.replaceState(null, "", page.hash + query);
}

function plan() {
  clearTimeout(shown.timer);
  if (document.hidden || !shown.page) return;
  shown.timer = setTimeout(() => {
    // A page is not drawn anew while something is selected in it: that would be in the way.
    if (!shown.page?.view.still && getSelection().isCollapsed) shown.page?.load();
    else plan();
  }, REFRESH_MS);
}

function frame() {
  draw(document.getElementById("top"), top({ signOut, page: shown.page }));
  draw(document.getElementById("side"), navigation(shown.page));
}

function show({ focus = true } = {}) {
  const target = resolve(location.hash);
  if (!api.session() && !target.view?.open) {
    signedOut();
    return;
  }
  if (target.redirect) {
    location.replace(target.redirect);
    return;
  }
  const old = shown.page;
  old?.abort.abort();
  const page = new Page(target, target.options);
  shown.page = page;
  closeMenu();
  frame();
  // A tab of the same thing takes the place of the one before when it is loaded; focus stays on its link.
  const tab = Boolean(old?.group) && old.group === page.group && old.data !== null;
  if (!tab) page.draw();
  page.load();
  if (focus && !tab) {
    scrollTo(0, 0);
    (document.getElementById("heading") ?? main).focus({ preventScroll: true });
  }
}

function signedOut(fault) {
  shown.page?.abort.abort();
  shown.page = null;
  clearTimeout(shown.timer);
  frame();
  document.title = "Sign in · Siltstone";
  main.replaceChildren(
    signInPage(fault, async () => {
      await route.contexts({ again: true });
      show();
    }),
  );
  document.getElementById("heading").focus({ preventScroll: true });
}

async function signOut() {
  try {
    const away = await api.signOut();
    if (away) {
      location.assign(away);
      return;
    }
  } catch (error) {
    notice(`${error.title}. ${error.detail}`, "bad");
  }
  signedOut();
}

function shortcuts(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (event.target.closest("input, select, textarea, dialog")) return;
  if (event.key === "/") {
    const box = main.querySelector("[data-search]");
    if (box) {
      event.preventDefault();
      box.focus();
      box.select();
    }
  }
}

async function start() {
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  frame();
  try {
    await api.endpoints();
    await api.restore();
    if (api.session()) await route.contexts({ again: true });
  } catch (error) {
    main.replaceChildren(
      h("h1", { tabindex: "-1", id: "heading" }, "Siltstone"),
      problem(error, () => location.reload()),
    );
    return;
  }
  addEventListener("hashchange", () => show());
  addEventListener("keydown", shortcuts);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(shown.timer);
    else shown.page?.load();
  });
  document.addEventListener("siltstone-signed-out", (event) => signedOut(event.detail));
  document.addEventListener("siltstone-contexts", frame);
  setInterval(tick, 1000);
  show({ focus: false });
}

start();
