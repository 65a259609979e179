// The page: the list of models, and the selected model. The URL fragment names it.

import { CallError, get } from "./api.js";
import { element } from "./dom.js";
import { LiveFigures } from "./live.js";
import { ModelView } from "./model.js";

const RELOAD_MS = 2000;
const MIN_MODELS_TO_FILTER = 8;

const byId = (id) => document.getElementById(id);

let models = [];
let server = {};
let view = null;

/** Makes screen readers say a sentence. */
function announce(text) {
  byId("status").textContent = text;
}

const labelOf = (model) => (model.version ? `${model.name}/${model.version}` : model.name);

function showList() {
  const filter = byId("filter");
  filter.hidden = models.length < MIN_MODELS_TO_FILTER;
  const text = filter.value.toLowerCase();
  byId("models").replaceChildren(...models.filter((model) => labelOf(model).toLowerCase().includes(text)).map((model) =>
    element("li", {}, element("a", {
      href: `#${encodeURIComponent(labelOf(model))}`,
      "aria-current": view?.model && labelOf(view.model) === labelOf(model) ? "true" : null,
    }, element("span", { class: "name" }, model.name || "a model"), model.version ? element("span", { class: "version" }, model.version) : null,
    element("span", { class: `dot ${model.state.toLowerCase()}`, "aria-hidden": "true" }),
    element("span", { class: "visually-hidden" }, model.state.toLowerCase())))));
}

function chosen() {
  const label = decodeURIComponent(location.hash.slice(1));
  const isDefault = (model) => model.rpcs.length > 0 && model.rpcs.every((rpc) => !("mlflow-model" in rpc.metadata));
  return models.find((model) => labelOf(model) === label) ?? models.find(isDefault)
    ?? models.find((model) => model.state === "READY") ?? models[0];
}

function show({ hasFocus = false } = {}) {
  const model = chosen();
  if (!model) return;
  if (!view || labelOf(view.model) !== labelOf(model) || view.model.state !== model.state) {
    view?.close();
    view = new ModelView(model, server, announce);
    byId("model").replaceChildren(view.node);
    document.title = `${model.name} · mlflow-grpc`;
    if (hasFocus) byId("model").focus({ preventScroll: false });
  }
  showList();
}

function showProblem(error) {
  const text = error instanceof CallError ? error.message : `The server cannot be reached: ${error.message}`;
  byId("model").replaceChildren(element("p", { class: "problem", role: "alert" }, text));
}

async function load() {
  try {
    ({ models } = await get("models"));
    show();
  } catch (error) {
    showProblem(error);
    view = null;
  }
  // Models that are loading change their state, and so does a server that was unreachable.
  if (!view || models.some((model) => model.state === "LOADING")) setTimeout(load, RELOAD_MS);
}

async function start() {
  try {
    server = await get("page/server.json");
  } catch (error) {
    if (error.status !== 403) throw error;
    return showProblem(error);  // The caller may not use the page.
  }
  byId("version").textContent = server.version;
  byId("links").append(...["models", "metrics", ...server.links].map((path) => element("a", { href: path }, `/${path}`)));
  new LiveFigures(byId("live"));
  byId("filter").addEventListener("input", showList);
  window.addEventListener("hashchange", () => { if (location.hash !== "#model") show({ hasFocus: true }); });
  await load();
}

start();
