// A web service that asks a served model: GET /species?sepal_length_cm=5.1&sepal_width_cm=3.5&... answers as JSON.
//
//   node server.mjs
//
// MODEL_ADDRESS is the address of the model's server, localhost:50051 by default. PORT is the service's own port, 3000.

import { existsSync } from "node:fs";
import { createServer } from "node:http";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const { MODEL_ADDRESS = "localhost:50051", PORT = "3000" } = process.env;
const PROTO = "model_service.proto";
const COLUMNS = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"];
const LIMIT_MS = 2000;

// Any other status is 502: the model's server failed, and the request is not the reason.
const HTTP_STATUS = {
  [grpc.status.INVALID_ARGUMENT]: 400,
  [grpc.status.NOT_FOUND]: 404,
  [grpc.status.RESOURCE_EXHAUSTED]: 429,
  [grpc.status.UNAVAILABLE]: 503,
  [grpc.status.DEADLINE_EXCEEDED]: 504,
};

function stop(problem) {
  console.error(problem);
  process.exit(2);
}

if (!existsSync(PROTO)) {
  stop(`There is no ${PROTO}. To write it from a running server: mlflow-grpc-predict --address ${MODEL_ADDRESS} --proto -o ${PROTO}`);
}

// keepCase, because sepal_length_cm would otherwise become sepalLengthCm, and unknown names are not sent.
const { model_grpc_service } = grpc.loadPackageDefinition(loadSync(PROTO, { keepCase: true }));
// One client for all requests: they share its connection.
const model = new model_grpc_service.ModelgRPCService(MODEL_ADDRESS, grpc.credentials.createInsecure());

// Resolves to the answer, if there is one, with the status and the trailers of the call. It never rejects.
const predict = (flower) =>
  new Promise((done) => {
    let answer;
    const call = model.iris_predict(flower, { deadline: Date.now() + LIMIT_MS }, (_, received) => (answer = received));
    call.on("status", (status) => done({ answer, ...status }));
  });

const service = createServer(async (request, response) => {
  const respond = (status, body, headers = {}) =>
    response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body) + "\n");

  const [path, query] = request.url.split("?");
  if (path !== "/species") return respond(404, { error: "there is no such path; the model is at /species" });

  const parameters = new URLSearchParams(query);
  // A column that is left out is not sent, and the model's server names it in its refusal.
  const given = COLUMNS.filter((name) => parameters.has(name));
  // Number("") is 0, and a model may take the NaN of any other text for a missing value.
  const flower = Object.fromEntries(given.map((name) => [name, Number(parameters.get(name).trim() || NaN)]));
  const wrong = given.filter((name) => !Number.isFinite(flower[name]));
  if (wrong.length > 0) {
    return respond(400, { error: wrong.map((name) => `${name} is not a number; write one such as 5.1`).join(". ") });
  }

  const { answer, code, details, metadata } = await predict(flower);
  // The id of the call in the log of the model's server, which is not there if the server was not reached.
  const [id] = metadata.get("x-request-id");
  const headers = id ? { "x-request-id": id } : {};
  if (answer) respond(200, { species: answer.prediction }, headers);
  else if (id) respond(HTTP_STATUS[code] ?? 502, { error: details }, headers);
  else {
    // gRPC's own text, with addresses that callers need not see.
    console.error(details);
    respond(HTTP_STATUS[code] ?? 502, { error: "the model does not answer; try again" });
  }
});

service.on("error", ({ code, message }) =>
  stop(code === "EADDRINUSE" ? `Port ${PORT} is taken. To use another one: PORT=3001 node server.mjs` : message),
);
service.listen(Number(PORT), "127.0.0.1", () => console.log(`ready on http://127.0.0.1:${service.address().port}`));
