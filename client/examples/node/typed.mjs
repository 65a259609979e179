// Calls the example model in its own types: one flower, rows in columns, and a stream in which one record gets an error.
//
//   mlflow-grpc-predict --address HOST:PORT --proto -o model_service.proto
//   node typed.mjs [--address HOST:PORT] [--proto FILE]

import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

let given;
try {
  ({ values: given } = parseArgs({
    options: {
      address: { type: "string", default: "localhost:50051" },
      proto: { type: "string", default: "model_service.proto" },
    },
  }));
} catch (error) {
  console.error(`${error.message.split(". ")[0]}; usage: node typed.mjs [--address HOST:PORT] [--proto FILE]`);
  process.exit(2);
}

if (!existsSync(given.proto)) {
  console.error(`There is no ${given.proto}. To write it from a running server: mlflow-grpc-predict --proto -o ${given.proto}`);
  process.exit(2);
}

// keepCase, because sepal_length_cm would otherwise become sepalLengthCm, and unknown names are not sent.
// longs as texts, because JavaScript's numbers cannot hold all 64-bit integers.
const { model_grpc_service } = grpc.loadPackageDefinition(loadSync(given.proto, { keepCase: true, longs: String }));
const client = new model_grpc_service.ModelgRPCService(given.address, grpc.credentials.createInsecure());

const call = (name, request) =>
  new Promise((done, fail) => {
    // Without a deadline, a call to a hung server never ends.
    client[name](request, { deadline: Date.now() + 60_000 }, (error, answer) => (error ? fail(error) : done(answer)));
  });

const setosa = { sepal_length_cm: 5.1, sepal_width_cm: 3.5, petal_length_cm: 1.4, petal_width_cm: 0.2 };
const virginica = { sepal_length_cm: 6.7, sepal_width_cm: 3.0, petal_length_cm: 5.2, petal_width_cm: 2.3 };

try {
  const { prediction } = await call("iris_predict", setosa);
  console.log(prediction);

  const columns = Object.fromEntries(Object.keys(setosa).map((name) => [name, [setosa[name], virginica[name]]]));
  console.log((await call("iris_predict_batch", columns)).prediction.join(" "));

  const stream = client.iris_predict_many();
  for (const flower of [setosa, { sepal_length_cm: 5.1 }, virginica]) stream.write(flower);
  stream.end();
  for await (const answer of stream) {
    const { error } = answer;
    console.log(error ? `${error.reason}: ${error.field_violations.map(({ field }) => field).join(", ")}` : answer.prediction);
  }
} catch (error) {
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  process.exitCode = 1;
} finally {
  client.close();
}
