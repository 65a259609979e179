// A web service that asks a served model: GET /species?sepal_length_cm=5.1&sepal_width_cm=3.5&... answers as JSON.
//
//   node server.mjs
//
// MODEL_ADDRESS is the address of the model's server, localhost:50051 by default. PORT is the service's own port, 3000.

import { createServer } from "node:http";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const { MODEL_ADDRESS = "localhost:50051", PORT = "3000" } = process.env;
const COLUMNS = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"];
const LIMIT_MS = 2000;

// keepCase, because sepal_length_cm would otherwise become sepalLengthCm, and unknown names are not sent.
const { model_grpc_service } = grpc.loadPackageDefinition(loadSync("model_service.proto", { keepCase: true }));
// One client for all requests: they share its connection.
const model = new model_grpc_service.ModelgRPCService(MODEL_ADDRESS, grpc.credentials.createInsecure());

const predict = (flower) =>
  new Promise((done, fail) => {
    model.iris_predict(flower, { deadline: Date.now() + LIMIT_MS }, (error, answer) => (error ? fail(error) : done(answer)));
  });

const STATUS = { [grpc.status.INVALID_ARGUMENT]: 400, [grpc.status.DEADLINE_EXCEEDED]: 504 };

const service = createServer(async (request, response) => {
  const { searchParams } = new URL(request.url, "http://localhost");
  // A column that is left out is not sent, and the server names it in its refusal.
  const flower = Object.fromEntries(COLUMNS.filter((name) => searchParams.has(name)).map((name) => [name, Number(searchParams.get(name))]));
  const [status, body] = await predict(flower).then(
    ({ prediction }) => [200, { species: prediction }],
    (error) => [STATUS[error.code] ?? 503, { error: error.details }],
  );
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body) + "\n");
});

service.listen(Number(PORT), "127.0.0.1", () => console.log(`ready on http://127.0.0.1:${service.address().port}`));
