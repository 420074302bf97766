package broker

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Embedded is a NATS server with JetStream inside this process, for trying a broker without setting one up.
type Embedded struct {
	server *server.Server
	url    string
}

// EmbeddedConfig says where an embedded server keeps its streams. The cluster's fields are for servers that form one.
type EmbeddedConfig struct {
	Dir  string // its own
	Name string // unique in a cluster
	Port int    // on the loopback address; 0 takes a free one

	Cluster     string // name; empty: the server stands alone
	ClusterPort int
	Routes      []string // nats://host:port of the others' cluster ports
	Password    string   // of the clients; empty: a random one, which URL holds
}

const embeddedUser = "dispatch-ledger"

// StartEmbedded starts a server on the loopback address. What it acknowledges is on the disk.
func StartEmbedded(c EmbeddedConfig) (*Embedded, error) {
	if c.Password == "" {
		c.Password = rand.Text()
	}
	if c.Port == 0 {
		c.Port = server.RANDOM_PORT
	}
	o := &server.Options{
		ServerName: c.Name, Host: "127.0.0.1", Port: c.Port, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: c.Dir, SyncAlways: c.Cluster == "", // a cluster's copies are what survives a machine
		Username: embeddedUser, Password: c.Password, MaxPayload: 8 << 20,
	}
	if c.Cluster != "" {
		o.Cluster = server.ClusterOpts{Name: c.Cluster, Host: "127.0.0.1", Port: c.ClusterPort}
		for _, r := range c.Routes {
			u, err := url.Parse(r)
			if err != nil {
				return nil, fmt.Errorf("%w: route %q: %w", ErrConfig, r, err)
			}
			o.Routes = append(o.Routes, u)
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		return nil, fmt.Errorf("%w: embedded server: %w", ErrConfig, err)
	}
	s.Start()
	const patience = 10 * time.Second
	if !s.ReadyForConnections(patience) {
		s.Shutdown()
		return nil, errors.New("the embedded broker did not start; its directory may be in use or not writable: " + c.Dir)
	}
	u, err := url.Parse(s.ClientURL())
	if err != nil {
		s.Shutdown()
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	u.User = url.UserPassword(embeddedUser, c.Password)
	return &Embedded{server: s, url: u.String()}, nil
}

// URL is where clients connect, with the password.
func (e *Embedded) URL() string { return e.url }

// Close stops the server. Connections should have been closed before.
func (e *Embedded) Close() {
	e.server.Shutdown()
	e.server.WaitForShutdown()
}
