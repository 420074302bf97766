package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

const (
	// streamRoute is the one route whose answers last.
	streamRoute = "GET /v1/stream"

	// streamsMax bounds how many streams a process answers at a time.
	streamsMax = 256

	// streamPoll is how long a stream waits for what other processes append; what this one does is heard at once.
	streamPoll = 250 * time.Millisecond

	// movesPoll is how often a page is told that the ledger has moved.
	movesPoll = time.Second

	// streamBeat is how often a quiet stream shows that it is alive, and its token is looked up again.
	streamBeat = 15 * time.Second

	// streamPatience is how long a reader may take to take what it is sent.
	streamPatience = 30 * time.Second

	// streamBatch is how many events are read at a time.
	streamBatch = 200
)

func (a *api) streamRoutes() {
	a.streams = make(chan struct{}, streamsMax)
	a.handle("stream", "/v1/stream", http.HandlerFunc(a.stream))
	query := func(name, doc string) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	responses := map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}}}}
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		responses[strconv.Itoa(status)] = &huma.Response{
			Description: http.StatusText(status),
			Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}}},
		}
	}
	a.huma.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "stream", Method: http.MethodGet, Path: "/v1/stream", Tags: []string{"Events"},
		Summary: "Follow the ledger", Security: []map[string][]string{{"bearer": {}}},
		Description: "Server-sent events: each event of the ledger as it is recorded, in order, none left out and none twice. Its id is the position, its event the type, its data what " +
			"GET /v1/events shows, sealed parts hidden. Without Last-Event-ID or after it begins with what comes next; a reader that was cut off sends the last id it saw. " +
			"Filters combine. A comment every 15 seconds shows that the stream is alive.\n\nRoles: " + access["stream"].names() + ".",
		Parameters: []*huma.Param{
			query("type", "One type, or several with commas."), query("stream", "Such as target-HANDLE, profile-ID or delivery-ID."), query("profile", "The person."),
			query("target", "The target's handle."), query("delivery", "The delivery."), query("after", "Begin after this position."),
			{Name: "Last-Event-ID", In: "header", Description: "The position that was seen last.", Schema: &huma.Schema{Type: huma.TypeString}},
		},
		Responses: responses,
	})
}

// drainingKey is where a request's context says when the server is asked to stop; see Serve.
type drainingKey struct{}

// stream sends events as they are recorded, until the reader leaves, its token is withdrawn or the server stops.
func (a *api) stream(w http.ResponseWriter, r *http.Request) {
	filter, err := streamFilter(r.URL.Query())
	if err == nil {
		err = a.streaming(w, r, streaming{
			wake: a.Ledger.Appended, poll: streamPoll,
			admit: func(ctx context.Context) error {
				_, err := a.doorman.admit(ctx, r.Header.Get("Authorization"), r.RemoteAddr, access["stream"])
				return err
			},
			step: func(ctx context.Context, s *sender, position int64) (int64, error) {
				return a.follow(ctx, s, filter, position)
			},
		})
	}
	if err != nil {
		a.refuse(w, r.Context(), err)
	}
}

// Moves sends a word when the ledger has moved, at most one a second and without saying by what, to somebody whom admit lets
// in, now and then asked again. An error is a [*Problem], and nothing was sent then.
func (s *Service) Moves(w http.ResponseWriter, r *http.Request, admit func(context.Context) error) error {
	err := s.a.streaming(w, r, streaming{
		wake: func() <-chan struct{} { return nil }, poll: movesPoll, admit: admit,
		step: func(ctx context.Context, to *sender, position int64) (int64, error) {
			head, err := s.a.Ledger.Head(ctx)
			if err != nil || head == position {
				return position, err
			}
			return head, to.send(fmt.Sprintf("id: %d\nevent: moved\ndata: %[1]d\n\n", head))
		},
	})
	if err != nil {
		return s.a.problem(r.Context(), err)
	}
	return nil
}

// streaming is what a stream says, and to whom.
type streaming struct {
	wake  func() <-chan struct{}                                                     // taken before a step; closed when another may have something to say
	poll  time.Duration                                                              // a step is made as often in any case
	admit func(context.Context) error                                                // whether the reader may still read
	step  func(ctx context.Context, s *sender, position int64) (to int64, err error) // says what was recorded since a position
}

// streaming answers with server-sent events until the reader leaves, may not read any more, or the server stops. An error comes
// before anything was sent.
func (a *api) streaming(w http.ResponseWriter, r *http.Request, st streaming) error {
	ctx := r.Context()
	select {
	case a.streams <- struct{}{}:
		defer func() { <-a.streams }()
	default:
		return fmt.Errorf("%w: %d streams are open already", schema.ErrBusy, streamsMax)
	}
	head, err := a.Ledger.Head(ctx)
	if err != nil {
		return err
	}
	position, err := begin(r, head)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no") // proxies that would wait for more
	s := &sender{ResponseController: http.NewResponseController(w), w: w}
	if s.send("retry: 2000\n\n") != nil {
		return nil
	}
	draining, _ := ctx.Value(drainingKey{}).(<-chan struct{})
	poll, beat := time.NewTicker(st.poll), time.NewTicker(streamBeat)
	defer poll.Stop()
	defer beat.Stop()
	for {
		wake := st.wake() // before looking, so that nothing falls between
		if position, err = st.step(ctx, s, position); err != nil {
			return nil // the reader comes again, with the last position it saw
		}
		select {
		case <-ctx.Done():
			return nil
		case <-draining:
			return nil
		case <-wake:
		case <-poll.C:
		case <-beat.C:
			if st.admit(ctx) != nil || s.send(": still here\n\n") != nil {
				return nil
			}
		}
	}
}

// follow sends what has been recorded since a position, and gives the position that it has come to.
func (a *api) follow(ctx context.Context, s *sender, filter schema.Filter, position int64) (int64, error) {
	head, err := a.Ledger.Head(ctx)
	if err != nil || head == position {
		return position, err
	}
	filter.UpTo, filter.Limit = head, streamBatch
	for {
		filter.After = position
		var batch []domain.Recorded
		for e, err := range schema.Events(ctx, a.DB, filter) {
			if err != nil {
				return position, err
			}
			batch = append(batch, e)
		}
		shown, err := a.show(ctx, batch)
		if err != nil {
			return position, err
		}
		for _, e := range shown {
			data, err := json.Marshal(e)
			if err != nil {
				return position, err
			}
			if err := s.send(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", e.Position, e.Type, data)); err != nil {
				return position, err
			}
			position = e.Position
		}
		if len(batch) < streamBatch {
			return head, nil
		}
	}
}

// sender writes to a reader that may be slow, but not for ever.
type sender struct {
	*http.ResponseController
	w http.ResponseWriter
}

func (s *sender) send(text string) error {
	if err := s.SetWriteDeadline(time.Now().Add(streamPatience)); err != nil { //nolint:forbidigo // the connection's own clock
		return err
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.Flush()
}

// streamFilter reads a stream's filters. A misspelt one would select everything.
func streamFilter(query url.Values) (schema.Filter, error) {
	var f schema.Filter
	known := []string{"type", "stream", "profile", "target", "delivery", "after"}
	for name := range query {
		if !slices.Contains(known, name) {
			return f, badParameter("query."+name, "is none of %s", strings.Join(known, ", "))
		}
	}
	if types := query.Get("type"); types != "" {
		f.Types = strings.Split(types, ",")
	}
	for _, t := range f.Types {
		if _, err := domain.Declared(t); err != nil {
			return f, badParameter("query.type", "names an event type that there is not")
		}
	}
	f.Stream, f.Target = query.Get("stream"), query.Get("target")
	var err error
	if f.Subject, err = parseUUID("query.profile", query.Get("profile")); err != nil {
		return f, err
	}
	f.DeliveryID, err = parseUUID("query.delivery", query.Get("delivery"))
	return f, err
}

// begin is the position that a stream begins after: what the reader saw last, what it asks for, or the head.
func begin(r *http.Request, head int64) (int64, error) {
	for where, text := range map[string]string{"header.Last-Event-ID": r.Header.Get("Last-Event-ID"), "query.after": r.URL.Query().Get("after")} {
		if text == "" || where == "query.after" && r.Header.Get("Last-Event-ID") != "" {
			continue
		}
		position, err := strconv.ParseInt(text, 10, 64)
		if err != nil || position < 0 {
			return 0, badParameter(where, "is no position")
		}
		return min(position, head), nil
	}
	return head, nil
}
