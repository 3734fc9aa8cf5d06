// Agents in Go that keep their state in statekeep: each takes up what it knew, works, and saves
// after every step. A save is sent until it is acknowledged, happens once, and is traced.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	statekeep "statekeep.dev/client/go/statekeep/v1"
)

// A call that finds no server waits for one, and is repeated when the server ends under it. A
// server that is too busy says how long to wait, and gRPC obeys.
const serviceConfig = `{"methodConfig": [{
	"name": [{"service": "statekeep.v1.AgentStateService"}], "timeout": "30s", "waitForReady": true,
	"retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s",
		"backoffMultiplier": 3, "retryableStatusCodes": ["UNAVAILABLE"]}
}]}`

// State is what an agent knows. The server does not compare heartbeat_count: a save that brings
// nothing else writes nothing, and is answered with the version that stands.
type State struct {
	Findings   []string `json:"findings"`
	Heartbeats int      `json:"heartbeat_count"`
}

type agent struct {
	client statekeep.AgentStateServiceClient
	run    string
	state  State
}

// live takes up the newest state of the run, if it has one, and goes on from there.
func (a *agent) live(ctx context.Context, steps int, pause time.Duration) error {
	found, err := a.client.LoadAgentState(ctx, &statekeep.LoadAgentStateRequest{RunId: a.run})
	if err == nil {
		err = json.Unmarshal(found.GetState().GetData(), &a.state)
	} else if status.Code(err) == codes.NotFound {
		err = nil
	}
	for step := 0; step < steps && err == nil; step++ {
		a.work(pause)
		err = a.save(ctx)
	}
	return err
}

// work stands for a model and its tools, which find something in every second step.
func (a *agent) work(pause time.Duration) {
	time.Sleep(pause)
	a.state.Heartbeats++
	if a.state.Heartbeats%2 == 1 {
		a.state.Findings = append(a.state.Findings, fmt.Sprint("step ", a.state.Heartbeats))
	}
}

// save returns when the state is durable. All attempts carry the same request id: they are one save.
func (a *agent) save(ctx context.Context) error {
	data, err := json.Marshal(a.state)
	if err != nil {
		return err
	}
	ctx, span := otel.Tracer("go-agent").Start(ctx, "agent.save")
	defer span.End()
	saved, err := a.client.SaveAgentState(ctx, &statekeep.SaveAgentStateRequest{
		RunId:          a.run,
		State:          &statekeep.State{Data: data},
		CheckpointType: statekeep.CheckpointType_CHECKPOINT_TYPE_AUTO,
		RequestId:      rand.Text(),
	})
	if err != nil {
		return err
	}
	fmt.Printf("run=%s step=%d outcome=%s version=%d trace=%s\n", a.run, a.state.Heartbeats,
		saved.GetOutcome(), saved.GetVersion(), span.SpanContext().TraceID())
	return nil
}

// startTracing sends spans to OTEL_EXPORTER_OTLP_ENDPOINT; the other OTEL_* variables hold too.
func startTracing(ctx context.Context) (stop func(), err error) {
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, err
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	return func() { _ = provider.Shutdown(context.WithoutCancel(ctx)) }, nil
}

func run(ctx context.Context, target, name string, agents, steps int, pause time.Duration) error {
	if token := os.Getenv("STATEKEEP_TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" {
		stop, err := startTracing(ctx)
		if err != nil {
			return err
		}
		defer stop()
	}
	connection, err := grpc.NewClient(target, grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler()))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := statekeep.NewAgentStateServiceClient(connection)
	group, ctx := errgroup.WithContext(ctx)
	for number := range agents {
		a := &agent{client: client, run: fmt.Sprintf("%s-%d", name, number+1)}
		group.Go(func() error { return a.live(ctx, steps, pause) })
	}
	return group.Wait()
}

func main() {
	target := flag.String("target", "127.0.0.1:50551", "the address of the server")
	name := flag.String("run", "go-agent", "the runs are NAME-1, NAME-2, ...")
	agents := flag.Int("agents", 8, "how many agents work at once")
	steps := flag.Int("steps", 10, "how many steps each takes")
	pause := flag.Duration("pause", 100*time.Millisecond, "how long a step works")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *target, *name, *agents, *steps, *pause); err != nil {
		log.Fatal(err)
	}
}
