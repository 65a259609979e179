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

// Returns a request with the columns of a row after its id.
func flower(row []string) (*modelspb.IrisInput, error) {
	values := make([]float64, 4)
	for column := range values {
		value, err := strconv.ParseFloat(row[column+1], 64)
		if err != nil {
			return nil, err
		}
		values[column] = value
	}
	return &modelspb.IrisInput{
		SepalLengthCm: &values[0], SepalWidthCm: &values[1], PetalLengthCm: &values[2], PetalWidthCm: &values[3],
	}, nil
}

func run(address string, input io.Reader) error {
	rows, err := csv.NewReader(input).ReadAll()
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return errors.New("the input is empty: it needs a header")
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
		for _, row := range rows[1:] {
			request, err := flower(row)
			if err == nil {
				err = stream.Send(request)
			}
			if err != nil {
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
	if err := run(os.Args[1], os.Stdin); err != nil {
		log.Fatal(err)
	}
}
