// Scores the flowers of a CSV file in one call with rows in columns, and prints their species.
//
//   java Flowers ADDRESS < flowers.csv

import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import mlflow.grpc.models.ModelgRPCServiceGrpc;
import mlflow.grpc.models.iris_inputs;

public final class Flowers {
  public static void main(String[] arguments) throws IOException {
    List<String> ids = new ArrayList<>();
    iris_inputs.Builder rows = iris_inputs.newBuilder();
    try (BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
      input.readLine(); // The header.
      for (String line = input.readLine(); line != null; line = input.readLine()) {
        String[] cells = line.split(",", -1); // -1 keeps an empty cell at the end.
        ids.add(cells[0]);
        rows.addSepalLengthCm(number(cells, 1))
            .addSepalWidthCm(number(cells, 2))
            .addPetalLengthCm(number(cells, 3))
            .addPetalWidthCm(number(cells, 4));
      }
    }

    ManagedChannel channel = ManagedChannelBuilder.forTarget(arguments[0]).usePlaintext().build();
    try {
      // Without a deadline, a call to a hung server never ends.
      List<String> species =
          ModelgRPCServiceGrpc.newBlockingStub(channel)
              .withDeadlineAfter(60, TimeUnit.SECONDS)
              .irisPredictBatch(rows.build())
              .getPredictionList();
      for (int row = 0; row < ids.size(); row++) {
        System.out.println(ids.get(row) + " " + species.get(row));
      }
    } catch (StatusRuntimeException error) {
      System.err.println(error.getStatus());
      System.exit(1);
    } finally {
      channel.shutdownNow();
    }
  }

  /** Returns a cell of a row, or ends the program with the row that has no number there. */
  private static double number(String[] cells, int column) {
    String text = column < cells.length ? cells[column] : "";
    try {
      return Double.parseDouble(text);
    } catch (NumberFormatException error) {
      System.err.println(
          "row " + cells[0] + ": column " + column + " is \"" + text + "\"; write a number, such as 5.1");
      System.exit(2);
      throw error;
    }
  }
}
