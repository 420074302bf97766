package twig

import (
	"context"
	"testing"
)

const loopBody = `{"email": "{{ profile.email }}", "items": [{% for i in items %}{"sku": "{{ i.sku }}", "total": {{ i.price * i.qty }}}{% if not loop.last %},{% endif %}{% endfor %}]}`

const loopContext = `{"profile":{"email":"jane@example.com"},"items":[{"sku":"A1","price":10.5,"qty":2},{"sku":"B2","price":7,"qty":1},{"sku":"C3","price":0.1,"qty":3}]}`

var benchBodies = []struct{ name, body, data string }{
	{"seed", seedBody, seedContext},
	{"loop", loopBody, loopContext},
}

// BenchmarkRender renders compiled templates from decoded contexts, as a delivery does.
func BenchmarkRender(b *testing.B) {
	for _, body := range benchBodies {
		for _, mode := range []struct {
			name string
			mode Mode
		}{{"text", ModeText}, {"json", ModeJSON}} {
			b.Run(body.name+"/"+mode.name, func(b *testing.B) {
				tm, err := Compile(body.body, Options{Mode: mode.mode})
				if err != nil {
					b.Fatal(err)
				}
				c, err := DecodeContext([]byte(body.data))
				if err != nil {
					b.Fatal(err)
				}
				o := RenderOptions{Variables: map[string]any{"klaviyo_public_key": "AbC123"}}
				ctx := context.Background()
				b.ReportAllocs()
				for b.Loop() {
					if _, err := tm.Render(ctx, c, o); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkUnhosted runs the evaluator without gonja's renderer: the difference is what hosting costs.
func BenchmarkUnhosted(b *testing.B) {
	tm, err := Compile(seedBody, Options{Mode: ModeText})
	if err != nil {
		b.Fatal(err)
	}
	c, err := DecodeContext([]byte(seedContext))
	if err != nil {
		b.Fatal(err)
	}
	variables := map[string]any{"klaviyo_public_key": "AbC123"}
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		r, _ := runs.Get().(*run)
		r.ctx, r.root, r.tmpl, r.limits, r.zone, r.variables = ctx, tm, tm, &tm.limits, tm.zone, variables
		r.scope.base = c.root
		r.main.wantPlain = true
		r.out = &r.main
		if err := r.execute(tm); err != nil {
			b.Fatal(err)
		}
		_ = string(r.main.plain)
		r.reset()
		runs.Put(r)
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, body := range benchBodies {
		b.Run(body.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Compile(body.body, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeContext(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeContext([]byte(seedContext)); err != nil {
			b.Fatal(err)
		}
	}
}
