// JSON that keeps numbers as written. JavaScript's numbers would change 9007199254740993, and turn 1.0 into 1.

/** A number as written in JSON. */
export class NumberText {
  constructor(text) {
    this.text = text;
  }
}

const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

/** Returns the number in a text, or undefined if it is not a JSON number. */
export function numberOf(text) {
  if (NUMBER.test(text)) return new NumberText(text);
  const number = Number(text.replace(/^\+/, ""));
  return text !== "" && /^[+-]?[\d.eE+-]+$/.test(text) && Number.isFinite(number) ? new NumberText(String(number)) : undefined;
}

/** Parses JSON; raises a SyntaxError. Browsers without the source text of numbers keep 53 bits of each. */
export function parse(text) {
  return JSON.parse(text, (_key, value, context) =>
    typeof value === "number" ? new NumberText(context?.source ?? String(value)) : value);
}

const JSON_WORDS = { true: "true", false: "false", null: "null" };
const PYTHON_WORDS = { true: "True", false: "False", null: "None" };

/** Writes a value as JSON, on one line if it fits into the width, or always if the width is Infinity. */
export const write = (value, width = Infinity) => written(value, JSON_WORDS, width, "");

/** Writes a value as a Python literal. */
export const writePython = (value, width = Infinity) => written(value, PYTHON_WORDS, width, "");

function written(value, words, width, indent) {
  if (value instanceof NumberText) return value.text;
  if (value === undefined || value === null) return words.null;
  if (typeof value === "boolean") return words[value];
  if (typeof value !== "object") return JSON.stringify(value);
  const isList = Array.isArray(value);
  const [open, close] = isList ? "[]" : "{}";
  const inner = width === Infinity ? indent : `${indent}  `;
  const items = isList
    ? value.map((item) => written(item, words, width, inner))
    : Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${written(item, words, width, inner)}`);
  const line = `${open}${items.join(", ")}${close}`;
  if (items.length === 0 || (indent.length + line.length <= width && !line.includes("\n"))) return line;
  return `${open}\n${items.map((item) => inner + item).join(",\n")}\n${indent}${close}`;
}

/** Returns a value as text for a cell of a table or a CSV file. */
export function cellText(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? value : write(value);
}
