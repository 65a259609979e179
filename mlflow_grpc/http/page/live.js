// Live figures of the server as small plots. The page reads them only while it is visible.

import { get } from "./api.js";
import { milliseconds } from "./answer.js";
import { element, svg } from "./dom.js";
import { between, snapshot } from "./metrics.js";

const INTERVAL_MS = 2000;
const MAX_POINTS = 60;
const WIDTH = 220;
const HEIGHT = 44;

const FIGURES = [
  { title: "Calls per second", series: [{ key: "callsPerS", name: "" }], text: rate },
  { title: "Latency", series: [{ key: "p50Ms", name: "p50" }, { key: "p99Ms", name: "p99" }], text: milliseconds },
  { title: "Calls waiting", series: [{ key: "waiting", name: "" }], text: String },
];

function rate(value) {
  return value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
}

/** Shows the figures in a section of the page. */
export class LiveFigures {
  constructor(section) {
    this.section = section;
    this.points = [];
    this.last = null;
    this.timer = null;
    this.isPaused = false;
    this.plots = FIGURES.map((figure) => new Plot(figure));
    this.pause = element("button", { type: "button", class: "quiet", "aria-pressed": "false", "aria-label": "Pause the live figures", title: "Pause the live figures", click: () => this.#toggle() }, "❚❚");
    this.problem = element("span", { class: "note" });
    section.append(element("div", { class: "plots" }, this.plots.map((plot) => plot.node)), this.pause, this.problem);
    document.addEventListener("visibilitychange", () => this.#schedule(0));
    this.#schedule(0);
  }

  #toggle() {
    this.isPaused = !this.isPaused;
    this.pause.setAttribute("aria-pressed", String(this.isPaused));
    this.pause.textContent = this.isPaused ? "▶" : "❚❚";
    this.#schedule(0);
  }

  #schedule(delayMs) {
    clearTimeout(this.timer);
    if (document.visibilityState === "visible" && !this.isPaused) {
      this.timer = setTimeout(() => this.#read(), delayMs);
    } else {
      this.last = null;  // A rate that includes the hidden time would not show the current load.
    }
  }

  async #read() {
    try {
      const now = snapshot(await get("metrics"), performance.now());
      this.problem.textContent = "";
      if (this.last) this.#add(between(this.last, now));
      this.last = now;
    } catch (error) {
      if (error.status === 403) {  // The rules do not allow the caller the metrics, so it is not asked again.
        this.section.hidden = this.isPaused = true;
        return;
      }
      this.last = null;
      this.problem.textContent = `No figures: ${error.message}`;
    }
    this.#schedule(INTERVAL_MS);
  }

  #add(point) {
    this.points = [...this.points, point].slice(-MAX_POINTS);
    this.plots.forEach((plot) => plot.draw(this.points));
  }
}

/** One plot with one or two lines. */
class Plot {
  constructor({ title, series, text }) {
    this.series = series;
    this.title = title;
    this.text = text;
    this.values = series.map(() => element("strong", {}, "–"));
    this.lines = series.map((_, index) => svg("path", { class: `line series-${index}`, fill: "none" }));
    this.area = svg("path", { class: "area" });
    this.drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}: no figures yet`, preserveAspectRatio: "none" },
      svg("path", { class: "axis", d: `M0 ${HEIGHT - 0.5}H${WIDTH}` }), this.area, ...this.lines);
    const legend = series.map(({ name }, index) =>
      element("span", { class: "value" }, name ? element("span", { class: `key series-${index}` }, name) : null, name ? " " : null, this.values[index]));
    this.node = element("figure", { class: "plot" },
      element("figcaption", {}, element("span", {}, title), element("span", { class: "values" }, legend)), this.drawing);
  }

  draw(points) {
    const max = Math.max(1, ...points.flatMap((point) => this.series.map(({ key }) => point[key] ?? 0)));
    const x = (index) => WIDTH - (points.length - 1 - index) * (WIDTH / (MAX_POINTS - 1));
    const y = (value) => HEIGHT - 1 - (value / max) * (HEIGHT - 4);
    const spoken = this.series.map(({ key, name }, number) => {
      this.lines[number].setAttribute("d", pathOf(points, key, x, y));
      const latest = points.at(-1)[key];
      const text = latest === null ? "–" : this.text(latest);
      this.values[number].textContent = text;
      return `${name} ${latest === null ? "no calls" : text}`.trim();
    });
    if (this.series.length === 1) {
      const line = pathOf(points, this.series[0].key, x, y);
      this.area.setAttribute("d", line ? `${line}V${HEIGHT}H${x(0)}Z` : "");
    }
    this.drawing.setAttribute("aria-label", `${this.title}: ${spoken.join(", ")}`);
  }
}

/** Returns the path of a line, with gaps where there is no value. */
function pathOf(points, key, x, y) {
  let isDrawing = false;
  return points.map((point, index) => {
    if (point[key] === null) {
      isDrawing = false;
      return "";
    }
    const command = isDrawing ? "L" : "M";
    isDrawing = true;
    // A single point would be invisible.
    return `${command}${x(index).toFixed(1)} ${y(point[key]).toFixed(1)}${command === "M" ? "h0.1" : ""}`;
  }).join("");
}
