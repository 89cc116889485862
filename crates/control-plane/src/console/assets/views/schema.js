// Columns, partitions and sort order of a table.

import { h } from "../dom.js";
import { empty, table, tag } from "../ui.js";

/** Every field at any depth, as `{ id, path, depth, type, required }`. */
function flattened(fields, depth = 0, above = "") {
  return fields.flatMap((field) => {
    const path = above ? `${above}.${field.name}` : field.name;
    const own = { id: field.id, name: field.name, path, depth, type: typeName(field.type), required: field.required };
    return [own, ...nested(field.type, depth + 1, path)];
  });
}

function nested(type, depth, path) {
  if (typeof type === "string") return [];
  if (type.type === "struct") return flattened(type.fields, depth, path);
  const member = (name, id, of, required) => ({ name, id, type: of, required });
  if (type.type === "list") {
    return flattened([member("element", type["element-id"], type.element, type["element-required"])], depth, path);
  }
  if (type.type === "map") {
    return flattened(
      [
        member("key", type["key-id"], type.key, true),
        member("value", type["value-id"], type.value, type["value-required"]),
      ],
      depth,
      path,
    );
  }
  return [];
}

const typeName = (type) => (typeof type === "string" ? type : type.type);

const COLUMNS = [
  {
    id: "name",
    label: "Column",
    head: true,
    cell: (one) => h("span", { class: `depth depth-${Math.min(one.depth, 6)}`, title: one.path }, one.name),
  },
  { id: "type", label: "Type", cell: (one) => h("code", null, one.type) },
  {
    id: "required",
    label: "Nulls",
    cell: (one) => (one.required ? tag("required") : h("span", { class: "none" }, "may be null")),
  },
  { id: "id", label: "Field id", number: true, cell: (one) => one.id },
];

const byId = (fields, id) => fields.find((one) => one.id === id)?.path ?? `field ${id}`;

export const schemaTab = {
  load: async () => null,

  render({ table: one }) {
    if (!one.schema) return empty("The schema is not known yet", "It comes with the table's first report.");
    const fields = flattened(one.schema.fields);
    const partition = one.partition_spec?.fields ?? [];
    const sort = one.sort_order?.fields ?? [];
    return [
      h("div", { class: "section-head" }, h("h2", null, "Columns"), tag(`schema ${one.schema["schema-id"]}`)),
      table({ caption: "Columns", columns: COLUMNS, items: fields, id: (field) => String(field.id) }),
      h("h2", null, "Partitioned by"),
      partition.length === 0
        ? h("p", null, "Not partitioned.")
        : table({
            caption: "Partition fields",
            items: partition,
            id: (field) => String(field["field-id"]),
            columns: [
              { id: "name", label: "Field", head: true, cell: (field) => field.name },
              { id: "transform", label: "Transform", cell: (field) => h("code", null, field.transform) },
              { id: "source", label: "Of column", cell: (field) => byId(fields, field["source-id"]) },
            ],
          }),
      h("h2", null, "Sorted by"),
      sort.length === 0
        ? h("p", null, "Not sorted.")
        : table({
            caption: "Sort fields",
            items: sort.map((field, at) => ({ ...field, at })),
            id: (field) => String(field.at),
            columns: [
              { id: "source", label: "Column", head: true, cell: (field) => byId(fields, field["source-id"]) },
              { id: "transform", label: "Transform", cell: (field) => h("code", null, field.transform) },
              {
                id: "direction",
                label: "Direction",
                cell: (field) => (field.direction === "desc" ? "greatest first" : "least first"),
              },
              { id: "nulls", label: "Nulls", cell: (field) => field["null-order"]?.replace("nulls-", "") },
            ],
          }),
    ];
  },
};
