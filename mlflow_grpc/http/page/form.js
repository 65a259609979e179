// The form of one model: its rows, its params, or a payload as text. It builds the payload and shows errors at fields.

import { FieldError, controlOf } from "./controls.js";
import { element, newId, tabs } from "./dom.js";
import { Format, planOf } from "./fields.js";
import { parse, write } from "./json.js";

const WITH_ROWS = [Format.RECORDS, Format.SPLIT, Format.VALUES];
const WIDTH = 76;
const MAX_OPTIONAL_SHOWN = 4;
const ROW_OF_ERROR = /(?:dataframe_records|data|inputs)\[(\d+)\]/;

/** The form of a model. */
export class ModelForm {
  constructor(model) {
    this.plan = planOf(model);
    this.rows = [];
    this.isRaw = this.plan.format === Format.RAW;
    this.node = element("div", { class: "model-form" });
    this.rowList = element("div", { class: "rows" });
    this.params = this.plan.params.map((field) => controlOf(field));
    this.raw = this.#rawEditor();
    if (this.isRaw) {
      this.node.append(element("p", { class: "note" }, "The model has no signature. Enter the payload as JSON."), this.raw.node);
      return;
    }
    const panel = element("div", {}, this.rowList);
    this.#addRow();
    if (WITH_ROWS.includes(this.plan.format)) {
      panel.append(element("button", { type: "button", class: "quiet", click: () => this.#addRow().focus() }, "Add row"));
    }
    if (this.params.length) {
      panel.append(element("fieldset", { class: "group" }, element("legend", {}, "Params"),
        element("div", { class: "fields" }, this.params.map((control) => control.node))));
    }
    const choice = tabs("How to enter the payload", [
      { name: "Form", panel },
      { name: "Payload as JSON", panel: this.raw.node },
    ], (name) => this.#switchTo(name));
    this.node.append(choice.list, panel, this.raw.node);
  }

  /** Returns the payload as text; raises a FieldError. */
  payload() {
    if (!this.isRaw) return write(this.#value(), WIDTH);
    return this.raw.area.value;
  }

  get controls() {
    return [...this.rows.flatMap((row) => row.controls), ...this.params];
  }

  clearErrors() {
    this.controls.forEach((control) => control.showError(null));
    this.raw.showError(null);
  }

  /** Shows errors at their fields. Returns the controls and messages; the control is null if no field has the name. */
  showErrors(violations) {
    return violations.map(({ field, description }) => {
      const control = this.isRaw ? null : this.#controlFor(field, description);
      control?.showError(description);
      return { control, field, description };
    });
  }

  showFieldError(error) {
    error.control.showError(error.message);
    error.control.focus();
  }

  #rawEditor() {
    const area = element("textarea", { id: newId("payload"), class: "code raw", rows: 12, spellcheck: "false" });
    const error = element("p", { class: "field-error", id: newId("error"), hidden: true });
    area.setAttribute("aria-describedby", error.id);
    area.value = this.plan.example === undefined ? '{"inputs": []}' : write(this.plan.example, WIDTH);
    const node = element("div", { class: "field wide" }, element("label", { for: area.id }, "Payload for POST /invocations"), area, error);
    const showError = (message) => {
      error.textContent = message ?? "";
      error.hidden = !message;
      if (message) area.setAttribute("aria-invalid", "true");
      else area.removeAttribute("aria-invalid");
    };
    return { node, area, showError, text: area.value };
  }

  /** Copies the values of the form into the payload; an edited payload stays. */
  #switchTo(name) {
    this.isRaw = name !== "Form";
    if (!this.isRaw || this.rows.length === 0) return;
    try {
      const text = write(this.#value(), WIDTH);
      if (this.raw.area.value === this.raw.text) this.raw.area.value = text;
      this.raw.text = this.raw.area.value;
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      this.raw.showError("A field of the form is not valid JSON, so this payload does not match the form.");
    }
  }

  #addRow() {
    const last = this.rows.at(-1);
    const number = this.rows.length;
    const controls = this.plan.fields.map((field) => controlOf(field, this.#initial(field, last)));
    const isOptional = ({ field }) => !field.isRequired && field.initial === undefined;
    const optional = controls.filter(isOptional);
    const folded = optional.length > MAX_OPTIONAL_SHOWN ? optional : [];
    const shown = controls.filter((control) => !folded.includes(control));
    const row = { controls, node: element("fieldset", { class: "group row" }) };
    const isOneOfMany = WITH_ROWS.includes(this.plan.format);
    row.node.append(
      element("legend", {}, isOneOfMany ? `Row ${number + 1}` : "Input"),
      element("div", { class: "fields" }, shown.map((control) => control.node)));
    if (folded.length) {
      row.node.append(element("details", {}, element("summary", {}, `Optional fields (${folded.length})`),
        element("div", { class: "fields" }, folded.map((control) => control.node))));
    }
    if (number > 0) {
      row.node.append(element("button", { type: "button", class: "quiet remove", click: () => this.#remove(row) }, "Remove row"));
    }
    this.rows.push(row);
    this.rowList.append(row.node);
    row.focus = () => controls[0].focus();
    this.#changed();
    return row;
  }

  #initial(field, last) {
    if (!last) return field.initial;
    try {
      return last.controls[this.plan.fields.indexOf(field)].read();
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      return field.initial;
    }
  }

  #remove(row) {
    this.rows.splice(this.rows.indexOf(row), 1);
    row.node.remove();
    this.rows.forEach(({ node }, index) => { node.querySelector("legend").textContent = `Row ${index + 1}`; });
    this.rows.at(-1).focus();
    this.#changed();
  }

  #changed() {
    this.node.dispatchEvent(new Event("input", { bubbles: true }));
  }

  #value() {
    const { format } = this.plan;
    const records = this.rows.map(({ controls }) => read(controls));
    const payload = Object.create(null);  // A column may have the name __proto__.
    if (format === Format.RECORDS) payload.dataframe_records = records;
    else if (format === Format.SPLIT) payload.dataframe_split = { data: records.map((record) => this.#cells(record)) };
    else if (format === Format.VALUES) payload.inputs = records.map((record) => this.#cells(record)[0]);
    else if (format === Format.TENSORS) payload.inputs = records[0];
    else if (format === Format.TENSOR) payload.inputs = this.#cells(records[0])[0];
    else Object.assign(payload, records[0]);
    const params = read(this.params);
    if (format === Format.BARE) Object.assign(payload, params);
    else if (Object.keys(params).length) payload.params = params;
    return payload;
  }

  #cells(record) {
    return this.plan.fields.map((field) => record[field.key]);
  }

  #controlFor(name, description) {
    const named = (controls, path) =>
      controls.find(({ field }) => field.key === path) ??
      controls.find(({ field }) => path.startsWith(`${field.key}.`) || path.startsWith(`${field.key}[`));
    const number = Number(ROW_OF_ERROR.exec(`${name} ${description}`)?.[1] ?? 0);
    const row = this.rows[WITH_ROWS.includes(this.plan.format) ? number : 0] ?? this.rows[0];
    const param = name.startsWith("params.") ? named(this.params, name.slice("params.".length)) : undefined;
    const control = param ?? named(row.controls, name) ?? named(this.params, name);
    if (control) return control;
    return row.controls.length === 1 && [Format.VALUES, Format.TENSOR].includes(this.plan.format) ? row.controls[0] : null;
  }

  /** Returns the value of the payload, or null if it is not JSON. */
  valueOrNull() {
    try {
      return parse(this.payload());
    } catch (error) {
      if (error instanceof FieldError || error instanceof SyntaxError) return null;
      throw error;
    }
  }
}

function read(controls) {
  const record = Object.create(null);
  for (const control of controls) {
    const value = control.read();
    if (value !== undefined) record[control.field.key] = value;
  }
  return record;
}
