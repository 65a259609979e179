// Sends one payload to a model served by mlflow-grpc and prints the answer.
//
//   node predict.mjs [--address HOST:PORT] [--proto FILE] PAYLOAD

import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

function usage(problem = "") {
  console.error(`${problem}usage: node predict.mjs [--address HOST:PORT] [--proto FILE] PAYLOAD`);
  process.exit(2);
}

let given, positionals;
try {
  ({ values: given, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      address: { type: "string", default: "localhost:50051" },
      proto: { type: "string", default: here("../../../mlflow.proto") },
    },
  }));
} catch (error) {
  usage(`${error.message.split(". ")[0]}; `);
}
if (positionals.length !== 1) usage();

const { MLflow } = grpc.loadPackageDefinition(loadSync(given.proto));
const client = new MLflow(given.address, grpc.credentials.createInsecure(), {
  // grpc-js accepts 4 MB by default, and an answer may be larger.
  "grpc.max_receive_message_length": 100 * 1024 * 1024,
});

// Without a deadline, a call to a hung server never ends.
const deadline = Date.now() + 60_000;
client.predict({ value: positionals[0] }, { deadline }, (error, answer) => {
  if (error) {
    report(error);
    process.exitCode = 1;
  } else {
    console.log(answer.value);
  }
  client.close();
});

function report(error) {
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  const [data] = error.metadata.get("grpc-status-details-bin");
  if (!data) return; // Not from the server, because it was not reached or the deadline passed.
  const messages = loadSync(here("status.proto"), { keepCase: true });
  for (const { type_url, value } of messages["google.rpc.Status"].deserialize(data).details) {
    const detail = messages[type_url.split("/").pop()]?.deserialize(value);
    if (detail?.reason) console.error(`  reason: ${detail.reason}, request id: ${detail.metadata.request_id}`);
    for (const { field, description } of detail?.field_violations ?? []) console.error(`  ${field}: ${description}`);
  }
}
