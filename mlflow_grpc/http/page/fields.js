// Fields of a model's form, from its signature, JSON schema and example. This module makes no elements.

import { parse } from "./json.js";

const PAYLOAD_KEYS = ["dataframe_split", "dataframe_records", "instances", "inputs"];

/**
 * How a payload is built from the values of the form.
 * records: named columns. split: columns without names. values: each row is the value of a type hint.
 * tensors, tensor: whole tensors. bare: an object whose keys are the fields. raw: there is no signature.
 */
export const Format = Object.freeze({
  RECORDS: "records", SPLIT: "split", VALUES: "values", TENSORS: "tensors", TENSOR: "tensor", BARE: "bare", RAW: "raw",
});

/** Returns the plan of a model's form: {format, fields, params, example}. */
export function planOf(model) {
  const specs = parsed(model.input?.mlflow_json);
  const example = parsed(model.example, parse);
  const params = (parsed(model.params?.mlflow_json, parse) ?? []).map((spec) => paramField(spec, example));
  if (!specs?.length) {
    if (!params.length) return { format: Format.RAW, fields: [], params, example };
    const inputs = { key: "inputs", label: "inputs", spec: { type: "any" }, isRequired: true, initial: example?.inputs ?? [] };
    return { format: Format.TENSOR, fields: [inputs], params, example };
  }
  const format = formatOf(specs, example);
  const schema = parsed(model.input.json_schema) ?? {};
  const values = valuesOf(format, specs, example);
  const fields = specs.map((spec, index) => {
    const key = spec.name === undefined ? String(index) : String(spec.name);
    return {
      key,
      label: spec.name === undefined ? (specs.length === 1 ? "value" : `column ${index}`) : key,
      spec,
      schema: resolved(schema.properties?.[key], schema),
      isRequired: spec.required !== false,
      initial: values[key],
    };
  });
  return { format, fields, params, example };
}

function formatOf(specs, example) {
  if (specs[0].type === "tensor") return specs[0].name === undefined ? Format.TENSOR : Format.TENSORS;
  if (example && typeof example === "object" && !Array.isArray(example) && !PAYLOAD_KEYS.some((key) => key in example)) {
    return Format.BARE;
  }
  if (specs[0].name !== undefined) return Format.RECORDS;
  return specs.length === 1 && Array.isArray(example?.inputs) ? Format.VALUES : Format.SPLIT;
}

/** Returns the values of the example's first row, by the keys of the fields. */
function valuesOf(format, specs, example) {
  if (!example) return {};
  if (format === Format.BARE) return example;
  if (format === Format.TENSOR) return { 0: example.inputs ?? example.instances };
  if (format === Format.TENSORS) return example.inputs ?? example.instances ?? {};
  if (format === Format.VALUES) return { 0: example.inputs[0] };
  const names = specs.map((spec, index) => spec.name ?? index);
  const split = example.dataframe_split;
  if (split) {
    const columns = split.columns ?? names;
    return Object.fromEntries(columns.map((name, index) => [name, split.data?.[0]?.[index]]));
  }
  const rows = example.dataframe_records ?? example.instances ?? example.inputs;
  if (Array.isArray(rows)) return typeof rows[0] === "object" && rows[0] !== null ? rows[0] : { [names[0]]: rows[0] };
  return Object.fromEntries(Object.entries(rows ?? {}).map(([key, value]) => [key, Array.isArray(value) ? value[0] : value]));
}

/** Returns the field of a param, filled in if the example has the param beside its table or its messages. */
function paramField(spec, example) {
  const isTable = PAYLOAD_KEYS.some((key) => Object.hasOwn(example ?? {}, key));
  const params = (isTable ? example.params : example) ?? {};
  const initial = Object.hasOwn(params, spec.name) ? params[spec.name] : undefined;
  return { key: spec.name, label: spec.name, spec, isRequired: false, isParam: true, default: spec.default, initial };
}

/** Returns a property of a JSON schema without its reference or its null alternative. */
function resolved(property, schema) {
  const options = property?.anyOf?.filter((option) => option.type !== "null");
  if (options?.length === 1) return { ...resolved(options[0], schema), default: property.default };
  const definition = property?.$ref?.startsWith("#/$defs/") ? schema.$defs?.[property.$ref.slice("#/$defs/".length)] : null;
  return definition ? { ...definition, default: property.default } : property ?? {};
}

function parsed(text, read = JSON.parse) {
  return text ? read(text) : undefined;
}

/** Returns the readable type of a column, a tensor or a param, such as `array of double`. */
export function typeText(spec) {
  switch (spec.type) {
    case "tensor": return `${spec["tensor-spec"].dtype} tensor, shape (${spec["tensor-spec"].shape.join(", ")})`;
    case "array": return `array of ${typeText(spec.items)}`;
    case "map": return `map of ${typeText(spec.values)}`;
    case "any": return "any JSON";
    case "binary": return "binary, base64";
    default: return spec.shape ? `list of ${spec.type}` : spec.type;
  }
}

/** Returns true for a list of chat messages: objects with a role and a content. */
export function isChat(field) {
  const properties = field.spec.items?.properties;
  if (field.spec.type !== "array" || field.isParam) return false;
  const hasMessages = Array.isArray(field.initial) && field.initial.length > 0 && field.initial.every(
    (item) => typeof item?.role === "string" && typeof item?.content === "string");
  return properties ? "role" in properties && "content" in properties && (hasMessages || !field.initial) : hasMessages;
}
