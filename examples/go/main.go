// Scores the flowers of a CSV file over one stream, and prints their species.
//
//	main ADDRESS < flowers.csv
package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"

	"mlflow_grpc/modelspb"
)

// Returns a request with the columns of a row after its id. An empty cell is a value that is left out.
func flower(header, row []string) (*modelspb.IrisInput, error) {
	values := make([]*float64, 4)
	for column := range values {
		text := row[column+1]
		if text == "" {
			continue
		}
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("row %s: %s is %q; write a number, such as 5.1", row[0], header[column+1], text)
		}
		values[column] = &value
	}
	return &modelspb.IrisInput{
		SepalLengthCm: values[0], SepalWidthCm: values[1], PetalLengthCm: values[2], PetalWidthCm: values[3],
	}, nil
}

func run(address string, input io.Reader) error {
	rows, err := csv.NewReader(input).ReadAll()
	if err != nil {
		return err
	}
	if len(rows) == 0 || len(rows[0]) != 5 {
		return errors.New("the input needs a header with an id and four columns")
	}
	// All rows are read before the first one is sent, so that a typing error in the last row does not cost a stream.
	var requests []*modelspb.IrisInput
	for _, row := range rows[1:] {
		request, err := flower(rows[0], row)
		if err != nil {
			return err
		}
		requests = append(requests, request)
	}
	// Without a deadline, a call to a hung server never ends.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	channel, err := grpc.Dial(address, options...)
	if err != nil {
		return err
	}
	defer channel.Close()
	stream, err := modelspb.NewModelgRPCServiceClient(channel).IrisPredictMany(ctx)
	if err != nil {
		return err
	}
	// Records are sent while answers are read, because both directions of a stream have a limited buffer.
	sent := make(chan error, 1)
	go func() {
		for _, request := range requests {
			if err := stream.Send(request); err != nil {
				sent <- err
				cancel()
				return
			}
		}
		sent <- stream.CloseSend()
	}()
	for _, row := range rows[1:] {
		answer, err := stream.Recv()
		if err != nil {
			select {
			case reason := <-sent:
				if reason != nil && reason != io.EOF {
					return reason // The stream ended because a record could not be sent.
				}
			default:
			}
			return err
		}
		if failed := answer.GetError(); failed != nil {
			fmt.Println(row[0], failed.GetReason(), failed.GetMessage())
		} else {
			fmt.Println(row[0], answer.GetPrediction())
		}
	}
	return <-sent
}

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1], os.Stdin); err != nil {
		log.Fatal(err)
	}
}
