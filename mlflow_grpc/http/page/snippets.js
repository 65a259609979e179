// The same call as a command or a program that can be copied.

import { pathOf } from "./api.js";
import { parse, write, writePython } from "./json.js";

const WIDTH = 90;

/** Returns the snippets of a call, by name. A payload that is not JSON stays text. */
export function snippetsOf({ model, server, payload, streams }) {

  const call = {
    url: new URL(pathOf(model), location.href).href,
    grpc: `${location.hostname}:${server.grpc_port}`,
    tls: server.tls,
    label: model.version ? `${model.name}/${model.version}` : model.name,
    needsLabel: model.rpcs.some((rpc) => "mlflow-model" in rpc.metadata),
    payload,
    streams,
  };
  return {
    curl: curl(call),
    grpcurl: grpcurl(call),
    "buf curl": bufCurl(call),
    Python: python(call),
    Node: node(call),
  };
}

/** Quotes a text for a POSIX shell. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function compact(payload) {
  try {
    return write(parse(payload));
  } catch {
    return payload;
  }
}

function curl({ url, payload, streams }) {
  return [
    `curl ${streams ? "-N " : ""}${quoted(url)}`,
    "  -H 'content-type: application/json'",
    ...(streams ? ["  -H 'accept: text/event-stream'"] : []),
    `  -d ${quoted(compact(payload))}`,
  ].join(" \\\n");
}

const methodOf = (streams) => (streams ? "MLflowStream/predict_stream" : "MLflow/predict");

/** The message Input, with the payload in the field `value`. */
const inputOf = (payload) => quoted(JSON.stringify({ value: compact(payload) }));

function grpcurl({ grpc, tls, needsLabel, label, payload, streams }) {
  return [
    `grpcurl${tls ? "" : " -plaintext"}`,
    ...(needsLabel ? [`  -H ${quoted(`mlflow-model: ${label}`)}`] : []),
    `  -d ${inputOf(payload)}`,
    `  ${grpc} ${methodOf(streams)}`,
  ].join(" \\\n");
}

function bufCurl({ grpc, tls, needsLabel, label, payload, streams }) {
  return [
    `buf curl --protocol grpc${tls ? "" : " --http2-prior-knowledge"}`,
    ...(needsLabel ? [`  -H ${quoted(`mlflow-model: ${label}`)}`] : []),
    `  -d ${inputOf(payload)}`,
    `  ${tls ? "https" : "http"}://${grpc}/${methodOf(streams)}`,
  ].join(" \\\n");
}

function python({ grpc, tls, needsLabel, label, payload, streams }) {
  let literal;
  try {
    literal = writePython(parse(payload), WIDTH);
  } catch {
    literal = JSON.stringify(payload);
  }
  const options = needsLabel ? `, model=${JSON.stringify(label)}` : "";
  const call = streams
    ? `    for chunk in client.predict_stream(payload${options}):\n        print(chunk)`
    : `    print(client.predict(payload${options}))`;
  return `from mlflow_grpc_client import Client

payload = ${literal}
with Client(${JSON.stringify(grpc)}${tls ? ", tls=True" : ""}) as client:
${call}
`;
}

function node({ url, payload, streams }) {
  const accept = streams ? `, "accept": "text/event-stream"` : "";
  const body = JSON.stringify(compact(payload));
  const answer = streams
    ? `for await (const text of response.body.pipeThrough(new TextDecoderStream())) process.stdout.write(text);`
    : `console.log(await response.json());`;
  return `const response = await fetch(${JSON.stringify(url)}, {
  method: "POST",
  headers: { "content-type": "application/json"${accept} },
  body: ${body},
});
if (!response.ok) throw new Error(await response.text());
${answer}
`;
}
