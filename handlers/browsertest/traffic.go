package browsertest

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Request is one request that a page made.
type Request struct {
	Method string
	URL    string
	Type   string // Document, Stylesheet, Script, Fetch, EventSource, …
	Status int64  // 0 until the answer begins
	Bytes  int64  // of the answer on the wire, headers included; 0 until it is complete
}

// Totals are what a page cost.
type Totals struct {
	Requests int
	Bytes    int64 // on the wire
}

// traffic is what a tab did and complained of. Chromium tells it from a goroutine of its own.
type traffic struct {
	mu       sync.Mutex
	requests []*Request                     // guarded by mu, in the order they were made
	open     map[network.RequestID]*Request // guarded by mu
	problems []string                       // guarded by mu
}

func (s *traffic) enable() []Action {
	return []Action{
		command(network.Enable, network.EnableParams{}), command(log.Enable, cdp.Empty{}),
		command(runtime.Enable, cdp.Empty{}), command(audits.Enable, cdp.Empty{}),
	}
}

// watch listens to the tab for as long as it is open.
func (s *traffic) watch(ctx context.Context) error {
	s.open = map[network.RequestID]*Request{}
	return chromedp.Listen(ctx, func(event any) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			if isFavicon(e.Request.URL) {
				return // the browser's own wish, made at a time of its own
			}
			r := &Request{Method: e.Request.Method, URL: e.Request.URL, Type: string(e.Type)}
			s.open[e.RequestID] = r // a redirection has its predecessor's id
			s.requests = append(s.requests, r)
		case *network.EventResponseReceived:
			if r := s.open[e.RequestID]; r != nil {
				r.Status = e.Response.Status
			}
		case *network.EventLoadingFinished:
			if r := s.open[e.RequestID]; r != nil {
				r.Bytes = int64(e.EncodedDataLength)
			}
		case *runtime.EventExceptionThrown:
			s.problems = append(s.problems, "exception: "+thrown(e.ExceptionDetails))
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeAssert {
				s.problems = append(s.problems, "console: "+spoken(e.Args))
			}
		case *log.EventEntryAdded:
			// A page that is refused is a page too: its status is for the test to judge.
			if e.Entry.Level == log.EntryLevelError && !isFavicon(e.Entry.URL) && (e.Entry.Source != log.EntrySourceNetwork || !s.isDocument(e.Entry.URL)) {
				s.problems = append(s.problems, fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
			}
		case *audits.EventIssueAdded:
			if csp := e.Issue.Details.ContentSecurityPolicyIssueDetails; csp != nil && !csp.IsReportOnly {
				s.problems = append(s.problems, fmt.Sprintf("content security policy: %s forbids %s", csp.ViolatedDirective, csp.BlockedURL))
			}
		}
	})
}

func isFavicon(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Path == "/favicon.ico"
}

func (s *traffic) isDocument(url string) bool {
	for _, r := range s.requests {
		if r.URL == url && r.Type == string(network.ResourceTypeDocument) {
			return true
		}
	}
	return false
}

func thrown(details *runtime.ExceptionDetails) string {
	if details.Exception != nil {
		return spoken([]*runtime.RemoteObject{details.Exception})
	}
	return details.Text
}

func spoken(args []*runtime.RemoteObject) (text string) {
	for _, arg := range args {
		if arg.Description != "" {
			text += arg.Description + " "
		} else {
			text += string(arg.Value) + " "
		}
	}
	return text
}

// Problems takes what the page has complained of since it was opened or last asked: errors on the console, exceptions,
// resources that failed, violations of its content security policy. What nobody takes fails the test at its end.
func (p *Page) Problems() []string {
	p.seen.mu.Lock()
	defer p.seen.mu.Unlock()
	taken := p.seen.problems
	p.seen.problems = nil
	return taken
}

// Requests lists what the page has asked for since it was opened, in order.
func (p *Page) Requests() []Request {
	p.seen.mu.Lock()
	defer p.seen.mu.Unlock()
	all := make([]Request, len(p.seen.requests))
	for i, r := range p.seen.requests {
		all[i] = *r
	}
	return all
}

// Totals counts what the page has cost since it was opened.
func (p *Page) Totals() (t Totals) {
	for _, r := range p.Requests() {
		t.Requests++
		t.Bytes += r.Bytes
	}
	return t
}

// Status is how the server answered the last page that was asked for, 0 when it did not.
func (p *Page) Status() int {
	status := 0
	for _, r := range p.Requests() {
		if r.Type == string(network.ResourceTypeDocument) {
			status = int(r.Status)
		}
	}
	return status
}

// CheckStatus fails the test unless the page was answered with the status.
func (p *Page) CheckStatus(want int) {
	p.t.Helper()
	if got := p.Status(); got != want {
		p.t.Errorf("%s was answered with %d %s, want %d", p.URL(), got, http.StatusText(got), want)
	}
}
