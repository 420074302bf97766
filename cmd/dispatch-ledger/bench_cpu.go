package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// cpu is the processor time that was spent until a moment. Unlike a rate it does not depend on who else uses the machine.
type cpu struct {
	service  time.Duration            // this process, with the bench's sink where that is not a part
	database time.Duration            // the server and its sessions; 0 when it is not on this machine, or cannot be looked at
	parts    map[string]time.Duration // processes that a benchmark started, by what they are
}

// spent reads the processor time of this process and of the database server's, as Linux tells them.
func (st *store) spent(ctx context.Context) (c cpu, err error) {
	_, own, err := processTime(os.Getpid())
	if err != nil {
		return c, nil //nolint:nilerr // this is no Linux
	}
	c.service = own.own
	c.parts = st.parts.spent()
	var session int
	if err := st.db.QueryRowContext(ctx, `SELECT pg_backend_pid()`).Scan(&session); err != nil {
		return c, err
	}
	parent, _, err := processTime(session)
	if err != nil {
		return c, nil //nolint:nilerr // it runs elsewhere, or this is no Linux
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return c, err
	}
	for _, stat := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
		if err != nil {
			continue
		}
		of, took, err := processTime(pid)
		switch {
		case err != nil: // it has ended
		case pid == parent:
			c.database += took.own + took.children
		case of == parent:
			c.database += took.own
		}
	}
	return c, nil
}

// processes are those that a benchmark started, and what they are.
type processes struct {
	mu   sync.Mutex
	pids map[int]string // guarded by mu
}

func (p *processes) add(what string, pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pids == nil {
		p.pids = map[int]string{}
	}
	p.pids[pid] = what
}

func (p *processes) forget(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pids, pid)
}

// spent is the processor time of those that run, by what they are.
func (p *processes) spent() map[string]time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]time.Duration{}
	for pid, what := range p.pids {
		if _, took, err := processTime(pid); err == nil {
			out[what] += took.own
		}
	}
	return out
}

type processTimes struct{ own, children time.Duration }

var errNoProcess = errors.New("no such process")

// processTime gives a process's parent and the processor time of it and of its children that have ended.
func processTime(pid int) (parent int, took processTimes, err error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, took, err
	}
	_, rest, ok := strings.Cut(string(content), ") ") // the name before it may hold anything
	fields := strings.Fields(rest)
	if !ok || len(fields) < 15 {
		return 0, took, errNoProcess
	}
	numbers := make([]int64, len(fields))
	for _, i := range []int{1, 11, 12, 13, 14} {
		if numbers[i], err = strconv.ParseInt(fields[i], 10, 64); err != nil {
			return 0, took, err
		}
	}
	const tick = 10 * time.Millisecond // of /proc, on every Linux that Go runs on
	return int(numbers[1]), processTimes{time.Duration(numbers[11]+numbers[12]) * tick, time.Duration(numbers[13]+numbers[14]) * tick}, nil
}

// since is what was spent after an earlier moment.
func (c cpu) since(before cpu) cpu {
	d := cpu{service: c.service - before.service, database: c.database - before.database, parts: map[string]time.Duration{}}
	for what, took := range c.parts {
		d.parts[what] = took - before.parts[what]
	}
	return d
}

// plus is both together.
func (c cpu) plus(more cpu) cpu {
	sum := cpu{service: c.service + more.service, database: c.database + more.database, parts: maps.Clone(c.parts)}
	for what, took := range more.parts {
		if sum.parts == nil {
			sum.parts = map[string]time.Duration{}
		}
		sum.parts[what] += took
	}
	return sum
}

// total is all of it.
func (c cpu) total() time.Duration {
	sum := c.service + c.database
	for _, took := range c.parts {
		sum += took
	}
	return sum
}

// each prints what a number of things, of that kind, cost each; service says what runs in this process besides the service.
func (c cpu) each(what, service string, n int) string {
	each := func(d time.Duration) string {
		return fmt.Sprintf("%.3f ms", d.Seconds()*1000/float64(n))
	}
	if c.service == 0 {
		return fmt.Sprintf("processor time of %s: unknown on this system", what)
	}
	if c.database == 0 {
		return fmt.Sprintf("processor time of %s: %s in %s, unknown in the database", what, each(c.service), service)
	}
	return fmt.Sprintf("processor time of %s: %s (%s %s, database %s), which two processors can do %.0f times a second",
		what, each(c.service+c.database), service, each(c.service), each(c.database), 2*float64(n)/(c.service+c.database).Seconds())
}

// printMemory says how much memory this process took at its most.
func printMemory(out io.Writer) error {
	most, err := mostMemory()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "most memory of this process, the database's apart: %d MiB\n", most>>20)
	return err
}

// mostMemory is how much memory this process took at its most, in bytes.
func mostMemory() (int64, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, err
	}
	return usage.Maxrss << 10, nil
}
