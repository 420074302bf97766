package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/mod/semver"
)

// Errors of the broker.
var (
	// ErrUnreachable says that no server of the cluster answers. It is of the moment.
	ErrUnreachable = errors.New("the broker is not reachable")
	// ErrConfig is a mistake in how the broker is set up, and says what to change.
	ErrConfig = errors.New("broker")
)

// Config says where the broker is.
type Config struct {
	URL         string // nats://host:4222, several separated by commas; tls:// asks for TLS
	Ledger      string // name of the ledger: streams and subjects begin with it
	Credentials string // a NATS .creds file; empty: none
	CA          string // a PEM file with the CAs that the servers' certificates are checked by; empty: the system's
	Certificate string // PEM file of a client certificate, with Key; empty: none
	Key         string
	Replicas    int   // of each stream, 1, 3 or 5; 3 by default
	MaxBytes    int64 // of firings that wait to be recorded; past it publishers are refused. 1 GiB by default
	Log         *slog.Logger
}

// Broker is a connection to JetStream with the names of one ledger.
type Broker struct {
	Config
	nc     *nats.Conn
	js     jetstream.JetStream
	closed chan struct{}
	names
}

// names are the subjects and streams of a ledger.
type names struct{ prefix, stream string }

func (n names) events(emitter string) string { return n.prefix + "events." + emitter }
func (n names) rejected() string             { return n.prefix + "rejected" }
func (n names) jobs(shard int) string        { return fmt.Sprintf("%sjobs.%d", n.prefix, shard) }
func (n names) start(batch string) string    { return n.prefix + "starts." + batch }
func (n names) results() string              { return n.prefix + "results" }
func (n names) fence() string                { return n.prefix + "fences.fence" }
func (n names) tide() string                 { return n.prefix + "fences.tide" }
func (n names) mark() string                 { return n.prefix + "fences.mark" }
func (n names) join() string                 { return n.prefix + "join" }

// The streams of a ledger.
const (
	streamEvents   = "events"
	streamRejected = "rejected"
	streamJobs     = "jobs"
	streamStarts   = "starts"
	streamResults  = "results"
	streamFences   = "fences"
)

func (n names) of(stream string) string { return n.stream + stream }

// Ages in the streams. A job is worth nothing once its lease has run out; starts and fences outlive every job.
const (
	jobAge     = 5 * time.Minute
	startAge   = 15 * time.Minute
	fenceAge   = 15 * time.Minute
	rejectAge  = 30 * 24 * time.Hour
	duplicates = 10 * time.Minute // how long a message's id is remembered
)

// oldestServer is the first version of NATS whose consumers may name several subjects, as a dispatcher's of fences and tides does.
const oldestServer = "v2.10.0"

const defaultMaxBytes = 1 << 30

var ledgerName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// Connect connects to the broker. Lost connections are made again for ever; meanwhile publishing fails at once instead of
// piling up in memory, so that whoever publishes knows.
func Connect(ctx context.Context, c Config) (*Broker, error) {
	if !ledgerName.MatchString(c.Ledger) {
		return nil, fmt.Errorf("%w: the ledger's name %q cannot be part of a subject: letters, digits, _ and - only", ErrConfig, c.Ledger)
	}
	if c.Replicas == 0 {
		c.Replicas = 3
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	b := &Broker{Config: c, closed: make(chan struct{}), names: names{prefix: "dispatch-ledger." + c.Ledger + ".", stream: "DL_" + c.Ledger + "_"}}
	options := []nats.Option{
		nats.Name("dispatch-ledger"), nats.MaxReconnects(-1), nats.ReconnectWait(200 * time.Millisecond), nats.ReconnectBufSize(-1),
		nats.Timeout(5 * time.Second), nats.PingInterval(2 * time.Second), nats.MaxPingsOutstanding(2),
		nats.ClosedHandler(func(*nats.Conn) { close(b.closed) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				c.Log.WarnContext(ctx, "connection to the broker lost; connecting again", slog.Any("error", err))
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { c.Log.InfoContext(ctx, "connected to the broker again") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			c.Log.DebugContext(ctx, "broker", slog.Any("error", err))
		}),
	}
	if c.Credentials != "" {
		options = append(options, nats.UserCredentials(c.Credentials))
	}
	if c.CA != "" {
		options = append(options, nats.RootCAs(c.CA))
	}
	if c.Certificate != "" {
		options = append(options, nats.ClientCert(c.Certificate, c.Key))
	}
	var err error
	if b.nc, err = nats.Connect(c.URL, options...); err != nil {
		return nil, fmt.Errorf("%w at %s: %w", ErrUnreachable, redacted(c.URL), err)
	}
	if v := b.nc.ConnectedServerVersion(); semver.Compare("v"+v, oldestServer) < 0 {
		b.nc.Close()
		return nil, fmt.Errorf("%w: the server at %s is NATS %s; it takes 2.10 or newer, which knows readers of several subjects", ErrConfig, redacted(c.URL), v)
	}
	if b.js, err = jetstream.New(b.nc, jetstream.WithDefaultTimeout(5*time.Second)); err != nil {
		b.nc.Close()
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return b, nil
}

// redacted is a URL list without what stands before the @.
func redacted(urls string) string {
	parts := strings.Split(urls, ",")
	for i, u := range parts {
		if scheme, rest, ok := strings.Cut(u, "://"); ok {
			if _, host, ok := strings.Cut(rest, "@"); ok {
				parts[i] = scheme + "://" + host
			}
		}
	}
	return strings.Join(parts, ",")
}

// Provision makes the ledger's streams, or brings them to what this version of the program wants. A writer does so at its
// start; it may be repeated.
func (b *Broker) Provision(ctx context.Context) error {
	for _, s := range []jetstream.StreamConfig{
		{
			Name: b.of(streamEvents), Subjects: []string{b.events(">")}, Description: "CloudEvents on their way into the ledger",
			Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, MaxBytes: b.MaxBytes, Duplicates: duplicates,
		},
		{
			Name: b.of(streamRejected), Subjects: []string{b.rejected()}, Description: "messages that are no events, with the reason",
			MaxAge: rejectAge, MaxBytes: b.MaxBytes / 4,
		},
		{
			Name: b.of(streamJobs), Subjects: []string{b.prefix + "jobs.*"}, Description: "claimed deliveries on their way to a dispatcher, sealed",
			Retention: jetstream.WorkQueuePolicy, MaxAge: jobAge, Duplicates: jobAge, MaxBytes: b.MaxBytes,
		},
		{
			Name: b.of(streamStarts), Subjects: []string{b.start("*")}, Description: "who took which jobs",
			MaxMsgsPerSubject: 1, MaxAge: startAge, MaxBytes: b.MaxBytes / 4,
		},
		{
			Name: b.of(streamResults), Subjects: []string{b.results()}, Description: "what came of jobs, on its way into the ledger, sealed",
			Retention: jetstream.WorkQueuePolicy, Duplicates: duplicates, Discard: jetstream.DiscardNew, MaxBytes: b.MaxBytes,
		},
		{
			Name: b.of(streamFences), Subjects: []string{b.prefix + "fences.*"}, Description: "what was withdrawn, ahead of the queue",
			MaxAge: fenceAge, MaxBytes: b.MaxBytes / 4,
		},
	} {
		s.Storage, s.Replicas, s.AllowDirect = jetstream.FileStorage, b.Replicas, false
		if _, err := b.js.CreateOrUpdateStream(ctx, s); err != nil {
			return b.provisioning(s.Name, err)
		}
	}
	return nil
}

func (b *Broker) provisioning(stream string, err error) error {
	var refused *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("%w: JetStream is not enabled at %s; start its servers with --jetstream", ErrConfig, redacted(b.URL))
	case errors.As(err, &refused):
		return fmt.Errorf("%w: stream %s with %d replicas: %w; a cluster of fewer servers takes --broker-replicas 1", ErrConfig, stream, b.Replicas, err)
	}
	return fmt.Errorf("%w: stream %s: %w", ErrUnreachable, stream, err)
}

// Publisher is Watermill's own, on this connection: a topic is a subject, a message's UUID makes a repetition one.
func (b *Broker) Publisher() (message.Publisher, error) {
	p, err := wnats.NewPublisherWithNatsConn(b.nc, wnats.PublisherPublishConfig{
		Marshaler: &wnats.NATSMarshaler{}, SubjectCalculator: wnats.DefaultSubjectCalculator,
		JetStream: wnats.JetStreamConfig{
			TrackMsgId:     true,
			PublishOptions: []nats.PubOpt{nats.RetryAttempts(3), nats.RetryWait(200 * time.Millisecond), nats.AckWait(2 * time.Second)},
		},
	}, b.logger("publisher"))
	if err != nil {
		return nil, fmt.Errorf("%w: publisher: %w", ErrConfig, err)
	}
	return p, nil
}

// Close lets what is being handled end, then closes the connection. Subscribers are closed after it: Watermill's closes the
// channel that it sends into, so nothing may arrive any more by then.
func (b *Broker) Close(ctx context.Context) error {
	if err := b.nc.Drain(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		b.nc.Close()
	}
	select {
	case <-b.closed:
	case <-ctx.Done():
		b.nc.Close()
		<-b.closed
	}
	return nil
}

// logger puts Watermill's levels where they belong here.
func (b *Broker) logger(part string) watermill.LoggerAdapter {
	return watermill.NewSlogLoggerWithLevelMapping(b.Log.With(slog.String("part", "broker "+part)),
		map[slog.Level]slog.Level{slog.LevelError: slog.LevelWarn, slog.LevelInfo: slog.LevelDebug - 4})
}
