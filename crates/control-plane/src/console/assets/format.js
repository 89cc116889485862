// Numbers, sizes and times for people; the exact value stays at hand in `<data>`, `<time>` and titles.

import { h } from "./dom.js";

const WHOLE = new Intl.NumberFormat("en");
const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const SUFFIXES = ["", " k", " M", " G", " T", " P", " E"];
const NONE = "–";

function scaled(value, base, names) {
  let at = 0;
  let size = Math.abs(value);
  while (size >= base && at < names.length - 1) {
    size /= base;
    at += 1;
  }
  // 999.96 k would be written 1000 k.
  if (at > 0 && at < names.length - 1 && Number(size.toPrecision(3)) >= base) {
    size /= base;
    at += 1;
  }
  const digits = at === 0 || size >= 100 ? 0 : 1;
  const text = size.toFixed(Number.isInteger(size) ? 0 : digits);
  return `${value < 0 ? "−" : ""}${text}`.concat(names[at]);
}

export const known = (value) => value !== undefined && value !== null;

/** 12 345 678 as `12.3 M`. */
export function count(value) {
  if (!known(value)) return NONE;
  return Math.abs(value) < 10_000 ? WHOLE.format(value) : scaled(value, 1000, SUFFIXES);
}

/** Bytes as `3.4 GiB`. */
export function bytes(value) {
  return known(value)
    ? scaled(
        value,
        1024,
        UNITS.map((unit) => ` ${unit}`),
      )
    : NONE;
}

export const exact = (value) => (known(value) ? WHOLE.format(value) : "not known");

/** Milliseconds as `12 s`, `3 min`, `2 h 5 min`, `4 d`. */
export function duration(ms) {
  if (!known(ms)) return NONE;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1).replace(/\.0$/, "")} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 && hours < 10 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.round(hours / 24)} d`;
}

export function ago(ms) {
  const passed = Date.now() - ms;
  if (passed < 0) return `in ${duration(-passed)}`;
  return passed < 1000 ? "just now" : `${duration(Math.floor(passed / 1000) * 1000)} ago`;
}

export const local = (ms) => DATE.format(new Date(ms));

function iso(ms) {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
}

const none = (why) => h("span", { class: "none", title: why ?? "not known" }, NONE);

export function dataCount(value, why) {
  return known(value) ? h("data", { value, title: exact(value) }, count(value)) : none(why);
}

export function dataBytes(value, why) {
  return known(value) ? h("data", { value, title: `${exact(value)} bytes` }, bytes(value)) : none(why);
}

export function dataDuration(value, why) {
  return known(value) ? h("data", { value, title: `${exact(value)} ms` }, duration(value)) : none(why);
}

/** A time as `12 s ago`, which goes on while it is shown. */
export function timeAgo(ms, never = NONE) {
  if (!ms) return h("span", { class: "none" }, never);
  const title = `${local(ms)} (UTC ${iso(ms)})`;
  return h("time", { datetime: iso(ms), title, "data-ago": ms }, ago(ms));
}

/** A time of day and date, in the reader's zone. */
export function timeAt(ms, never = NONE) {
  if (!ms) return h("span", { class: "none" }, never);
  return h("time", { datetime: iso(ms), title: `UTC ${iso(ms)}` }, local(ms));
}

/** Brings every shown `timeAgo` up to date. */
export function tick() {
  for (const node of document.querySelectorAll("[data-ago]")) {
    const text = ago(Number(node.dataset.ago));
    if (node.firstChild.data !== text) node.firstChild.data = text;
  }
}

/** `lag_records` as `lag records`. */
export const words = (name) => String(name ?? "").replaceAll("_", " ");
