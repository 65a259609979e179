// The answer to a call: as JSON, as a table, or as parts of a stream; and the times of the call.

import { element, tabs } from "./dom.js";
import { cellText, parse, write } from "./json.js";

const MAX_SHOWN_CHARS = 200_000;
const MAX_SHOWN_ROWS = 500;
const WIDTH = 90;

const STEPS = {
  queue: "waiting",
  decode: "decoding",
  predict: "model",
  encode: "encoding",
  server: "rest of the server",
  network: "network and browser",
};

/** Makes the view of an answer. */
export function answerView({ text, timing, elapsedMs }) {
  const value = valueOf(text);
  const table = value === undefined ? null : tableOf(value?.predictions ?? value);
  const json = value === undefined ? text : write(value, WIDTH);
  const panels = [{ name: "JSON", panel: jsonPanel(json) }];
  if (table) panels.unshift({ name: "Table", panel: tablePanel(table) });
  const choice = tabs("Views of the answer", panels);
  return element("div", { class: "answer" },
    element("div", { class: "answer-body" }, choice.list, panels.map(({ panel }) => panel)), timingView(timing, elapsedMs));
}

function valueOf(text) {
  try {
    return parse(text);
  } catch {
    return undefined;  // A model with the payload "text" may answer with any text.
  }
}

function jsonPanel(json) {
  const isCut = json.length > MAX_SHOWN_CHARS;
  const panel = element("div", {}, element("pre", { class: "code", tabindex: 0, "aria-label": "Answer as JSON" }, isCut ? json.slice(0, MAX_SHOWN_CHARS) : json));
  if (isCut) panel.append(element("p", { class: "note" }, `The first ${MAX_SHOWN_CHARS.toLocaleString("en")} of ${json.length.toLocaleString("en")} characters.`));
  return panel;
}

/** Returns predictions as {columns, rows}, or null if they are not a table. */
export function tableOf(predictions) {
  if (Array.isArray(predictions)) return tableOfList(predictions);
  if (!isObject(predictions)) return null;
  const entries = Object.entries(predictions);
  const length = entries[0]?.[1]?.length;
  if (entries.length && entries.every(([, value]) => Array.isArray(value) && value.length === length)) {
    return {
      columns: entries.map(([key]) => key),
      rows: Array.from({ length }, (_, index) => entries.map(([, values]) => values[index])),
    };
  }
  return entries.length ? { columns: ["key", "value"], rows: entries } : null;
}

function tableOfList(list) {
  if (list.length === 0) return null;
  if (list.every(isObject)) {
    const columns = [...new Set(list.flatMap((item) => Object.keys(item)))];
    return { columns, rows: list.map((item) => columns.map((column) => item[column])) };
  }
  const width = list[0]?.length;
  if (list.every((item) => Array.isArray(item) && item.length === width)) {
    return { columns: Array.from({ length: width }, (_, index) => String(index)), rows: list };
  }
  return { columns: ["prediction"], rows: list.map((item) => [item]) };
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value) && value.constructor === Object;
}

function tablePanel({ columns, rows }) {
  const head = element("tr", {}, element("th", { scope: "col" }, "#"), columns.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.slice(0, MAX_SHOWN_ROWS).map((row, index) =>
    element("tr", {}, element("th", { scope: "row" }, String(index + 1)), row.map((cell) => element("td", {}, cellText(cell)))));
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, body));
  const panel = element("div", {}, element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Answer as a table" }, table));
  if (rows.length > MAX_SHOWN_ROWS) {
    panel.append(element("p", { class: "note" }, `The first ${MAX_SHOWN_ROWS} of ${rows.length.toLocaleString("en")} rows.`));
  }
  return panel;
}

/** Makes the bar chart with the times of a call. */
function timingView(timing, elapsedMs) {
  const { total, ...steps } = timing;
  const named = Object.values(steps).reduce((sum, duration) => sum + duration, 0);
  const durations = { ...steps };
  if (total !== undefined) {
    // A batch runs its steps for several calls, so their sum may exceed the time of this call.
    durations.server = Math.max(0, total - named);
    durations.network = Math.max(0, elapsedMs - total);
  }
  const longest = Math.max(...Object.values(durations), 0.001);
  const rows = Object.keys(STEPS).filter((name) => name in durations).map((name) => {
    const bar = element("span", { class: `bar ${name}` });
    bar.style.width = `${Math.max(1, (100 * durations[name]) / longest)}%`;
    return element("tr", {}, element("th", { scope: "row" }, STEPS[name]),
      element("td", { class: "bar-cell" }, bar), element("td", { class: "number" }, milliseconds(durations[name])));
  });
  return element("div", { class: "timing" },
    element("h4", {}, `${milliseconds(elapsedMs)} in total`),
    rows.length ? element("table", { class: "bars", "aria-label": "Where the time went" }, element("tbody", {}, rows)) : null);
}

/** Formats a time for people. */
export function milliseconds(duration) {
  if (duration >= 10_000) return `${(duration / 1000).toFixed(1)} s`;
  return `${duration.toFixed(duration < 10 ? 2 : duration < 100 ? 1 : 0)} ms`;
}

/** The view of an answer whose parts arrive one by one. */
export class StreamView {
  constructor() {
    this.text = element("p", { class: "stream-text", hidden: true });
    this.list = element("ol", { class: "parts", tabindex: 0, "aria-label": "Parts of the answer" });
    this.summary = element("h4", {}, "Waiting for the first part");
    this.node = element("div", { class: "stream" }, this.summary, this.text, this.list);
    this.count = 0;
    this.firstMs = 0;
  }

  /** Shows one part. */
  add(part, atMs) {
    this.count += 1;
    this.firstMs ||= atMs;
    this.list.append(element("li", {}, element("span", { class: "at" }, milliseconds(atMs)), element("code", {}, write(part))));
    const words = deltaOf(part);
    if (words) {
      this.text.hidden = false;
      this.text.append(words);
    }
    this.summary.textContent = this.#counted(atMs);
  }

  #counted(atMs) {
    const parts = this.count === 1 ? "1 part" : `${this.count} parts`;
    return `${parts} in ${milliseconds(atMs)}, the first after ${milliseconds(this.firstMs)}`;
  }
}

/** Returns the text that a part of a chat answer adds, in the formats of ChatModel, ChatAgent and ResponsesAgent. */
function deltaOf(part) {
  const delta = part?.choices?.[0]?.delta?.content ?? part?.delta?.content ?? part?.delta;
  return typeof delta === "string" ? delta : "";
}
