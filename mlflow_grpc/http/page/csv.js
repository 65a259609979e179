// A CSV file of any size: the page reads it in slices, scores it in chunks, and writes it with the predictions as
// columns. No step handles more than a chunk at a time, so that the page stays responsive.

import { predict } from "./api.js";
import { cellText, parse } from "./json.js";
import { tableOf } from "./answer.js";

const MAX_CHUNK_ROWS = 2000;
const MAX_CHUNK_CHARS = 256 * 1024;
const SLICE_BYTES = 128 * 1024;
const IN_FLIGHT = 2;
const MAX_TRIES = 5;
const BUSY = [429, 503];

/**
 * Scores a file and returns the result as a Blob.
 *
 * @param {File} file CSV in UTF-8 with a header, as POST /invocations accepts it with `text/csv`.
 * @param {(progress: {rows: number, share: number}) => void} onProgress Called after each chunk.
 */
export async function scoreFile(file, model, { signal, onProgress }) {
  const scored = [];
  const waiting = [];
  let header = null;
  let rows = 0;

  async function take() {
    const { records, table, end } = await waiting.shift();
    scored.push({ records, table });
    rows += records.length;
    onProgress({ rows, share: file.size ? end / file.size : 1 });
  }

  for await (const { head, records, first, end } of chunksOf(file)) {
    header = head;
    const chunk = scoreChunk(model, head, records, first, signal).then((table) => ({ records, table, end }));
    chunk.catch(() => {});  // `take` raises the error, unless an earlier chunk fails.
    waiting.push(chunk);
    if (waiting.length >= IN_FLIGHT) await take();
  }
  while (waiting.length) await take();
  if (!rows) throw new Error("The file has no rows after its header.");
  return { blob: await written(header, scored), rows };
}

async function scoreChunk(model, head, records, first, signal) {
  const where = `Rows ${first.toLocaleString("en")} to ${(first + records.length - 1).toLocaleString("en")}`;
  for (let tries = 1; ; tries += 1) {
    try {
      const { text } = await predict(model, [head, ...records, ""].join("\n"), { contentType: "text/csv", signal });
      const predictions = parse(text)?.predictions;
      const table = predictions === undefined ? null : tableOf(predictions);
      if (table?.rows.length !== records.length) {
        throw new Error(`The model answers ${records.length} rows with ${table?.rows.length ?? "no list of"} predictions. It must return one prediction per row.`);
      }
      return table;
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (!BUSY.includes(error.status) || tries === MAX_TRIES) {
        error.message = `${where}: ${error.message}`;
        throw error;
      }
      await pause(Math.max(0.5, error.retryAfterS) * 1000, signal);
    }
  }
}

function pause(duration, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, duration);
    signal.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}

/** Yields {head, records, first, end}: the header, some records, the number of the first record, and the bytes read. */
async function* chunksOf(file) {
  let head = null;
  let records = [];
  let chars = 0;
  let first = 1;
  let end = 0;
  for await (const slice of recordsOf(file)) {
    end = slice.end;
    for (const record of slice.records) {
      if (/^[ \t]*$/.test(record)) continue;  // pandas skips blank lines too.
      if (head === null) {
        head = record;
        continue;
      }
      if (records.length && (records.length >= MAX_CHUNK_ROWS || chars + record.length > MAX_CHUNK_CHARS)) {
        yield { head, records, first, end };
        first += records.length;
        records = [];
        chars = 0;
      }
      records.push(record);
      chars += record.length;
    }
  }
  if (records.length) yield { head, records, first, end: file.size };
}

/** Yields the records of each slice of a file, and its end; a line break within quotes does not end a record. */
async function* recordsOf(file) {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let rest = "";
  for (let begin = 0; begin < file.size; begin += SLICE_BYTES) {
    const end = Math.min(begin + SLICE_BYTES, file.size);
    const isLast = end === file.size;
    const bytes = await file.slice(begin, end).arrayBuffer();
    const records = [];
    let text;
    try {
      text = rest + decoder.decode(bytes, { stream: !isLast });
    } catch (error) {
      throw new Error("The file is not UTF-8. Save it as “CSV UTF-8” and choose it again.", { cause: error });
    }
    let start = 0;
    let quotes = 0;
    for (let at = 0, newline; (newline = text.indexOf("\n", at)) !== -1; at = newline + 1) {
      quotes += quotesBetween(text, at, newline);
      if (quotes % 2) continue;
      records.push(withoutReturn(text.slice(start, newline)));
      start = newline + 1;
      quotes = 0;
    }
    rest = text.slice(start);
    if (isLast && rest) records.push(withoutReturn(rest));
    yield { records, end };
  }
}

function quotesBetween(text, start, end) {
  let count = 0;
  for (let at = text.indexOf('"', start); at !== -1 && at < end; at = text.indexOf('"', at + 1)) count += 1;
  return count;
}

const withoutReturn = (record) => (record.endsWith("\r") ? record.slice(0, -1) : record);

/** Writes the records with the predictions as additional columns. */
async function written(header, scored) {
  const columns = [...new Set(scored.flatMap(({ table }) => table.columns))];
  const names = columns.map((column) => (column === "prediction" ? column : `prediction_${column}`));
  const parts = [`${[header, ...names.map(quoted)].join(",")}\n`];
  for (const { records, table } of scored) {
    const positions = columns.map((column) => table.columns.indexOf(column));
    parts.push(records.map((record, row) =>
      `${[record, ...positions.map((position) => quoted(cellText(table.rows[row][position])))].join(",")}\n`).join(""));
    await new Promise((resolve) => { setTimeout(resolve); });
  }
  return new Blob(parts, { type: "text/csv" });
}

const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
