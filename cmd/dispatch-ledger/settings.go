package main

import (
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
)

// settings are the flags that every command has.
type settings struct {
	env environ

	databaseURL string
	directURL   string
	readURL     string
	readLag     time.Duration
	connections int
	dataDir     string
	name        string
	logFormat   string
	logLevel    string
	output      string
	masterKey   string

	masterKeyURIs  []string
	checkpointURLs []string
}

func (s *settings) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&s.databaseURL, "database-url", "", "PostgreSQL 15 or newer; DATABASE_URL is honoured too. Empty: a private one under --data-dir")
	flags.StringVar(&s.directURL, "session-database-url", "", "the server's own URL, where the other leads to a pooler such as PgBouncer in transaction mode: for what needs a session")
	flags.StringVar(&s.readURL, "read-database-url", "", "a standby of the database, for questions of the API, audit and export; the primary answers while it does not")
	flags.DurationVar(&s.readLag, "read-lag-max", 10*time.Second, "how far behind the standby may be to be asked")
	flags.IntVar(&s.connections, "connections", 24, "most connections to the database for requests and for the work together; besides, a process keeps up to five of its own")
	flags.StringVar(&s.dataDir, "data-dir", defaultDataDir(s.env.lookup), "where the private PostgreSQL, the master key and the last checkpoint live")
	flags.StringVar(&s.name, "ledger", "ledger", "SQL schema of the ledger, so that one database can hold several")
	flags.StringVar(&s.masterKey, "master-key-file", "", "file with the master key; made on first use under --data-dir when empty. DISPATCH_LEDGER_MASTER_KEY holds the key itself")
	flags.StringSliceVar(&s.masterKeyURIs, "master-key-uri", nil, "where the master key is: a file, env:NAME, or a key of HashiCorp Vault's transit engine, such as hcvault://vault.example.com:8200/transit/keys/ledger (repeatable: the first wraps, the others open what they wrapped)")
	flags.StringSliceVar(&s.checkpointURLs, "checkpoint-url", nil, "where the last checkpoint is kept besides the data directory: a URL that answers GET with what was PUT (repeatable)")
	flags.StringVar(&s.logFormat, "log-format", "text", "text or json")
	flags.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVarP(&s.output, "output", "o", "table", "table, json or csv, where rows come out")
}

// defaultDataDir is where a service keeps its data for this user.
func defaultDataDir(lookup func(string) (string, bool)) string {
	if dir, ok := lookup("XDG_DATA_HOME"); ok && dir != "" {
		return filepath.Join(dir, "dispatch-ledger")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "dispatch-ledger")
	}
	return ".dispatch-ledger"
}

func (s *settings) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.logLevel)); err != nil {
		return nil, usagef("--log-level is %q; it is debug, info, warn or error", s.logLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	switch s.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(s.env.stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(s.env.stderr, o)), nil
	}
	return nil, usagef("--log-format is %q; it is text or json", s.logFormat)
}

// actor names who works at the command line, in the events that they cause.
func actor() string {
	if u, err := user.Current(); err == nil {
		return "cli:" + u.Username
	}
	return "cli"
}
