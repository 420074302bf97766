package twig

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestScratchOracle(t *testing.T) {
	file := os.Getenv("ORC")
	if file == "" {
		return
	}
	b, _ := os.ReadFile(file)
	parts := strings.SplitN(string(b), "\n=====\n", 2)
	ctx := "{}"
	body := parts[0]
	if len(parts) == 2 {
		ctx, body = parts[0], parts[1]
	}
	sep := "\n"
	if strings.Contains(body, "\n-----\n") {
		sep = "\n-----\n"
	}
	var in strings.Builder
	var list []string
	for _, s := range strings.Split(strings.TrimRight(body, "\n"), sep) {
		if s == "" {
			continue
		}
		list = append(list, s)
		l, _ := json.Marshal(map[string]any{"id": len(list) - 1, "template": s, "context": json.RawMessage(ctx), "timezone": os.Getenv("ORCTZ"), "mode": os.Getenv("ORCMODE")})
		if os.Getenv("ORCTZ") == "" {
			l = []byte(strings.Replace(string(l), `,"timezone":""`, "", 1))
		}
		in.Write(l)
		in.WriteByte('\n')
	}
	cmd := exec.Command("php", "/tmp/orc/oracle.php")
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(strings.NewReader(string(out)))
	s.Buffer(nil, 1<<24)
	i, bad := 0, 0
	data, err := DecodeContext([]byte(ctx))
	if err != nil {
		t.Fatal(err)
	}
	mode := ModeText
	if os.Getenv("ORCMODE") == "html" {
		mode = ModeHTML
	}
	for s.Scan() {
		var a struct {
			Output *string
			Error  string
		}
		json.Unmarshal(s.Bytes(), &a)
		got, gotErr := "", ""
		tm, err := Compile(list[i], Options{Mode: mode, Timezone: os.Getenv("ORCTZ")})
		if err == nil {
			var r Result
			r, err = tm.Render(context.Background(), data, RenderOptions{Now: time.Now})
			got = r.Output
		}
		if err != nil {
			gotErr = err.Error()
		}
		if (a.Output == nil) != (gotErr != "") || a.Output != nil && *a.Output != strings.ToValidUTF8(got, "\ufffd") {
			bad++
			php := a.Error
			if a.Output != nil {
				php = fmt.Sprintf("%q", *a.Output)
			}
			mine := gotErr
			if gotErr == "" {
				mine = fmt.Sprintf("%q", got)
			}
			fmt.Printf("%s\n   php:  %s\n   mine: %s\n", list[i], php, mine)
		}
		i++
	}
	fmt.Println(i, "cases,", bad, "differ")
}
