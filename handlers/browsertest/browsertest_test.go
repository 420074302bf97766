package browsertest

import (
	"bytes"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// site serves one page with the header, and what it asks for.
func site(t *testing.T, html string, header http.Header) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, values := range header {
			w.Header()[name] = values
		}
		switch r.URL.Path {
		case "/":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = w.Write([]byte(html))
		case "/gone":
			w.WriteHeader(http.StatusGone)
			_, _ = w.Write([]byte("<!doctype html><html lang=en><title>gone</title><main><h1>Gone</h1></main>"))
		case "/style.css":
			w.Header().Set("Content-Type", "text/css")
			_, _ = w.Write(bytes.Repeat([]byte("/* 16 bytes */\n\n"), 1024))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

const head = `<!doctype html><html lang="en"><title>A page</title>`

func TestPageWorks(t *testing.T) {
	t.Parallel()
	url := site(t, head+`<link rel="stylesheet" href="/style.css">
		<main><h1>Hello</h1><label>Name <input id="name"></label><button id="go">Go</button><p id="said"></p></main>
		<script>document.getElementById("go").onclick = () => setTimeout(() => {
			document.getElementById("said").textContent = "Hello " + document.getElementById("name").value }, 20)</script>`, nil)
	p := Open(t, url, View{})
	p.Type("#name", "Ada")
	p.Click("#go")
	p.WaitUntil(`document.getElementById("said").textContent !== ""`)
	if got := p.Text("#said"); got != "Hello Ada" {
		t.Errorf("the page says %q, want Hello Ada", got)
	}
	p.CheckStatus(http.StatusOK)
	if got := p.Totals(); got.Requests < 2 || got.Bytes < 16<<10 {
		t.Errorf("totals = %+v, want the page and a style sheet of 16 KiB", got)
	}
	p.CheckAccessible()
	picture, err := os.ReadFile(p.Screenshot("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if shot, err := png.Decode(bytes.NewReader(picture)); err != nil || shot.Bounds().Dx() != 1280 {
		t.Errorf("the screenshot is %d wide, error %v, want 1280", shot.Bounds().Dx(), err)
	}
	p.Goto(url + "/gone")
	p.CheckStatus(http.StatusGone)
}

func TestViewsAreEmulated(t *testing.T) {
	t.Parallel()
	url := site(t, head+`<main><h1>Hello</h1><noscript><p id="none">No scripts</p></noscript></main>
		<script>document.title = "scripted"</script>`, nil)
	for name, tc := range map[string]struct {
		view View
		ask  string
		want bool
	}{
		"dark":          {View{Dark: true}, `matchMedia("(prefers-color-scheme: dark)").matches`, true},
		"light":         {View{}, `matchMedia("(prefers-color-scheme: dark)").matches`, false},
		"still":         {View{ReducedMotion: true}, `matchMedia("(prefers-reduced-motion: reduce)").matches`, true},
		"narrow":        {View{Width: 320}, `innerWidth === 320`, true},
		"scripts":       {View{}, `document.title === "scripted"`, true},
		"no JavaScript": {View{NoJavaScript: true}, `document.title !== "scripted" && !!document.getElementById("none")`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got bool
			if Open(t, url, tc.view).Eval(tc.ask, &got); got != tc.want {
				t.Errorf("%s = %v, want %v", tc.ask, got, tc.want)
			}
		})
	}
}

func TestProblemsAreSeen(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		html   string
		header http.Header
		want   string // in one of the problems
	}{
		"an exception":             {`<script>throw new Error("broken on purpose")</script>`, nil, "broken on purpose"},
		"an error on the console":  {`<script>console.error("not well", 7)</script>`, nil, "not well"},
		"a missing file":           {`<link rel="stylesheet" href="/missing.css">`, nil, "/missing.css"},
		"an inline script refused": {`<script>1</script>`, http.Header{"Content-Security-Policy": {"default-src 'self'"}}, "script-src"},
		"a stranger's image":       {`<img alt="" src="http://192.0.2.1/x.png">`, http.Header{"Content-Security-Policy": {"default-src 'self'"}}, "img-src"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := Open(t, site(t, head+tc.html, tc.header), View{})
			p.Run() // what came before is told
			if got := strings.Join(p.Problems(), "\n"); !strings.Contains(got, tc.want) {
				t.Errorf("problems = %q, want one about %q", got, tc.want)
			}
		})
	}
}

func TestAxeFindsViolations(t *testing.T) {
	t.Parallel()
	p := Open(t, site(t, head+`<main><h1>Hello</h1><img src="data:," width="1" height="1"><input>
		<p style="color:#aaa;background:#fff">hard to read</p></main>`, nil), View{NoJavaScript: true})
	found := map[string]bool{}
	for _, v := range p.Axe() {
		found[v.ID] = true
	}
	for _, rule := range []string{"image-alt", "label", "color-contrast"} {
		if !found[rule] {
			t.Errorf("axe found %v, want also %s", found, rule)
		}
	}
	if one := p.Axe("image-alt"); len(one) != 1 || one[0].ID != "image-alt" {
		t.Errorf("by one rule axe finds %+v", one)
	}
}
