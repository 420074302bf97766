package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Config says where the ledger is and how hard to try. Zero fields are the defaults.
type Config struct {
	URL    string       // of the ledger, such as https://ledger.example.com
	Token  string       // of the role emitter
	Source string       // the CloudEvents source of the events that name none, such as /crm/reactions; required
	HTTP   *http.Client // a client with a timeout of 60 s

	BatchEvents int           // most events in a request; 500
	BatchBytes  int           // most bytes in a request; 1 MiB
	Linger      time.Duration // how long a batch waits for more; 2 ms
	Requests    int           // requests under way at once; 4
	Patience    time.Duration // how long an event is tried; 5 min
}

// Event is something that happened, to be recorded.
type Event struct {
	ID     string         // the producer's name for it; a repeat is recognised by it. Empty is a new UUID, by which nobody can repeat it
	Source string         // empty is the client's
	Time   time.Time      // by the producer's clock; may be zero
	Data   domain.Payload // domain.ReactionFired, domain.ConsentChanged or another that docs/events.md lists as accepted
}

// Recorded is an event's place in the ledger.
type Recorded struct {
	ID        string `json:"id"`
	Position  int64  `json:"position"`
	Duplicate bool   `json:"duplicate"` // it stood there already
}

// Errors of Send, besides those of the context.
var (
	// ErrClosed is a client that takes nothing more.
	ErrClosed = errors.New("the client is closed")
	// ErrRefused is an event that the ledger will never take as it is; the message says why. See *Refused.
	ErrRefused = errors.New("the ledger refuses the event")
	// ErrToken is a token that the ledger does not take, or not for this. Nothing was recorded; keep the event, mend the token and
	// send it again. See *Refused.
	ErrToken = errors.New("the ledger does not take the token")
	// ErrUnknown is an event of which nobody knows whether it was recorded: patience ran out before an answer came. Send it
	// again, unchanged.
	ErrUnknown = errors.New("no answer: it is not known whether the event was recorded; send it again")
)

// Refused says why an event was refused. It wraps ErrRefused, or ErrToken where the token was.
type Refused struct {
	Status  int    // of HTTP
	Type    string // the problem's URN
	Title   string
	Pointer string // into the event, RFC 6901
	Detail  string
}

func (r *Refused) Error() string {
	text := r.Title
	if r.Pointer != "" || r.Detail != "" {
		text += ": " + r.Pointer + " " + r.Detail
	}
	return fmt.Sprintf("%s (HTTP %d)", text, r.Status)
}

// Unwrap gives ErrRefused or ErrToken.
func (r *Refused) Unwrap() error {
	if r.Status == http.StatusUnauthorized || r.Status == http.StatusForbidden {
		return ErrToken
	}
	return ErrRefused
}

// Client gathers the events of concurrent callers into requests. It is safe for concurrent use.
type Client struct {
	config   Config
	endpoint string
	queue    chan *item
	slots    chan struct{} // one for each request under way
	closed   chan struct{}
	once     sync.Once
	senders  sync.RWMutex   // held for reading while something is put on the queue
	running  sync.WaitGroup // the gatherer, and each request
}

// item is an event on its way.
type item struct {
	text   json.RawMessage // in structured mode
	done   chan struct{}   // closed when what follows is set
	result Recorded
	err    error
}

// New makes a client. Close it, or what it holds is not sent.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("client: %q is no address of a ledger such as https://ledger.example.com", c.URL)
	}
	if c.Source == "" || c.Token == "" {
		return nil, errors.New("client: Source and Token are required")
	}
	if c.HTTP == nil {
		c.HTTP = &http.Client{Timeout: time.Minute}
	}
	defaults(&c.BatchEvents, 500)
	defaults(&c.BatchBytes, 1<<20)
	defaults(&c.Linger, 2*time.Millisecond)
	defaults(&c.Requests, 4)
	defaults(&c.Patience, 5*time.Minute)
	client := &Client{
		config: c, endpoint: u.JoinPath("/v1/events").String(), queue: make(chan *item, 4*c.BatchEvents), slots: make(chan struct{}, c.Requests), closed: make(chan struct{}),
	}
	client.running.Go(client.gather)
	return client, nil
}

func defaults[T int | time.Duration](v *T, otherwise T) {
	if *v <= 0 {
		*v = otherwise
	}
}

// Send records events and waits until each has its place in the ledger, in their order. When it fails, the places of those that
// have one are set (Position > 0), and the error says what is wrong with the first of the others.
//
// It goes on trying while the ledger is busy or away, until ctx ends or Patience runs out. Then events may have been recorded
// all the same: sending them again, with the ids that they had, is safe.
func (c *Client) Send(ctx context.Context, events ...Event) ([]Recorded, error) {
	items := make([]*item, len(events))
	for i, e := range events {
		text, err := c.encode(e)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", i, err)
		}
		items[i] = &item{text: text, done: make(chan struct{})}
	}
	for _, it := range items {
		if err := c.put(ctx, it); err != nil {
			return nil, err
		}
	}
	out := make([]Recorded, len(items))
	var failed error
	for i, it := range items {
		select {
		case <-it.done:
		case <-ctx.Done():
			return out, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
		}
		out[i] = it.result
		if it.err != nil && failed == nil {
			failed = fmt.Errorf("event %d: %w", i, it.err)
		}
	}
	return out, failed
}

func (c *Client) put(ctx context.Context, it *item) error {
	c.senders.RLock()
	defer c.senders.RUnlock()
	select {
	case <-c.closed:
		return ErrClosed
	default:
	}
	select {
	case c.queue <- it:
		return nil
	case <-c.closed:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close sends what is on its way and takes nothing more. It returns when all of it is answered or has been given up.
func (c *Client) Close() {
	c.once.Do(func() {
		close(c.closed)
		c.senders.Lock() // whoever was putting something on the queue has done so, or was told
		close(c.queue)
		c.senders.Unlock()
	})
	c.running.Wait()
}

// cloudEvent is an event in structured mode.
type cloudEvent struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"`
	Source      string          `json:"source"`
	Type        string          `json:"type"`
	Time        string          `json:"time,omitempty"`
	Data        json.RawMessage `json:"data"`
}

func (c *Client) encode(e Event) (json.RawMessage, error) {
	if e.Data == nil {
		return nil, errors.New("it has no data")
	}
	data, err := json.Marshal(e.Data)
	if err != nil {
		return nil, err
	}
	return c.envelope(e.ID, e.Source, domain.TypeOf(e.Data), e.Time, data)
}

func (c *Client) envelope(id, source, eventType string, at time.Time, data json.RawMessage) (json.RawMessage, error) {
	ce := cloudEvent{SpecVersion: "1.0", ID: id, Source: source, Type: eventType, Data: data}
	if ce.ID == "" {
		ce.ID = domain.NewID().String()
	}
	if ce.Source == "" {
		ce.Source = c.config.Source
	}
	if !at.IsZero() {
		ce.Time = at.UTC().Format(time.RFC3339Nano)
	}
	return json.Marshal(ce)
}

// gather makes batches of what waits, until the queue is closed and empty.
func (c *Client) gather() {
	for {
		first, ok := <-c.queue
		if !ok {
			return
		}
		c.slots <- struct{}{} // while all requests are under way, what comes in gathers
		batch, size := []*item{first}, len(first.text)
		linger := time.NewTimer(c.config.Linger)
		open := true
		for open && len(batch) < c.config.BatchEvents && size < c.config.BatchBytes {
			select {
			case it, more := <-c.queue:
				if !more {
					open = false
					continue
				}
				batch, size = append(batch, it), size+len(it.text)+1
			case <-linger.C:
				open = false
			}
		}
		linger.Stop()
		c.running.Go(func() {
			defer func() { <-c.slots }()
			c.deliver(batch)
		})
	}
}

// deliver sends a batch until each of its events has an answer. The ledger takes a request whole or not at all, so what it
// refuses is taken out and the rest is sent again; where it does not say which event it means, each goes alone.
func (c *Client) deliver(batch []*item) {
	for len(batch) > 0 {
		recorded, problem, err := c.try(batch)
		switch {
		case err != nil:
			for _, it := range batch {
				it.end(Recorded{}, err)
			}
			return
		case problem == nil:
			for i, it := range batch {
				it.end(recorded[i], nil)
			}
			return
		}
		bad := problem.byIndex(len(batch))
		if len(bad) == 0 && len(batch) > 1 {
			for _, it := range batch {
				c.deliver([]*item{it})
			}
			return
		}
		var rest []*item
		for i, it := range batch {
			if refused, ok := bad[i]; ok || len(batch) == 1 {
				if refused == nil {
					refused = problem.refused(problemField{})
				}
				it.end(Recorded{}, refused)
				continue
			}
			rest = append(rest, it)
		}
		batch = rest
	}
}

func (it *item) end(r Recorded, err error) {
	it.result, it.err = r, err
	close(it.done)
}

// problem is what the ledger answers when it refuses a request.
type problem struct {
	Type   string         `json:"type"`
	Title  string         `json:"title"`
	Detail string         `json:"detail"`
	Errors []problemField `json:"errors"`
	status int
}

type problemField struct {
	Index   *int   `json:"index"`
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

func (p *problem) refused(f problemField) *Refused {
	if f.Detail == "" {
		f.Detail = p.Detail
	}
	return &Refused{Status: p.status, Type: p.Type, Title: p.Title, Pointer: f.Pointer, Detail: f.Detail}
}

// byIndex says what is wrong with which event of a request of n.
func (p *problem) byIndex(n int) map[int]*Refused {
	out := map[int]*Refused{}
	for _, f := range p.Errors {
		if f.Index != nil && *f.Index >= 0 && *f.Index < n && out[*f.Index] == nil {
			out[*f.Index] = p.refused(f)
		}
	}
	return out
}

// try makes one request, again and again until the ledger has taken or refused it.
func (c *Client) try(batch []*item) ([]Recorded, *problem, error) {
	texts := make([]json.RawMessage, len(batch))
	for i, it := range batch {
		texts[i] = it.text
	}
	body, err := json.Marshal(texts)
	if err != nil {
		return nil, nil, err
	}
	var refused *problem
	operation := func() ([]Recorded, error) {
		recorded, p, err := c.post(body, len(batch))
		refused = p
		return recorded, err
	}
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 100*time.Millisecond, 15*time.Second
	recorded, err := backoff.Retry(context.Background(), operation, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(c.config.Patience))
	if refused != nil {
		return nil, refused, nil
	}
	var permanent *backoff.PermanentError
	if err != nil && !errors.As(err, &permanent) && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrToken) {
		err = fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return recorded, nil, err
}

// answerMost bounds what is read of an answer.
const answerMost = 4 << 20

// post makes a request once. Its error is worth another try unless it is marked as permanent.
func (c *Client) post(body []byte, n int) ([]Recorded, *problem, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, c.endpoint, bytes.NewReader(body))
	if err != nil {
		return nil, nil, backoff.Permanent(err)
	}
	request.Header.Set("Authorization", "Bearer "+c.config.Token)
	request.Header.Set("Content-Type", "application/cloudevents-batch+json")
	response, err := c.config.HTTP.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, answerMost))
	if err != nil {
		return nil, nil, err
	}
	switch {
	case response.StatusCode == http.StatusAccepted:
		var taken struct {
			Accepted []Recorded `json:"accepted"`
		}
		if err := json.Unmarshal(answer, &taken); err != nil || len(taken.Accepted) != n {
			return nil, nil, fmt.Errorf("the answer names %d events of %d (%w)", len(taken.Accepted), n, err)
		}
		return taken.Accepted, nil, nil
	case response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusRequestTimeout || response.StatusCode >= http.StatusInternalServerError:
		err := fmt.Errorf("HTTP %d", response.StatusCode)
		if seconds, parseErr := strconv.Atoi(response.Header.Get("Retry-After")); parseErr == nil {
			return nil, nil, errors.Join(backoff.RetryAfter(seconds), err)
		}
		return nil, nil, err
	}
	p := &problem{status: response.StatusCode, Title: http.StatusText(response.StatusCode)}
	_ = json.Unmarshal(answer, p) // a proxy's answer has its status alone
	if response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden {
		return nil, nil, backoff.Permanent(p.refused(problemField{})) // the token is at fault, not one of the events
	}
	return nil, p, backoff.Permanent(ErrRefused)
}
