package browsertest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// EnvArtefacts names the environment variable with the directory that screenshots go to. Without it they go to
// dispatch-ledger-artefacts and the user's number in the system's directory for temporary files, which others write in too.
const EnvArtefacts = "DISPATCH_LEDGER_TEST_ARTEFACTS"

// patience is how long one action may take before the test fails: much longer than any does, because a browser that
// starts on a busy machine is slow.
const patience = time.Minute

// View is how a person looks at a page. The zero View is a window of 1280 by 900, light, in English, with JavaScript.
type View struct {
	Width, Height int64             // of the viewport, in CSS pixels
	Dark          bool              // the system prefers dark colours
	Language      string            // Accept-Language, such as "de-AT, de;q=0.8"
	NoJavaScript  bool              // scripts do not run
	ReducedMotion bool              // the system prefers less movement
	Header        map[string]string // sent with every request, such as Authorization
}

// Page is one tab. Its methods fail the test when they do not succeed in time. It is used by one goroutine.
type Page struct {
	t    testing.TB
	ctx  context.Context
	view View
	seen traffic
}

// Open opens a tab at url, and closes it when the test ends.
func Open(t testing.TB, url string, view View) *Page {
	t.Helper()
	base, err := shared()
	if err != nil {
		t.Fatalf("a browser for tests: %v", err)
	}
	ctx, cancel := chromedp.NewContext(base, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if view.Width == 0 {
		view.Width = 1280
	}
	if view.Height == 0 {
		view.Height = 900
	}
	if view.Language == "" {
		view.Language = "en"
	}
	p := &Page{t: t, ctx: ctx, view: view}
	// The first run makes the tab, and ends it when its context does: it takes none with a deadline.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("open a tab: %v", err)
	}
	if err := p.seen.watch(ctx); err != nil {
		t.Fatalf("listen to a tab: %v", err)
	}
	p.Run(p.dress()...)
	p.Goto(url)
	t.Cleanup(func() { // before the tab closes
		for _, problem := range p.Problems() {
			t.Errorf("%s: the page complains: %s", p.view.name(), problem)
		}
	})
	return p
}

func (v View) name() string {
	if v.Dark {
		return "dark"
	}
	return "light"
}

// dress makes the tab look at pages as the view says.
func (p *Page) dress() []Action {
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: p.view.name()}}
	if p.view.ReducedMotion {
		features = append(features, &emulation.MediaFeature{Name: "prefers-reduced-motion", Value: "reduce"})
	}
	header := network.Headers{"Accept-Language": p.view.Language}
	for name, value := range p.view.Header {
		header[name] = value
	}
	return append(p.seen.enable(),
		command(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: p.view.Width, Height: p.view.Height, DeviceScaleFactor: 1}),
		command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}),
		command(network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: header}),
		p.scripts(!p.view.NoJavaScript),
	)
}

// scripts lets the page's scripts run, or not, from the next page on.
func (p *Page) scripts(run bool) Action {
	return command(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !run})
}

// Action is something that chromedp does in the tab.
type Action = chromedp.Action[chromedp.Void]

// command makes an action of a command of the DevTools protocol whose answer nobody needs.
func command[P, R any](c cdp.Command[P, R], params P) Action {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, c, params)
		return err
	})
}

// run runs one action and gives its value.
func run[T any](p *Page, action chromedp.Action[T]) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		p.t.Fatalf("in the browser: %v", err)
	}
	return value
}

// Run runs actions of chromedp, for what has no method here.
func (p *Page) Run(actions ...Action) {
	p.t.Helper()
	run(p, chromedp.Steps(actions...))
}

// Goto follows url and waits until the page has loaded.
func (p *Page) Goto(url string) {
	p.t.Helper()
	p.Run(chromedp.Navigate(url))
}

// Reload loads the page again.
func (p *Page) Reload() {
	p.t.Helper()
	p.Run(chromedp.Reload())
}

// Click clicks on the first element that matches the CSS selector, once it is there to be seen.
func (p *Page) Click(selector string) {
	p.t.Helper()
	p.Run(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// Follow clicks and waits until the page that this leads to has loaded.
func (p *Page) Follow(selector string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible)); err != nil {
		p.t.Fatalf("follow %s: %v", selector, err)
	}
}

// FollowByKey presses keys where the focus is and waits until the page that this leads to has loaded.
func (p *Page) FollowByKey(keys string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, chromedp.KeyEvent(keys)); err != nil {
		p.t.Fatalf("follow by key: %v", err)
	}
}

// Type types text into the first element that matches the selector, key by key.
func (p *Page) Type(selector, text string) {
	p.t.Helper()
	p.Run(chromedp.SendKeys(chromedp.CSS(selector), text, chromedp.NodeVisible))
}

// Press presses keys where the focus is, such as kb.Tab of chromedp/kb.
func (p *Page) Press(keys string) {
	p.t.Helper()
	p.Run(chromedp.KeyEvent(keys))
}

// WaitFor waits until an element that matches the selector can be seen.
func (p *Page) WaitFor(selector string) {
	p.t.Helper()
	p.Run(chromedp.WaitVisible(chromedp.CSS(selector)))
}

// WaitUntil waits until a JavaScript expression is true.
func (p *Page) WaitUntil(expression string) {
	p.t.Helper()
	p.Run(chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingTimeout(patience), chromedp.WithPollingInterval(50*time.Millisecond)))
}

// Text is what a person reads in the first element that matches the selector.
func (p *Page) Text(selector string) string {
	p.t.Helper()
	return strings.TrimSpace(run(p, chromedp.Text(chromedp.CSS(selector), chromedp.NodeReady)))
}

// Eval evaluates a JavaScript expression, awaits it if it is a promise, and stores its value in out, which is a pointer.
func (p *Page) Eval(expression string, out any) {
	p.t.Helper()
	raw := run(p, chromedp.Evaluate[[]byte](expression, chromedp.EvalAsValue, chromedp.EvalAwaitPromise))
	if err := json.Unmarshal(raw, out); err != nil {
		p.t.Fatalf("%s is %s: %v", expression, raw, err)
	}
}

// URL is the page's address.
func (p *Page) URL() string {
	p.t.Helper()
	return run(p, chromedp.Location())
}

// Screenshot writes the whole page as a PNG file, and gives its path: the test's name and the one given.
func (p *Page) Screenshot(name string) string {
	p.t.Helper()
	picture := run(p, chromedp.FullScreenshot(100))
	dir := os.Getenv(EnvArtefacts)
	if dir == "" {
		dir = filepath.Join(os.TempDir(), fmt.Sprintf("dispatch-ledger-artefacts-%d", os.Getuid()))
	}
	path := filepath.Join(dir, fileName.ReplaceAllString(p.t.Name()+"-"+name, "-")+".png")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, picture, 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.t.Logf("screenshot: %s", path)
	return path
}

var fileName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)
