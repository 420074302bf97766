package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/broker"
)

// The parts of a measurement that are processes of their own, so that it can be told what each takes of processors.
const (
	partSink    = "sink"
	partBroker  = "broker"
	partSenders = "senders"
)

// newBenchPart is what a benchmark starts of itself: it prints where it is reached, and ends with its standard input.
func newBenchPart() *cobra.Command {
	return &cobra.Command{
		Use: "part", Short: "A sink or a broker for another measurement, as a process of its own", Args: cobra.RangeArgs(1, 2), Hidden: true, ValidArgs: []string{partSink, partBroker},
		RunE: func(cmd *cobra.Command, args []string) error {
			in, out := bufio.NewScanner(cmd.InOrStdin()), cmd.OutOrStdout()
			switch {
			case args[0] == partSink && len(args) == 1:
				return sinkPart(cmd.Context(), in, out)
			case args[0] == partBroker && len(args) == 2:
				server, err := broker.StartEmbedded(broker.EmbeddedConfig{Dir: args[1], Name: "bench"})
				if err != nil {
					return err
				}
				defer server.Close()
				fmt.Fprintln(out, server.URL())
				for in.Scan() {
				}
				return nil
			}
			return usagef("a part is %s, or %s and its directory", partSink, partBroker)
		},
	}
}

// sinkPart answers requests. For each number that it reads it says when a tenth, nine tenths and all of so many have come:
// neither the start nor the last requests in flight count.
func sinkPart(ctx context.Context, in *bufio.Scanner, out io.Writer) error {
	sink, err := newBenchSink(ctx)
	if err != nil {
		return err
	}
	defer sink.server.Close()
	var mu sync.Mutex
	var came int64
	var marks []int64
	sink.counted = func() {
		mu.Lock()
		defer mu.Unlock()
		came++
		for len(marks) > 0 && came >= marks[0] {
			marks = marks[1:]
			fmt.Fprintln(out, time.Now().Format(time.RFC3339Nano))
		}
	}
	fmt.Fprintln(out, sink.address)
	for in.Scan() {
		n, err := strconv.ParseInt(in.Text(), 10, 64)
		if err != nil {
			return fmt.Errorf("how many requests: %w", err)
		}
		mu.Lock()
		came, marks = 0, []int64{n / 10, n * 9 / 10, n}
		mu.Unlock()
	}
	return nil
}

// part is a process that a benchmark started.
type part struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	said string // its first line

	stderr bytes.Buffer
}

// startPart runs this program as a part of a benchmark, and waits for its first line.
func (st *store) startPart(ctx context.Context, name string, env []string, args ...string) (*part, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &part{cmd: exec.CommandContext(ctx, program, args...)} //nolint:gosec // this program itself
	p.cmd.Env, p.cmd.Stderr = append(os.Environ(), env...), &p.stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	st.parts.add(name, p.cmd.Process.Pid)
	if p.out = bufio.NewScanner(out); !p.out.Scan() {
		return nil, errors.Join(fmt.Errorf("%s did not start: %s", name, strings.TrimSpace(p.stderr.String())), p.cmd.Wait())
	}
	p.said = p.out.Text()
	return p, nil
}

// stopPart ends it; nil does nothing.
func (st *store) stopPart(p *part) error {
	if p == nil {
		return nil
	}
	defer st.parts.forget(p.cmd.Process.Pid)
	p.in.Close()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	err := p.cmd.Wait()
	if err != nil {
		err = fmt.Errorf("%v: %w: %s", p.cmd.Args[1:], err, strings.TrimSpace(p.stderr.String()))
	}
	return err
}

// farSink is a sink in a process of its own.
type farSink struct{ *part }

func (st *store) startSink(ctx context.Context) (farSink, error) {
	p, err := st.startPart(ctx, partSink, nil, "bench", "part", partSink)
	return farSink{p}, err
}

func (st *store) startBroker(ctx context.Context) (*part, error) {
	return st.startPart(ctx, partBroker, nil, "bench", "part", partBroker, filepath.Join(st.settings.dataDir, "broker"))
}

// expect has the sink count from now on. The channel gives when a tenth, nine tenths and all of so many had come.
func (s farSink) expect(n int) (<-chan time.Time, error) {
	if _, err := fmt.Fprintln(s.in, n); err != nil {
		return nil, err
	}
	reached := make(chan time.Time, 3)
	go func() {
		defer close(reached)
		for range 3 {
			if !s.out.Scan() {
				return
			}
			at, err := time.Parse(time.RFC3339Nano, s.out.Text())
			if err != nil {
				return
			}
			reached <- at
		}
	}()
	return reached, nil
}
