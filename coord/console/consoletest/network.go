// Package consoletest is a network for tests of the console: an ops.Service in a
// directory of the test's, with its relay on a port of loopback. Devices join through
// the API for nodes and connect to the relay as nodes do.
package consoletest

import (
	"context"
	"crypto/tls"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/ca"
	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/store/storetest"
	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay/relayserver"
)

// Options configure New. All may be zero.
type Options struct {
	Log          *slog.Logger
	Now          func() time.Time
	BeforeCommit func() error // see ops.Options
	URLs         []string     // of the server, after its own
}

// Network is a network under test.
type Network struct {
	*ops.Service
	t   testing.TB
	o   Options
	dir string
	url string // of the API and the relay

	relay *relayserver.Server
	looks atomic.Int64
	stop  func()

	mu     sync.Mutex
	tokens map[string]cert.Token // by the tags of who joins with it; mu guards it
}

// looking is the relay, and counts how often it was told to ask silent devices.
type looking struct {
	*relayserver.Server
	n *atomic.Int64
}

func (l looking) Look(ctx context.Context, id cert.NetworkID, nodes []cert.NodeID) {
	l.n.Add(1)
	l.Server.Look(ctx, id, nodes)
}

// New makes a network with one user, "admin", who has no password yet. It ends with
// the test.
func New(t testing.TB, o Options) *Network {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	n := &Network{t: t, o: o, dir: t.TempDir(), tokens: map[string]cert.Token{}}
	n.start(true)
	t.Cleanup(func() { n.stop() })
	return n
}

// start opens the service and lets devices in.
func (n *Network) start(first bool) {
	n.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	n.url = "https://" + listener.Addr().String()
	var urls []string // what was there before stays as it is
	if first {
		urls = append([]string{n.url}, n.o.URLs...)
	}
	storetest.Schema(n.t, n.dir)
	n.Service, err = ops.OpenService(n.t.Context(), ops.Options{
		Data: n.dir, Create: true, URLs: urls, Software: "0.1.0", Log: n.o.Log, Now: n.o.Now, BeforeCommit: n.o.BeforeCommit,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	s := n.Service
	n.relay = relayserver.New(relayserver.Config{
		Verify:   s.VerifyClient,
		Versions: func(_ cert.NetworkID, node cert.NodeID) api.Versions { return s.Versions(node) },
		CRL:      func(cert.NetworkID) []byte { return s.CRL() },
		Presence: func(e relayserver.Event) { s.Presence(e.Node, e.Conn, e.Online, e.At, e.Addr.Addr()) },
		Now:      n.o.Now,
	})
	s.SetRelay(looking{n.relay, &n.looks})
	site, err := ca.Site(n.dir, []string{n.url}, n.o.Now())
	if err != nil {
		n.t.Fatal(err)
	}
	server := link.NewServer(link.ServerConfig{
		Certificate: func() *tls.Certificate {
			c, err := s.Leaf()
			if err != nil {
				n.t.Error(err)
			}
			return c
		},
		Public: &tls.Config{Certificates: []tls.Certificate{*site}, NextProtos: []string{"h2", "http/1.1"}},
		API:    s.API(), Relay: n.relay.Serve, Site: http.NotFoundHandler(),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	running.Go(func() { server.Serve(listener) })
	n.stop = sync.OnceFunc(func() {
		listener.Close()
		ctx, done := context.WithTimeout(context.Background(), 2*time.Second)
		defer done()
		cancel()
		n.relay.Shutdown(ctx)
		server.Shutdown(ctx)
		running.Wait()
		s.Close()
	})
}

// Restart ends the service, lets change have the database, and starts a service with
// what is there then. Devices have to connect again.
func (n *Network) Restart(change func(*sql.DB)) {
	n.t.Helper()
	n.stop()
	n.Change(change)
	n.start(false)
}

// Change gives f the database, behind the back of a service that runs. What is in
// memory of it stays as it was.
func (n *Network) Change(f func(*sql.DB)) {
	n.t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: filepath.Join(n.dir, "weft.db"), RawQuery: "_pragma=busy_timeout(10000)"}).String())
	if err != nil {
		n.t.Fatal(err)
	}
	defer db.Close()
	f(db)
}

// Looks is how often somebody had silent devices asked whether they are there.
func (n *Network) Looks() int { return int(n.looks.Load()) }

// Link makes a one-time sign-in link for a user, and returns its path.
func (n *Network) Link(user string) string {
	n.t.Helper()
	return do(n, ops.CreateLink{User: user})
}

// Actor is a user in the console.
func (n *Network) Actor(name string) ops.Actor {
	n.t.Helper()
	u, err := n.Login(context.Background(), name)
	if err != nil {
		n.t.Fatal(err)
	}
	return ops.ConsoleActor(u, netip.Addr{})
}

// Member makes a user who is not the network's owner.
func (n *Network) Member(name string) store.User {
	n.t.Helper()
	return do(n, ops.CreateUser{Name: name})
}

// Group makes a group of new members.
func (n *Network) Group(name string, members ...string) {
	n.t.Helper()
	do(n, ops.CreateGroup{Name: name})
	for _, m := range members {
		n.Member(m)
	}
	do(n, ops.EditGroup{Name: name, Add: members})
}

// SessionsOf lists the sessions of a user.
func (n *Network) SessionsOf(name string) []store.Session {
	n.t.Helper()
	list, err := n.Sessions(context.Background(), n.Actor(name))
	if err != nil {
		n.t.Fatal(err)
	}
	return list
}

// EndSessions ends all sessions of a user behind the console's back, as another server
// would.
func (n *Network) EndSessions(name string) {
	n.t.Helper()
	for _, s := range n.SessionsOf(name) {
		if _, err := ops.Do(context.Background(), n.Service, ops.System(), ops.EndSession{Hash: s.Hash}); err != nil {
			n.t.Fatal(err)
		}
	}
}

// do runs a command as root.
func do[R any](n *Network, c ops.Command[R]) R {
	n.t.Helper()
	res, err := ops.Do(context.Background(), n.Service, ops.Root(), c)
	if err != nil {
		n.t.Fatal(err)
	}
	return res
}

// State is everything that a form could change, for "nothing changed" tests.
func (n *Network) State() string {
	n.t.Helper()
	var lines []string
	n.Change(func(db *sql.DB) {
		for _, q := range []string{
			`SELECT 'device', hex(node_id), name, wildcard, lan_names FROM nodes`,
			`SELECT 'key', key_id, uses, COALESCE(revoked_at, ''), '' FROM keys`,
			`SELECT 'session', hex(token_hash), user_id, '', '' FROM sessions`,
			`SELECT 'link', hex(token_hash), user_id, '', '' FROM login_links`,
			`SELECT 'user', user_id, name, password, owner FROM users`,
			`SELECT 'record', record_id, name, type, value FROM dns_records`,
			`SELECT 'former name', name, hex(node_id), until, '' FROM aliases`,
			`SELECT 'names', dns, policy, '', '' FROM networks`,
		} {
			rows, err := db.Query(q)
			if err != nil {
				n.t.Fatal(err)
			}
			for rows.Next() {
				var f [5]string
				if err := rows.Scan(&f[0], &f[1], &f[2], &f[3], &f[4]); err != nil {
					n.t.Fatal(err)
				}
				lines = append(lines, fmt.Sprintf("%q", f))
			}
			if err := rows.Err(); err != nil {
				n.t.Fatal(err)
			}
			rows.Close()
		}
	})
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}
