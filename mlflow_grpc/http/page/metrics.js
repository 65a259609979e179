// Figures for the plots, read from Prometheus' text format.

const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

const REQUESTS = "mlflow_grpc_requests_total";
const WAITING = "mlflow_grpc_requests_waiting";
const DURATIONS = ["grpc_server_handling_seconds_bucket", "http_server_request_duration_seconds_bucket"];

/** Services that call no model. */
const OTHER_SERVICES = /^(grpc\.|mlflow_grpc\.v1\.Models)/;

/** Yields the samples of some metrics: {name, labels, value}. */
export function* samples(text, names) {
  for (const line of text.split("\n")) {
    const end = line.search(/[{ ]/);
    if (end < 1 || line[0] === "#" || !names.includes(line.slice(0, end))) continue;
    const close = line[end] === "{" ? line.lastIndexOf("}") : end - 1;
    const labels = Object.fromEntries([...line.slice(end, close + 1).matchAll(LABEL)].map(([, key, value]) => [key, value]));
    const value = line.slice(close + 1).trim().split(" ")[0];
    yield { name: line.slice(0, end), labels, value: value === "+Inf" ? Infinity : Number(value) };
  }
}

/** Returns the totals of one scrape: {atMs, calls, waiting, buckets}; buckets are counts by bound in seconds. */
export function snapshot(text, atMs) {
  const result = { atMs, calls: 0, waiting: 0, buckets: new Map() };
  for (const { name, labels, value } of samples(text, [REQUESTS, WAITING, ...DURATIONS])) {
    if (name === REQUESTS) result.calls += value;
    else if (name === WAITING) result.waiting += value;
    else if (isCall(labels)) {
      const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
      result.buckets.set(bound, (result.buckets.get(bound) ?? 0) + value);
    }
  }
  return result;
}

function isCall(labels) {
  if ("http_route" in labels) return labels.http_request_method === "POST";
  return !OTHER_SERVICES.test(labels.grpc_service);
}

/** Returns the figures between two scrapes: {callsPerS, p50Ms, p99Ms, waiting}; a quantile without calls is null. */
export function between(before, after) {
  const seconds = (after.atMs - before.atMs) / 1000;
  const counts = [...after.buckets].sort(([left], [right]) => left - right)
    .map(([bound, count]) => [bound, Math.max(0, count - (before.buckets.get(bound) ?? 0))]);
  return {
    callsPerS: Math.max(0, after.calls - before.calls) / seconds,
    p50Ms: quantileMs(counts, 0.5),
    p99Ms: quantileMs(counts, 0.99),
    waiting: after.waiting,
  };
}

/** Returns a quantile of a histogram in milliseconds, interpolated like Prometheus' histogram_quantile. */
export function quantileMs(counts, quantile) {
  const total = counts.at(-1)?.[1] ?? 0;
  if (!total) return null;
  const rank = quantile * total;
  const index = counts.findIndex(([, count]) => count >= rank);
  const [bound, count] = counts[index];
  const [lower, below] = index ? counts[index - 1] : [0, 0];
  if (bound === Infinity) return lower * 1000;
  return 1000 * (lower + ((bound - lower) * (rank - below)) / (count - below));
}
