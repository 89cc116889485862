// An address that is none of the console's.

import { empty, heading } from "../ui.js";
import { h } from "../dom.js";

export const missing = {
  title: () => "No such page",
  still: true,
  load: async () => ({}),
  render: () => [
    heading("No such page"),
    empty(
      "There is nothing at this address",
      "The link may be of an older version. ",
      h("a", { href: "#/" }, "Go to the tables"),
      ".",
    ),
  ],
};
