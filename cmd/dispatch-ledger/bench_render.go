package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain/twig"
)

// seedBody and seedContext are the reward notice that the product's first users had.
const (
	seedBody = `{ "token": "{{ klaviyo_public_key }}", "event": "Reward Earned",
  "customer_properties": { "$email": "{{ profile.email }}", "$first_name": "{{ profile.first_name }}", "$last_name": "{{ profile.last_name }}" },
  "properties": { "reward_amount": {{ reward.amount }}, "reward_balance": {{ profile.reward_balance }}, "reward_expires_at": "{{ reward.expires_at }}" } }`
	seedContext = `{"klaviyo_public_key":"ABC123","profile":{"email":"jane@example.com","first_name":"Jane","last_name":"Smith","reward_balance":25.0},"reward":{"amount":10,"expires_at":"2026-12-31"}}`
)

// phpTwig renders the same in real Twig, compiled once with a warm cache, and prints nanoseconds a rendering.
const phpTwig = `<?php
foreach (['/usr/share/php/Twig/autoload.php', 'vendor/autoload.php'] as $f) { if (is_file($f)) { require $f; break; } }
[$template, $context, $n] = json_decode(stream_get_contents(STDIN), true);
$cache = sys_get_temp_dir() . '/dispatch-ledger-twig-' . getmypid();
$twig = new \Twig\Environment(new \Twig\Loader\ArrayLoader(['t' => $template]), ['cache' => $cache, 'autoescape' => false]);
$t = $twig->load('t'); $t->render($context);
$start = hrtime(true); for ($i = 0; $i < $n; $i++) { $t->render($context); } $took = hrtime(true) - $start;
foreach (new RecursiveIteratorIterator(new RecursiveDirectoryIterator($cache, FilesystemIterator::SKIP_DOTS), RecursiveIteratorIterator::CHILD_FIRST) as $f) { $f->isDir() ? rmdir($f) : unlink($f); } rmdir($cache);
echo json_encode(['ns' => $took / $n, 'version' => \Twig\Environment::VERSION]);`

func newBenchRender(s *settings) *cobra.Command {
	var n int
	cmd := &cobra.Command{
		Use: "render", Short: "A Klaviyo body rendered from its compiled template, beside PHP's Twig with a warm cache where PHP is there", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := tabwriter.NewWriter(s.env.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "WHAT\tA RENDERING\tTIMES BASELINE\tALLOCATIONS")
			baseline, version, err := benchPHP(cmd.Context(), n)
			if err != nil {
				fmt.Fprintf(s.env.stderr, "no PHP Twig to compare with (%s); the baseline is plain text mode\n", oneLine(err))
			} else {
				fmt.Fprintf(w, "PHP Twig %s, warm cache\t%s\t1.00\t\n", version, baseline)
			}
			for _, m := range []struct {
				what string
				mode twig.Mode
			}{{"text mode", twig.ModeText}, {"JSON mode", twig.ModeJSON}} {
				took, allocations, err := benchRender(cmd.Context(), m.mode, n)
				if err != nil {
					return err
				}
				if baseline == 0 {
					baseline = took
				}
				fmt.Fprintf(w, "%s\t%s\t%.2f\t%.0f\n", m.what, took, float64(took)/float64(baseline), allocations)
			}
			return w.Flush()
		},
	}
	cmd.Flags().IntVar(&n, "renderings", 500_000, "of each")
	return cmd
}

func benchRender(ctx context.Context, mode twig.Mode, n int) (took time.Duration, allocations float64, err error) {
	t, err := twig.Compile(seedBody, twig.Options{Mode: mode})
	if err != nil {
		return 0, 0, err
	}
	data, err := twig.DecodeContext([]byte(seedContext))
	if err != nil {
		return 0, 0, err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	for range n {
		if _, err := t.Render(ctx, data, twig.RenderOptions{Now: time.Now}); err != nil {
			return 0, 0, err
		}
	}
	took = time.Since(start) / time.Duration(n)
	runtime.ReadMemStats(&after)
	return took, float64(after.Mallocs-before.Mallocs) / float64(n), nil
}

func benchPHP(ctx context.Context, n int) (took time.Duration, version string, err error) {
	php, err := exec.LookPath("php")
	if err != nil {
		return 0, "", errors.New("php is not on the PATH")
	}
	input, err := json.Marshal([]any{seedBody, json.RawMessage(seedContext), n})
	if err != nil {
		return 0, "", err
	}
	cmd := exec.CommandContext(ctx, php, "-r", phpTwig[len("<?php\n"):]) //nolint:gosec // found on the PATH, given our own program
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.Output()
	var got struct {
		NS      float64 `json:"ns"`
		Version string  `json:"version"`
	}
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	if err != nil {
		return 0, "", fmt.Errorf("php-twig: %w", err)
	}
	return time.Duration(got.NS), got.Version, nil
}
