package consoletest

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"weft/coord/ops"
	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay"
	"weft/overlay/relay/lane"
)

// Device is a device that has joined.
type Device struct {
	ID   cert.NodeID
	Name string

	n     *Network
	token cert.Token
	shown tls.Certificate
	leave func() // ends its connection to the relay; nil while there is none
}

// Join makes a device join with a token, as "weft up" does.
func (n *Network) Join(token, hostname, os string) (*Device, error) {
	tok, err := cert.ParseToken(token)
	if err != nil {
		return nil, err
	}
	return n.join(tok, hostname, os)
}

// Ask has a device ask to be let in from an address, as "weft up --server" does. It
// returns its code, and how its request stands.
func (n *Network) Ask(hostname, from string) (code string, state func() string) {
	n.t.Helper()
	c, _, csr, err := n.newcomer(from + ":1234")
	if err != nil {
		n.t.Fatal(err)
	}
	res, err := c.Ask(context.Background(), api.Ask{Protocol: api.Protocol, CSR: csr, Hostname: hostname, OS: "linux/amd64", Software: "0.1.0"})
	if err != nil {
		n.t.Fatal(err)
	}
	return res.Code, func() string {
		res, err := c.PollAsk(context.Background(), api.Poll{})
		if err != nil {
			n.t.Fatal(err)
		}
		return res.State
	}
}

// AskSignIn has a device ask to be signed in again, as "weft up" does, and returns its code.
func (d *Device) AskSignIn() (code string) {
	d.n.t.Helper()
	leaf, err := x509.ParseCertificate(d.shown.Certificate[0])
	if err != nil {
		d.n.t.Fatal(err)
	}
	csr, err := cert.NewCSR(d.shown.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		d.n.t.Fatal(err)
	}
	c := client.New(&direct{d.n.API(), leaf, "127.0.0.1:1234"}, nil)
	res, err := c.Ask(context.Background(), api.Ask{Protocol: api.Protocol, CSR: csr, Hostname: d.Name, OS: "linux/amd64", Software: "0.1.0", SignIn: true})
	if err != nil {
		d.n.t.Fatal(err)
	}
	return res.Code
}

// newcomer is a device that has yet to join, at an address.
func (n *Network) newcomer(from string) (c *client.Client, key *ecdsa.PrivateKey, csr []byte, err error) {
	if key, err = cert.NewKey(); err != nil {
		return nil, nil, nil, err
	}
	self, err := cert.SelfSigned(key)
	if err != nil {
		return nil, nil, nil, err
	}
	leaf, err := x509.ParseCertificate(self.Certificate[0])
	if err != nil {
		return nil, nil, nil, err
	}
	csr, err = cert.NewCSR(key)
	return client.New(&direct{n.API(), leaf, from}, nil), key, csr, err
}

func (n *Network) join(tok cert.Token, hostname, os string) (*Device, error) {
	c, key, csr, err := n.newcomer("192.0.2.1:1234")
	if err != nil {
		return nil, err
	}
	res, err := c.Join(context.Background(), api.JoinRequest{Protocol: api.Protocol, Secret: tok.Secret, CSR: csr, Hostname: hostname, OS: os, Software: "0.1.0"})
	if err != nil {
		return nil, err
	}
	return n.device(tok, key, res)
}

func (n *Network) device(tok cert.Token, key *ecdsa.PrivateKey, res *api.JoinResponse) (*Device, error) {
	id, err := cert.ParseNodeID(res.Config.Self.ID)
	if err != nil {
		return nil, err
	}
	return &Device{ID: id, Name: res.Config.Self.Name, n: n, token: tok, shown: tls.Certificate{Certificate: [][]byte{res.Certificate}, PrivateKey: key}}, nil
}

// direct is a transport that calls the API with the state that package link leaves: a
// TLS session whose client certificate is of the caller's key. It saves thousands of
// devices that join a handshake each.
type direct struct {
	api  http.Handler
	leaf *x509.Certificate
	from string // remote address
}

func (d *direct) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if r.Body == nil {
		r.Body = http.NoBody
	}
	r.RemoteAddr = d.from
	r.TLS = &tls.ConnectionState{HandshakeComplete: true, NegotiatedProtocol: "weft-api/1", PeerCertificates: []*x509.Certificate{d.leaf}}
	w := httptest.NewRecorder()
	d.api.ServeHTTP(w, r)
	return w.Result(), nil
}

// Add makes a device of the owner's, with tags, join.
func (n *Network) Add(hostname, os string, tags ...string) *Device {
	n.t.Helper()
	return n.AddMany([]string{hostname}, os, tags...)[0]
}

// AddMany makes several join at once, and returns them in the order of their
// hostnames.
func (n *Network) AddMany(hostnames []string, os string, tags ...string) []*Device {
	n.t.Helper()
	tok := n.token(tags)
	made, errs := make([]*Device, len(hostnames)), make([]error, len(hostnames))
	var joining sync.WaitGroup
	for w := range 16 {
		joining.Go(func() {
			for i := w; i < len(hostnames); i += 16 {
				made[i], errs[i] = n.join(tok, hostnames[i], os)
			}
		})
	}
	joining.Wait()
	if err := errors.Join(errs...); err != nil {
		n.t.Fatal(err)
	}
	return made
}

// token is of the key that devices with these tags join with.
func (n *Network) token(tags []string) cert.Token {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	kind := strings.Join(tags, " ")
	tok, ok := n.tokens[kind]
	if !ok {
		made := do(n, ops.CreateKey{Note: "for tests", Reusable: true, Tags: tags, Life: 365 * 24 * time.Hour})
		var err error
		if tok, err = cert.ParseToken(made.Token); err != nil {
			n.t.Fatal(err)
		}
		n.tokens[kind] = tok
	}
	return tok
}

// Show is the device as the owner sees it.
func (d *Device) Show() ops.Device {
	d.n.t.Helper()
	shown, err := d.n.Device(ops.Passive(context.Background()), ops.Root(), d.ID.String())
	if err != nil {
		d.n.t.Fatal(err)
	}
	return shown
}

// Rename gives it another name.
func (d *Device) Rename(name string) {
	d.n.t.Helper()
	d.Name = do(d.n, ops.RenameDevice{ID: d.ID, Name: name}).Name
}

// Connect connects the device to the relay, until Disconnect or the end of the test.
func (d *Device) Connect() {
	d.n.t.Helper()
	roots, err := cert.NewServerRoots([]cert.Pin{d.token.Server}, nil)
	if err != nil {
		d.n.t.Fatal(err)
	}
	dialer := &link.Dialer{
		URLs:     func() []string { return []string{d.n.url} },
		Roots:    func() *cert.ServerRoots { return roots },
		Identity: func() *tls.Certificate { return &d.shown },
	}
	ctx, cancel := context.WithCancel(context.Background())
	c, err := relay.DialWith(dialer)(ctx, d.n.RelayID(), d.n.url)
	if err != nil {
		cancel()
		d.n.t.Fatal(err)
	}
	conn := relay.NewConn(c, silent{})
	ended := make(chan struct{})
	go func() { defer close(ended); conn.Run(ctx) }()
	d.leave = sync.OnceFunc(func() { cancel(); conn.Close(); <-ended })
	d.n.t.Cleanup(d.leave)
	if err := conn.SendVersions(d.n.Versions(d.ID)); err != nil {
		d.n.t.Fatal(err)
	}
	d.wait(true)
}

// Disconnect ends the connection.
func (d *Device) Disconnect() {
	d.n.t.Helper()
	d.leave()
	d.wait(false)
}

// wait waits until the service knows whether the device is online.
func (d *Device) wait(online bool) {
	d.n.t.Helper()
	for end := time.Now().Add(time.Minute); d.Show().Online != online; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			d.n.t.Fatalf("%s: online is %v", d.Name, !online)
		}
	}
}

// silent is a device that does nothing with what comes.
type silent struct{}

func (silent) Packet(cert.NodeID, []byte)             {}
func (silent) Drained()                               {}
func (silent) Session(cert.NodeID, []byte)            {}
func (silent) Gone(cert.NodeID, relay.GoneReason)     {}
func (silent) Busy(cert.NodeID)                       {}
func (silent) Welcome(relay.Welcome)                  {}
func (silent) Nudge(relay.Nudge)                      {}
func (silent) CRL([]byte)                             {}
func (silent) Replaced()                              {}
func (silent) Draining(relay.Draining)                {}
func (silent) Lane(cert.NodeID, lane.Info)            {}
func (silent) LaneGone(cert.NodeID, relay.LaneReason) {}
func (silent) LaneRebind(cert.NodeID)                 {}
