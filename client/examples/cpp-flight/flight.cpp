// Calls a model with rows in JSON lines on the standard input, by Arrow Flight, and prints its predictions as CSV.
//
// The rows are made in the types of the server's input schema. docs/flight.md says how to compile it.

#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <thread>

#include <arrow/api.h>
#include <arrow/csv/api.h>
#include <arrow/flight/api.h>
#include <arrow/io/api.h>
#include <arrow/io/stdio.h>
#include <arrow/json/api.h>

namespace flight = arrow::flight;

constexpr std::chrono::duration<double> kTimeout{30};

arrow::Result<std::shared_ptr<arrow::Schema>> InputSchema(flight::FlightClient& client,
                                                         const flight::FlightDescriptor& model,
                                                         const flight::FlightCallOptions& options) {
  ARROW_ASSIGN_OR_RAISE(auto schema, client.GetSchema(options, model));
  arrow::ipc::DictionaryMemo memo;
  return schema->GetSchema(&memo);
}

arrow::Result<std::shared_ptr<arrow::Table>> Rows(std::shared_ptr<arrow::Schema> schema) {
  auto parse = arrow::json::ParseOptions::Defaults();
  parse.explicit_schema = std::move(schema);
  ARROW_ASSIGN_OR_RAISE(
      auto reader, arrow::json::TableReader::Make(arrow::default_memory_pool(), std::make_shared<arrow::io::StdinStream>(),
                                                  arrow::json::ReadOptions::Defaults(), parse));
  return reader->Read();
}

arrow::Status Predict(const std::string& address, const std::string& name) {
  ARROW_ASSIGN_OR_RAISE(auto location, flight::Location::Parse("grpc://" + address));
  ARROW_ASSIGN_OR_RAISE(auto client, flight::FlightClient::Connect(location));
  const auto model = flight::FlightDescriptor::Path({name});
  flight::FlightCallOptions options;
  options.timeout = kTimeout;
  ARROW_ASSIGN_OR_RAISE(auto schema, InputSchema(*client, model, options));
  ARROW_ASSIGN_OR_RAISE(auto rows, Rows(schema));
  ARROW_ASSIGN_OR_RAISE(auto exchange, client->DoExchange(options, model));
  // A thread of its own writes, because the server reads no more until its answers are read.
  arrow::Status written;
  std::thread writer([&] {
    written = exchange.writer->Begin(rows->schema());
    if (written.ok()) written = exchange.writer->WriteTable(*rows);
    if (written.ok()) written = exchange.writer->DoneWriting();
  });
  const auto answers = exchange.reader->ToTable();
  writer.join();
  ARROW_RETURN_NOT_OK(exchange.writer->Close());  // The status of the server, which says why an exchange has ended.
  ARROW_RETURN_NOT_OK(written);
  ARROW_RETURN_NOT_OK(answers.status());
  arrow::io::StdoutStream output;
  return arrow::csv::WriteCSV(**answers, arrow::csv::WriteOptions::Defaults(), &output);
}

int main(int argc, char** argv) {
  if (argc != 4 || std::string(argv[1]) != "--address") {
    std::cerr << "usage: flight --address HOST:PORT MODEL < rows.jsonl\n";
    return 2;
  }
  const auto status = Predict(argv[2], argv[3]);
  if (!status.ok()) {
    std::cerr << status.message() << "\n";
    return 1;
  }
  return 0;
}
