// Signing in: single sign-on where the server has it, or an API key.

import * as api from "../api.js";
import { draw, h } from "../dom.js";
import { field, problem } from "../ui.js";

/** The page. `fault` says why a session ended; `done` is called when there is one. */
export function signInPage(fault, done) {
  const input = h("input", {
    id: "api-key",
    name: "key",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    placeholder: "sk_…",
  });
  const said = h("div");
  const button = h("button", { class: "primary", type: "submit" }, "Sign in");
  const onsubmit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await api.signIn(input.value.trim());
      input.value = "";
      await done();
    } catch (error) {
      draw(said, problem(error));
      input.setAttribute("aria-invalid", "true");
      input.focus();
    } finally {
      button.disabled = false;
    }
  };
  if (fault)
    draw(said, problem({ title: "The session has ended", detail: "Sign in again to go on where you were." }));
  const kept = api.exchangesKeys()
    ? "It is exchanged for a session of this browser, and not kept."
    : "It stays in the memory of this page, and is gone when you leave or reload it.";
  return h(
    "div",
    { class: "sign-in" },
    h("h1", { tabindex: "-1", id: "heading" }, "Sign in"),
    h(
      "p",
      { class: "lead" },
      "This console shows metadata of your tables. It holds no record, no key and no value of them.",
    ),
    said,
    api.providers().length > 0 && [
      api.providers().map((one) => h("a", { class: "button primary", href: one.login }, `Sign in with ${one.title}`)),
      h("p", { class: "or" }, h("span", null, "or with an API key")),
    ],
    h("form", { onsubmit }, field("API key", input, kept), button),
    h("p", { class: "hint" }, h("a", { href: "#/disclosures" }, "What is known here, and what cannot be")),
  );
}
