// Elements from data, and a tree changed into another one in place.
//
// Text becomes text nodes, always: nothing here reads a string as HTML. `morph` keeps the elements that stay, and with
// them focus, selection, scroll positions and opened details, so that a page can be drawn anew while it is used.

const SVG = "http://www.w3.org/2000/svg";
const handlers = Symbol("handlers");

function listen(node, type) {
  node.addEventListener(type, (event) => node[handlers]?.[type]?.(event));
}

function put(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) {
      const type = name.slice(2).toLowerCase();
      node[handlers] ??= {};
      node[handlers][type] = value;
      listen(node, type);
    } else if (name === "value" && "value" in node && node.localName !== "data") {
      node.value = value;
      if (node.localName !== "textarea" && node.localName !== "select") node.setAttribute("value", value);
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  add(node, children);
  return node;
}

function add(node, children) {
  for (const child of children) {
    if (child === undefined || child === null || child === false) continue;
    if (Array.isArray(child)) add(node, child);
    else node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** An HTML element. Props that begin with `on` are handlers, the others attributes. */
export function h(tag, props, ...children) {
  return put(document.createElement(tag), props, children);
}

/** An SVG element. */
export function svg(tag, props, ...children) {
  return put(document.createElementNS(SVG, tag), props, children);
}

const key = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null);

function alike(left, right) {
  return left.nodeType === right.nodeType && left.nodeName === right.nodeName && key(left) === key(right);
}

/** Changes `old` into `next`, which is used up. They must be alike. */
export function morph(old, next) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  for (const type of Object.keys(next[handlers] ?? {})) {
    if (!old[handlers]?.[type]) listen(old, type);
  }
  old[handlers] = next[handlers];
  for (const { name } of [...old.attributes]) {
    const kept = name === "open" && old.localName === "details";
    if (!next.hasAttribute(name) && !kept) old.removeAttribute(name);
  }
  for (const { name, value } of [...next.attributes]) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  children(old, next);
  if (old.localName === "select" && old !== document.activeElement && old.value !== next.value)
    old.value = next.value;
  if (old.localName === "input" && old !== document.activeElement && old.value !== next.value) old.value = next.value;
}

function children(old, next) {
  const keyed = new Map();
  for (const child of old.childNodes) if (key(child) !== null) keyed.set(key(child), child);
  let at = old.firstChild;
  for (const wanted of [...next.childNodes]) {
    const name = key(wanted);
    const known = name === null ? at : keyed.get(name);
    if (known && alike(known, wanted)) {
      // Moving an element would take its focus away: the others are moved around it.
      if (known !== at) {
        if (at && known.contains(document.activeElement)) {
          while (at && at !== known) {
            const after = at.nextSibling;
            old.append(at);
            at = after;
          }
        } else {
          old.insertBefore(known, at);
        }
      }
      at = known.nextSibling;
      morph(known, wanted);
    } else {
      old.insertBefore(wanted, at);
    }
  }
  while (at) {
    const after = at.nextSibling;
    at.remove();
    at = after;
  }
}

/** Draws `next` into `host`, in place of what is there. */
export function draw(host, next) {
  const old = host.firstChild;
  if (old && host.childNodes.length === 1 && alike(old, next)) morph(old, next);
  else host.replaceChildren(next);
}
