// Sends rows as an Arrow table to a model served by mlflow-grpc, by Arrow Flight, and prints the answers.
//
//   node flight.mjs [--address HOST:PORT] [--proto FILE] MODEL ROWS
//
// ROWS is a JSON list of objects. Columns have the types that the model declares.

import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import * as arrow from "apache-arrow";

const PREFIX_BYTES = 8; // Arrow begins each message of a stream with a marker and the length of the header.
const MAX_BYTES = 100 * 1024 * 1024; // grpc-js accepts 4 MB by default, and an answer may be larger.

function usage(problem = "") {
  console.error(`${problem}usage: node flight.mjs [--address HOST:PORT] [--proto FILE] MODEL ROWS`);
  process.exit(2);
}

let options, positionals;
try {
  ({ values: options, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      address: { type: "string", default: "localhost:50051" },
      proto: {
        type: "string",
        default: fileURLToPath(new URL("../../../mlflow_grpc/protos/arrow/flight/flight.proto", import.meta.url)),
      },
    },
  }));
} catch (error) {
  usage(`${error.message.split(". ")[0]}; `);
}
if (positionals.length !== 2) usage();
const [model, rows] = [positionals[0], JSON.parse(positionals[1])];

const definition = loadSync(options.proto, { keepCase: true, defaults: true });
const { FlightService } = grpc.loadPackageDefinition(definition).arrow.flight.protocol;
const client = new FlightService(options.address, grpc.credentials.createInsecure(), {
  "grpc.max_receive_message_length": MAX_BYTES,
});
const descriptor = { type: "PATH", path: model.split("/") };
const deadline = Date.now() + 60_000; // Without one, a call to a hung server never ends.

client.GetSchema(descriptor, { deadline }, (error, answer) => (error ? fail(error) : predict(answer.schema)));

function predict(serializedSchema) {
  const { schema } = arrow.RecordBatchReader.from(serializedSchema).open();
  const columns = schema.fields.map(({ name, type }) => {
    const cells = rows.map((row) => row[name] ?? null);
    return [name, arrow.vectorFromArray(cells, type)];
  });
  const table = new arrow.Table(Object.fromEntries(columns));

  const stream = client.DoExchange({ deadline });
  const received = [];
  stream.on("error", (error) => {
    received.length = 0;
    fail(error);
  });
  stream.on("data", ({ data_header, data_body }) => received.push(...inStream(data_header, data_body)));
  stream.on("end", () => {
    if (received.length === 0) return; // After an error, which has been reported.
    console.log(JSON.stringify(arrow.tableFromIPC(Buffer.concat(received)).toArray()));
    client.close();
  });
  let flight_descriptor = descriptor;
  for (const message of messagesOf(arrow.tableToIPC(table, "stream"))) {
    stream.write({ ...message, flight_descriptor });
    flight_descriptor = undefined; // Only the first message has it.
  }
  stream.end();
}

// The messages of a stream, with their headers and bodies apart, as Flight sends them.
function* messagesOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let start = PREFIX_BYTES, length; (length = view.getInt32(start - 4, true)) > 0; start += PREFIX_BYTES) {
    const data_header = bytes.subarray(start, (start += length));
    const data_body = bytes.subarray(start, (start += arrow.Message.decode(data_header).bodyLength));
    yield { data_header, data_body };
  }
}

// The same as pieces of a stream. The server pads headers and bodies as a stream needs it.
function inStream(header, body) {
  const prefix = Buffer.alloc(PREFIX_BYTES, 0xff);
  prefix.writeInt32LE(header.length, 4);
  return [prefix, header, body];
}

function fail(error) {
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  process.exitCode = 1;
  client.close();
}
