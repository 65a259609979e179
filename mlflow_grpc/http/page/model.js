// The view of one model: its facts, its form, the answer, the same call as code, and a file to score.

import { CallError, predict, predictStream } from "./api.js";
import { StreamView, answerView, milliseconds } from "./answer.js";
import { FieldError } from "./controls.js";
import { scoreFile } from "./csv.js";
import { copyButton, element, newId, tabs } from "./dom.js";
import { Format } from "./fields.js";
import { ModelForm } from "./form.js";
import { snippetsOf } from "./snippets.js";

const SNIPPETS = ["curl", "grpcurl", "buf curl", "Python", "Node"];

/** The view of a model. */
export class ModelView {
  constructor(model, server, announce) {
    this.model = model;
    this.server = server;
    this.announce = announce;
    this.pending = null;
    this.scoring = null;
    this.removers = [];
    this.node = element("article", {}, this.#facts());
    if (model.state !== "READY") return;
    if (model.rpcs.length === 0) {
      this.node.append(element("p", { class: "note" }, "This model cannot be called, because the configuration gives it no endpoint."));
      return;
    }
    this.canStream = model.rpcs.some((rpc) => rpc.path.endsWith("/predict_stream"));
    this.streams = false;
    this.#addForm();
    this.#addSnippets();
    this.#addFile();
  }

  /** Cancels calls in progress and removes listeners. */
  close() {
    this.pending?.abort();
    this.scoring?.abort();
    this.removers.forEach((remove) => remove());
  }

  #facts() {
    const { model } = this;
    const state = model.state.toLowerCase();
    const facts = [
      ["Version", model.version],
      ["Flavors", model.flavors.join(", ") || (model.state === "READY" ? "python_function" : "")],
      ["Batched", model.state === "READY" ? `${model.batched ? "yes" : "no"}: ${model.batching_reason}` : ""],
      ["Deterministic", model.deterministic === undefined ? "" : model.deterministic ? "yes" : "no"],
      ["Source", model.uri],
      ["Run", model.run_id],
    ].filter(([, value]) => value);
    return element("header", { class: "facts" },
      element("h2", {}, model.name || "Model without a name yet", element("span", { class: `state ${state}` }, state)),
      model.description && model.description !== model.name ? element("p", {}, model.description) : null,
      model.error ? element("p", { class: "problem" }, model.error) : null,
      element("dl", {}, facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)))));
  }

  #addForm() {
    this.form = new ModelForm(this.model);
    this.answer = element("div", { class: "result" });
    this.cancel = element("button", { type: "button", class: "quiet", hidden: true, click: () => this.pending?.abort() }, "Cancel");
    const note = this.model.example_is_typed
      ? element("p", { class: "note" }, "MLflow refuses the example of this model as JSON. Only the typed RPCs accept it.") : null;
    const node = element("form", { class: "card", novalidate: true, autocomplete: "off", "aria-label": `Call ${this.model.name}` }, note, this.form.node,
      element("div", { class: "actions" },
        element("button", { type: "submit", class: "primary" }, "Predict"),
        this.canStream ? element("button", { type: "button", class: "secondary", click: () => this.#stream() }, "Stream") : null,
        this.cancel,
        element("span", { class: "hint keys" }, "or press Ctrl+Enter")));
    node.addEventListener("submit", (event) => { event.preventDefault(); this.#predict(); });
    node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        this.#predict();
      }
    });
    node.addEventListener("input", () => this.#showSnippets());
    this.node.append(element("h3", {}, "Try it"), node, this.answer);
  }

  async #predict() {
    this.streams = false;
    await this.#call(async (payload, signal) => {
      const answer = await predict(this.model, payload, { signal });
      this.answer.replaceChildren(element("h3", {}, "Answer"), answerView(answer));
      this.announce(`Answered in ${milliseconds(answer.elapsedMs)}.`);
    });
  }

  async #stream() {
    this.streams = true;
    await this.#call(async (payload, signal) => {
      const view = new StreamView();
      this.answer.replaceChildren(element("h3", {}, "Answer in parts"), view.node);
      for await (const { part, atMs } of predictStream(this.model, payload, { signal })) view.add(part, atMs);
      this.announce(`The stream has ended: ${view.summary.textContent}.`);
    });
  }

  /** Makes one call with the payload of the form, and cancels a previous call without an answer. */
  async #call(run) {
    this.pending?.abort();
    this.form.clearErrors();
    this.#showSnippets();
    let payload;
    try {
      payload = this.form.payload();
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      this.answer.replaceChildren();
      this.form.showFieldError(error);
      return;
    }
    const pending = new AbortController();
    this.pending = pending;
    this.cancel.hidden = false;
    this.answer.setAttribute("aria-busy", "true");
    try {
      await run(payload, pending.signal);
    } catch (error) {
      if (this.pending === pending) this.#showError(error);
    } finally {
      if (this.pending === pending) {
        this.pending = null;
        this.cancel.hidden = true;
        this.answer.removeAttribute("aria-busy");
      }
    }
  }

  #showError(error) {
    if (error.name === "AbortError") {
      this.answer.append(element("p", { class: "note", role: "alert" }, "Cancelled."));
      return;
    }
    if (!(error instanceof CallError)) {
      this.answer.replaceChildren(problem(`The server cannot be reached: ${error.message}`));
      return;
    }
    const shown = this.form.showErrors(error.violations);
    const unplaced = shown.filter(({ control }) => !control);
    const alert = problem(error.message, error);
    if (unplaced.length && unplaced.length < shown.length) {
      alert.append(element("ul", {}, unplaced.map(({ field, description }) => element("li", {}, `${field}: ${description}`))));
    }
    // Parts that arrived before the error stay.
    if (this.streams && error.status === 200) this.answer.append(alert);
    else this.answer.replaceChildren(alert);
    shown.find(({ control }) => control)?.control.focus();
  }

  #addSnippets() {
    const panels = SNIPPETS.map((name) => ({ name, panel: element("div"), code: element("code") }));
    for (const { name, panel, code } of panels) {
      panel.append(element("pre", { class: "code", tabindex: 0, "aria-label": `The call for ${name}` }, code), copyButton(() => code.textContent, this.announce));
      panel.className = "snippet";
    }
    this.snippets = panels;
    const choice = tabs("The same call as code", panels);
    this.node.append(element("h3", {}, "The same call as code"), element("section", { class: "card" }, choice.list, panels.map(({ panel }) => panel)));
    this.#showSnippets();
  }

  #showSnippets() {
    if (!this.snippets) return;
    let payload;
    try {
      payload = this.form.payload();
    } catch (error) {
      if (error instanceof FieldError) return;  // The snippets stay unchanged until the field is valid JSON.
      throw error;
    }
    const texts = snippetsOf({ model: this.model, server: this.server, payload, streams: this.streams });
    this.snippets.forEach(({ name, code }) => { code.textContent = texts[name]; });
  }

  #addFile() {
    if ([Format.BARE, Format.TENSORS].includes(this.form.plan.format)) return;
    const input = element("input", { type: "file", id: newId("file"), accept: ".csv,text/csv" });
    this.progress = element("progress", { max: 1, value: 0, "aria-label": "Rows scored" });
    this.fileStatus = element("p", { role: "status" });
    this.fileCancel = element("button", { type: "button", class: "quiet", hidden: true, click: () => this.scoring?.abort() }, "Cancel");
    this.fileRow = element("div", { class: "file-row", hidden: true }, this.progress, this.fileStatus, this.fileCancel);
    this.download = element("p", {});
    const zone = element("section", { class: "card drop", "aria-label": "Score a CSV file" },
      element("label", { for: input.id }, "Drop a CSV file on the page, or choose one:"), input,
      element("p", { class: "hint" }, "The file needs a header with the column names. You get it back with the predictions as columns."),
      this.fileRow, this.download);
    input.addEventListener("change", () => { if (input.files[0]) this.#score(input.files[0]); });
    this.node.append(element("h3", {}, "Score a file"), zone);
    this.#listen("dragover", (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      zone.classList.add("over");
    });
    this.#listen("dragleave", (event) => { if (!event.relatedTarget) zone.classList.remove("over"); });
    this.#listen("drop", (event) => {
      zone.classList.remove("over");
      const [file] = event.dataTransfer.files;
      if (!file) return;
      event.preventDefault();
      zone.scrollIntoView({ block: "nearest" });
      this.#score(file);
    });
  }

  #listen(name, listener) {
    document.addEventListener(name, listener);
    this.removers.push(() => document.removeEventListener(name, listener));
  }

  async #score(file) {
    this.scoring?.abort();
    const scoring = new AbortController();
    this.scoring = scoring;
    this.#forgetResult();
    this.fileRow.hidden = false;
    this.progress.hidden = false;
    this.fileCancel.hidden = false;
    this.progress.value = 0;
    this.fileStatus.className = "";
    this.fileStatus.textContent = `Scoring ${file.name}`;
    const start = performance.now();
    const onProgress = ({ rows, share }) => {
      if (this.scoring !== scoring) return;
      const speed = rows / ((performance.now() - start) / 1000);
      this.progress.value = share;
      this.progressText(`${rows.toLocaleString("en")} rows, ${Math.round(speed).toLocaleString("en")} per second`);
    };
    try {
      const { blob, rows } = await scoreFile(file, this.model, { signal: scoring.signal, onProgress });
      if (this.scoring !== scoring) return;
      this.progress.value = 1;
      this.fileStatus.textContent = `${rows.toLocaleString("en")} rows scored in ${milliseconds(performance.now() - start)}.`;
      this.#offer(blob, file.name.replace(/(\.csv)?$/i, "-predictions.csv"));
    } catch (error) {
      if (this.scoring !== scoring) return;
      this.progress.hidden = true;
      this.fileStatus.className = error.name === "AbortError" ? "" : "problem";
      this.fileStatus.textContent = error.name === "AbortError" ? "Cancelled." : error.message;
    } finally {
      if (this.scoring === scoring) {
        this.scoring = null;
        this.fileCancel.hidden = true;
      }
    }
  }

  progressText(text) {
    this.fileStatus.textContent = text;
  }

  #offer(blob, name) {
    this.url = URL.createObjectURL(blob);
    this.download.append(element("a", { class: "button", href: this.url, download: name }, `Download ${name}`));
  }

  #forgetResult() {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
    this.download.replaceChildren();
  }
}

function problem(message, error) {
  const details = [error?.status ? `status ${error.status}` : "", error?.code, error?.requestId ? `request ${error.requestId}` : ""].filter(Boolean);
  return element("div", { class: "problem", role: "alert" }, element("p", {}, message),
    details.length ? element("p", { class: "hint" }, details.join(" · ")) : null);
}
