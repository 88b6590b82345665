//go:build e2e

package lab

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Until calls f until it returns true, and fails the test after limit.
func (l *Lab) Until(limit time.Duration, what string, f func() bool) time.Duration {
	l.Helper()
	start := time.Now()
	for !f() {
		if time.Since(start) > limit {
			l.Fatalf("did not happen within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

// Server is a weft-server.
type Server struct {
	*Proc              // the running process
	Host    *Namespace // where it runs
	Dir     string     // --data
	URL     string
	Console string   // address of the plain HTTP listener, on its loopback
	Args    []string // arguments of serve

	ConsoleURL string // the first sign-in link
	Token      string // the first token
}

// Serve starts a server on n at url, listening at listen (":8443"), and waits until it
// is ready. extra are further flags.
func (l *Lab) Serve(n *Namespace, listen, url string, extra ...string) *Server {
	l.Helper()
	s := &Server{Host: n, Dir: l.Mkdir("server-" + strings.TrimPrefix(n.Name, l.id)), URL: url, Console: "127.0.0.1:8080"}
	s.Args = append([]string{"weft-server", "serve", "--data", s.Dir, "--listen", listen, "--console", s.Console, "--url", url, "--stun", ":3478"}, extra...)
	s.Start()
	l.Until(5*time.Second, "the first start prints a console URL and a token", func() bool {
		return strings.Contains(s.Out(), "console ") && strings.Contains(s.Out(), "\ntoken weft1")
	})
	for line := range strings.Lines(s.Out()) {
		switch k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k {
		case "console":
			s.ConsoleURL = v
		case "token":
			s.Token = v
			l.Secret(v)
		}
	}
	return s
}

// Start starts it, or starts it again, and waits until /healthz answers.
func (s *Server) Start() {
	s.Host.lab.Helper()
	s.StartNoWait()
	s.Ready()
}

// StartNoWait starts it, or starts it again.
func (s *Server) StartNoWait() {
	s.Host.lab.Helper()
	s.Proc = s.Host.Start(Nobody, s.Args...)
}

// Ready waits until /healthz answers.
func (s *Server) Ready() {
	s.Host.lab.Helper()
	c := s.Host.HTTP("")
	s.Host.lab.Until(20*time.Second, "the server is ready", func() bool {
		select {
		case <-s.Done():
			s.Host.lab.Fatalf("the server ended:\n%s", tail(s.Err()))
		default:
		}
		res, err := c.Get("http://" + s.Console + "/healthz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// Admin runs a verb of weft-server on the data directory.
func (s *Server) Admin(args ...string) Result {
	args = append([]string{"weft-server"}, args...)
	return s.Host.Run(Nobody, append(args, "--data", s.Dir)...)
}

// Key is the output of keys create --json.
type Key struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// NewKey makes a token.
func (s *Server) NewKey(flags ...string) Key {
	s.Host.lab.Helper()
	r := s.Admin(append([]string{"keys", "create", "--json"}, flags...)...)
	var k Key
	if err := json.Unmarshal([]byte(r.Out), &k); r.Code != 0 || err != nil || k.Token == "" || k.ID == "" {
		s.Host.lab.Fatalf("keys create: %v: %v", err, r)
	}
	s.Host.lab.Secret(k.Token)
	return k
}

// Device is an element of devices list --json.
type Device struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	FQDN     string   `json:"fqdn"`
	IPv4     string   `json:"ipv4"`
	IPv6     string   `json:"ipv6"`
	User     string   `json:"user"`
	Tags     []string `json:"tags"`
	Online   bool     `json:"online"`
	LastSeen *string  `json:"last_seen"`
	OS       string   `json:"os"`
	Version  string   `json:"version"`
}

// Devices lists the devices.
func (s *Server) Devices() []Device {
	s.Host.lab.Helper()
	r := s.Admin("devices", "list", "--json")
	var d []Device
	if err := json.Unmarshal([]byte(r.Out), &d); r.Code != 0 || err != nil {
		s.Host.lab.Fatalf("devices list: %v: %v", err, r)
	}
	return d
}

// Device finds a device by name.
func (s *Server) Device(name string) (Device, bool) {
	s.Host.lab.Helper()
	for _, d := range s.Devices() {
		if d.Name == name {
			return d, true
		}
	}
	return Device{}, false
}

// InsecureTLS is for the self-signed public site.
var InsecureTLS = &tls.Config{InsecureSkipVerify: true}

// Node is a weft daemon with its command line.
type Node struct {
	*Proc            // the running daemon
	Host  *Namespace // where it runs
	Name  string     // --hostname
	State string     // --state
	Sock  string     // --socket
	As    User
	Env   []string
	In    *System // its Debian system; nil: this machine's files

	// Wrap, if not empty, is a program that root runs and that executes its arguments,
	// which run the daemon as As.
	Wrap []string
}

// sock is the socket, as seen from outside.
func (n *Node) sock() string {
	if n.In != nil {
		return n.In.path(n.Sock)
	}
	return n.Sock
}

// args are args, wrapped to run where the node is.
func (n *Node) args(args []string) []string {
	if n.In != nil {
		return n.In.inside(args)
	}
	return args
}

// Proxy and DNS are the daemon's listeners, on each machine's own loopback.
const (
	Proxy    = "127.0.0.1:1055"
	SOCKSURL = "socks5h://" + Proxy
)

// Node prepares a node on n; nothing runs yet.
func (l *Lab) Node(n *Namespace, name string) *Node {
	l.Helper()
	dir := l.Mkdir(strings.TrimPrefix(n.Name, l.id+"-") + "-" + fmt.Sprint(files.Add(1)))
	return &Node{Host: n, Name: name, State: filepath.Join(dir, "state"), Sock: filepath.Join(dir, "weft.sock"), As: Nobody}
}

// Run starts the daemon and waits for its socket.
func (n *Node) Run(flags ...string) {
	n.Host.lab.Helper()
	n.RunNoWait(flags...)
	n.Host.lab.Until(10*time.Second, n.Name+"'s daemon has its socket", func() bool {
		select {
		case <-n.Done():
			n.Host.lab.Fatalf("the daemon of %s ended with %d:\n%s", n.Name, n.code, tail(n.Err()))
		default:
		}
		_, err := os.Stat(n.sock())
		return err == nil
	})
}

// RunNoWait starts the daemon.
func (n *Node) RunNoWait(flags ...string) {
	n.Host.lab.Helper()
	os.Remove(n.sock()) // left by a killed daemon; Run has to see the new one
	args := []string{"weft", "run", "--state", n.State, "--socket", n.Sock}
	if n.Name != "" {
		args = append(args, "--hostname", n.Name)
	}
	args = append(args, flags...)
	as := n.As
	if len(n.Wrap) > 0 {
		args = append(append(slices.Clone(n.Wrap), as.setpriv()...), args...)
		as = Root
	}
	n.Proc = n.Host.StartEnv(as, n.Env, n.args(args)...)
}

// Weft runs a verb against the daemon, at most a minute.
func (n *Node) Weft(args ...string) Result { return n.WeftInput("", args...) }

// WeftInput is Weft with standard input.
func (n *Node) WeftInput(stdin string, args ...string) Result {
	full := append([]string{"weft", args[0], "--socket", n.Sock}, args[1:]...)
	return n.Host.RunInput(n.As, stdin, time.Minute, n.args(full)...)
}

// Must is Weft that fails the test unless the exit code is 0.
func (n *Node) Must(args ...string) string {
	n.Host.lab.Helper()
	r := n.Weft(args...)
	if r.Code != 0 {
		n.Host.lab.Fatalf("%s: %v", n.Name, r)
	}
	return r.Out
}

// Join runs the daemon with a token file and waits until it is connected.
func (n *Node) Join(token string, flags ...string) {
	n.Host.lab.Helper()
	n.Run(append([]string{"--token-file", n.Host.lab.WriteFile(fmt.Sprintf("token-%d", files.Add(1)), token+"\n")}, flags...)...)
	n.Must("wait", "--timeout", "20s")
}

// Up runs the daemon, joins with weft up and waits until it is connected.
func (n *Node) Up(token string, flags ...string) {
	n.Host.lab.Helper()
	n.Run(flags...)
	if r := n.WeftInput(token+"\n", "up", "-"); r.Code != 0 {
		n.Host.lab.Fatalf("%s: %v", n.Name, r)
	}
	n.Must("wait", "--timeout", "20s")
}

// Status is the part of status --json that tests use.
type Status struct {
	State  string `json:"state"`
	Server struct {
		URL    string `json:"url"`
		Online bool   `json:"online"`
	} `json:"server"`
	Self struct {
		ID, Name, FQDN, IPv4, IPv6, Relay string
		Online                            bool
	} `json:"self"`
	Peers []struct {
		ID, Name, IPv4, Path string
		Online               bool
	} `json:"peers"`
	Health []struct{ Code, Message string } `json:"health"`
}

// Status returns the daemon's status.
func (n *Node) Status() (st Status) {
	n.Host.lab.Helper()
	out := n.Must("status", "--json")
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		n.Host.lab.Fatalf("status: %v\n%s", err, out)
	}
	return st
}

// Get fetches a page through the node's proxy, within limit.
func (n *Node) Get(url string, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return get(ctx, n.Host.HTTP(SOCKSURL), url)
}

// Mesh is the usual setup: a server at a bare address, a device and a laptop in two
// homes.
type Mesh struct {
	*Lab
	Server         *Server
	Device, Laptop *Node
	DeviceHome     *Home
	LaptopHome     *Home
}

// NewMesh makes a Mesh. The device is kitchen-pi and joins with the first token; its
// :80 answers "kitchen" on its loopback.
func NewMesh(tb TB, bin string) *Mesh {
	tb.Helper()
	m := NewMeshNoNodes(tb, bin)
	m.Device.Join(m.Server.Token)
	m.Laptop.Up(m.Server.NewKey().Token)
	return m
}

// NewMeshNoNodes is NewMesh before the nodes have joined.
func NewMeshNoNodes(tb TB, bin string) *Mesh {
	tb.Helper()
	l := New(tb, bin)
	host := l.Host("server")
	return MeshOf(l, l.Serve(host, ":8443", "https://"+host.Addr+":8443"))
}

// MeshOf is NewMeshNoNodes with the caller's server.
func MeshOf(l *Lab, s *Server) *Mesh {
	l.Helper()
	m := &Mesh{Lab: l, Server: s}
	m.addHomes()
	return m
}

// NewMeshOn is NewMesh with the caller's server.
func NewMeshOn(l *Lab, s *Server) *Mesh {
	l.Helper()
	m := MeshOf(l, s)
	m.Device.Join(m.Server.Token)
	m.Laptop.Up(m.Server.NewKey().Token)
	return m
}

func (m *Mesh) addHomes() {
	m.Helper()
	m.DeviceHome, m.LaptopHome = m.Home("pi"), m.Home("lap")
	m.Device, m.Laptop = m.Node(m.DeviceHome.Namespace, "kitchen-pi"), m.Node(m.LaptopHome.Namespace, "laptop")
	m.DeviceHome.Serve("127.0.0.1:80", Page)
}
