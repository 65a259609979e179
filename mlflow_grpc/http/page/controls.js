// Controls of a form: each shows one field and reads its value. A value of the wrong type is sent as it was typed,
// because the server knows the rules and explains the problem.

import { element, newId } from "./dom.js";
import { isChat, typeText } from "./fields.js";
import { NumberText, numberOf, parse, write } from "./json.js";

const LOCAL_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?$/;
const LONG_TEXT = 60;

/** Invalid JSON in a field, found before the call. */
export class FieldError extends Error {
  constructor(control, message) {
    super(message);
    this.control = control;
  }
}

/** Makes the control of a field: {field, node, read, focus, showError}. `read` returns undefined for an omitted field. */
export function controlOf(field, initial = field.initial) {
  return isChat(field) ? chatControl(field, initial) : inputControl(field, initial);
}

function inputControl(field, initial) {
  const { input, read } = inputOf(field, initial);
  input.id = newId("field");
  // Browsers do not show a placeholder in a date field.
  const hint = input.type?.startsWith("date") && field.isParam ? placeholder(field) : field.schema?.description;
  input.dataset.field = field.isParam ? `params.${field.key}` : field.key;
  const label = element("label", { for: input.id }, field.label);
  const type = element("span", { class: "type", id: newId("type") }, `${typeText(field.spec)}${field.isRequired || field.isParam ? "" : ", optional"}`);
  return assembled(field, element("div", { class: input.matches("textarea") ? "field wide" : "field" },
    element("div", { class: "field-head" }, label, type), input), input, read, type.id, hint);
}

function assembled(field, node, input, read, describedBy, description) {
  const error = element("p", { class: "field-error", id: newId("error"), hidden: true });
  const hint = description ? element("p", { class: "hint", id: newId("hint") }, description) : null;
  const ids = [describedBy, hint?.id, error.id].filter(Boolean).join(" ");
  input.setAttribute("aria-describedby", ids);
  if (hint) node.append(hint);
  node.append(error);
  const control = {
    field,
    node,
    focus: () => input.focus(),
    read: () => read(control),
    showError(message) {
      error.textContent = message ?? "";
      error.hidden = !message;
      if (message) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
      // Optional fields may be folded.
      if (message && node.closest("details")) node.closest("details").open = true;
    },
  };
  return control;
}

function inputOf(field, initial) {
  const options = field.schema?.enum;
  if (options?.every((option) => typeof option !== "object")) return choice(field, initial, options);
  switch (field.spec.shape ? "list" : field.spec.type) {
    case "boolean": return choice(field, initial, [true, false]);
    case "integer": case "long": return numberInput(field, initial, "numeric");
    case "float": case "double": return numberInput(field, initial, "decimal");
    case "datetime": return dateInput(field, initial, "datetime-local");
    case "string": return field.schema?.format === "date" ? dateInput(field, initial, "date") : textInput(field, initial);
    case "binary": return textInput(field, initial);
    default: return jsonInput(field, initial);
  }
}

function placeholder(field) {
  if (field.default !== undefined && field.default !== null) return `default: ${write(field.default)}`;
  return field.isRequired ? "" : "left out";
}

function choice(field, initial, options) {
  const select = element("select", {},
    element("option", { value: "" }, field.isRequired ? "choose" : placeholder(field)),
    options.map((option, index) => element("option", { value: String(index) }, String(option))));
  const first = initial instanceof NumberText ? Number(initial.text) : initial;
  if (options.includes(first)) select.value = String(options.indexOf(first));
  return { input: select, read: () => (select.value === "" ? undefined : options[Number(select.value)]) };
}

function numberInput(field, initial, mode) {
  const input = element("input", { type: "text", inputmode: mode, placeholder: placeholder(field), autocomplete: "off" });
  input.value = initial instanceof NumberText ? initial.text : initial ?? "";
  const read = () => {
    const text = input.value.trim();
    return text === "" ? undefined : numberOf(text) ?? text;
  };
  return { input, read };
}

function dateInput(field, initial, type) {
  const isPlain = initial === undefined || initial === null || type === "date" || LOCAL_TIME.test(initial);
  const input = element("input", isPlain ? { type, step: type === "date" ? null : "0.001" } : { type: "text" });
  input.value = initial ?? "";
  return { input, read: () => (input.value === "" ? undefined : input.value) };
}

function textInput(field, initial) {
  const text = initial ?? "";
  const isLong = String(text).length > LONG_TEXT || String(text).includes("\n");
  const input = isLong
    ? element("textarea", { rows: 3, placeholder: placeholder(field) })
    : element("input", { type: "text", placeholder: placeholder(field), autocomplete: "off" });
  input.value = text;
  return { input, read: () => (input.value === "" && !field.isRequired ? undefined : input.value) };
}

function jsonInput(field, initial) {
  const input = element("textarea", { rows: 2, spellcheck: "false", class: "code", placeholder: placeholder(field) });
  input.value = initial === undefined ? "" : write(initial, LONG_TEXT);
  input.rows = Math.min(12, Math.max(2, input.value.split("\n").length));
  const read = (control) => {
    if (input.value.trim() === "") return undefined;
    try {
      return parse(input.value);
    } catch (error) {
      throw new FieldError(control, `This is not valid JSON: ${error.message}. Write ${example(field)}.`);
    }
  };
  return { input, read };
}

function example(field) {
  const types = { array: "a list, such as [1, 2]", map: 'an object, such as {"key": 1}', object: 'an object, such as {"key": 1}' };
  return types[field.spec.type] ?? (field.spec.type === "any" ? 'JSON, such as "text" or 1' : "nested lists, such as [[1, 2]]");
}

const ROLES = ["user", "system", "assistant"];

/** A list of chat messages. Other keys than role and content stay as in the example. */
function chatControl(field, initial) {
  const list = element("ol", { class: "messages" });
  const rows = [];

  function add(message) {
    const role = element("select", { "aria-label": "Role" },
      [...new Set([...ROLES, message.role])].map((name) => element("option", { value: name }, name)));
    const content = element("textarea", { rows: 2, "aria-label": "Message" });
    role.value = message.role;
    content.value = message.content;
    const row = { role, content, message };
    const item = element("li", {}, role, content,
      element("button", { type: "button", class: "quiet", "aria-label": "Remove message", click: remove }, "✕"));
    function remove() {
      rows.splice(rows.indexOf(row), 1);
      item.remove();
      adder.focus();
      list.dispatchEvent(new Event("input", { bubbles: true }));
    }
    rows.push(row);
    list.append(item);
    return row;
  }

  const adder = element("button", { type: "button", class: "quiet", click: () => {
    const last = rows.at(-1)?.role.value;
    add({ role: last === "user" ? "assistant" : "user", content: "" }).content.focus();
  } }, "Add message");
  (initial ?? [{ role: "user", content: "" }]).forEach(add);
  const legend = element("legend", {}, field.label, element("span", { class: "type", id: newId("type") }, "chat messages"));
  const node = element("fieldset", { class: "field wide chat", "data-field": field.key }, legend, list, adder);
  const read = () => rows.map(({ role, content, message }) => ({ ...message, role: role.value, content: content.value }));
  const control = assembled(field, node, node, read, legend.lastChild.id);
  return { ...control, focus: () => (rows[0]?.content ?? adder).focus() };
}
