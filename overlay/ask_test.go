package overlay_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/status"
)

// site is the public site of a world: a certificate of its own, and the pins.
type site struct {
	cert tls.Certificate
	lie  atomic.Pointer[api.Pins] // in place of the truth
	old  atomic.Bool              // it does not know of pins
	hits atomic.Int64
}

func newSite(t *testing.T) *site {
	t.Helper()
	key, err := cert.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{{127, 0, 0, 1}}}
	der, err := x509.CreateCertificate(nil, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &site{cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

func (s *site) config() *tls.Config {
	if s == nil {
		return nil
	}
	return &tls.Config{Certificates: []tls.Certificate{s.cert}, NextProtos: []string{"h2", "http/1.1"}}
}

func (s *site) handler(w *world) http.Handler {
	mux := http.NewServeMux()
	if s == nil {
		return mux
	}
	mux.HandleFunc("GET "+api.PinsPath, func(rw http.ResponseWriter, r *http.Request) {
		s.hits.Add(1)
		pins := w.svc.Pins()
		if lie := s.lie.Load(); lie != nil {
			pins = *lie
		}
		if s.old.Load() {
			http.NotFound(rw, r)
			return
		}
		json.NewEncoder(rw).Encode(pins)
	})
	return mux
}

// fingerprint is that of the site's certificate, as browsers show it.
func (s *site) fingerprint() string {
	sum := sha256.Sum256(s.cert.Certificate[0])
	var pairs []string
	for _, b := range sum {
		pairs = append(pairs, strings.ToUpper(hex.EncodeToString([]byte{b})))
	}
	return strings.Join(pairs, ":")
}

// asking is an Ask that runs.
type asking struct {
	codes chan status.Asked
	done  chan error
	end   context.CancelFunc
}

func (n *node) asks(fingerprint string) *asking {
	return n.asksServer("https://"+n.w.addr, fingerprint)
}

func (n *node) asksServer(server, fingerprint string) *asking {
	ctx, cancel := context.WithCancel(context.Background())
	a := &asking{codes: make(chan status.Asked, 10), done: make(chan error, 1), end: cancel}
	go func() {
		a.done <- n.Ask(ctx, server, fingerprint, func(s status.Asked) { a.codes <- s })
	}()
	n.w.t.Cleanup(cancel)
	return a
}

func soon[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(40 * time.Second):
		t.Fatal("it takes too long")
	}
	return v
}

// unjoined is a node without a token, which runs.
func (w *world) unjoined(name string) *node {
	w.t.Helper()
	n := &node{w: w}
	n.cfg.StateDir, n.cfg.Hostname, n.cfg.Version = filepath.Join(w.t.TempDir(), name), name, "test"
	n.cfg.UDP.Off = true
	n.begin()
	return n
}

func (w *world) person(name string) ops.Actor {
	w.t.Helper()
	u, err := ops.Do(w.t.Context(), w.svc, ops.Root(), ops.CreateUser{Name: name})
	if err != nil {
		w.t.Fatal(err)
	}
	return ops.Actor{UserID: u.ID, User: u.Name, Role: ops.RoleMember, Via: ops.ViaConsole}
}

func kindOf(err error) status.Kind {
	var e *status.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Kind
}

// A laptop joins without a token. It asks nothing of a server that it does not know, says
// what a person has to compare, and is that person's who approves it.
func TestAsk(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := newWorldOf(t, setup{site: s})
	pi := w.node("kitchen-pi", "device")
	pi.echo()
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.SetPolicy{Text: `{"rules":[{"from":["user:alice"],"to":["*"],"ports":["*"]}]}`}); err != nil {
		t.Fatal(err)
	}
	alice := w.person("alice")
	laptop := w.unjoined("notebook")

	before := w.requests.Load()
	a := laptop.asks("")
	if err := soon(t, a.done); kindOf(err) != status.KindDenied || !strings.Contains(err.Error(), s.fingerprint()) {
		t.Errorf("an unknown certificate: %v", err)
	}
	if got := soon(t, a.codes); got.Fingerprint != s.fingerprint() || got.Code != "" {
		t.Errorf("%+v", got)
	}
	a = laptop.asks(strings.Repeat("AB:", 31) + "AB")
	if err := soon(t, a.done); kindOf(err) != status.KindDenied || !strings.Contains(err.Error(), "another than the one given") {
		t.Errorf("another fingerprint: %v", err)
	}
	for fingerprint, server := range map[string]string{"AB:CD": "https://" + w.addr, "": "http://" + w.addr, "\x00": "https://u:p@" + w.addr} {
		if err := laptop.Ask(t.Context(), server, fingerprint, nil); kindOf(err) != status.KindUsage {
			t.Errorf("%q, %q: %v", server, fingerprint, err)
		}
	}
	if list, err := w.svc.Requests(t.Context(), ops.Root()); err != nil || len(list) != 0 || laptop.Status().State != status.StateUnjoined {
		t.Errorf("%d requests after %d calls, %v", len(list), w.requests.Load()-before, err)
	}

	a = laptop.asks(strings.ToLower(s.fingerprint()))
	shown := soon(t, a.codes)
	if shown.URL != "https://"+w.addr+"/approve?code="+shown.Code || time.Until(shown.Expires) > api.AskLife {
		t.Errorf("%+v", shown)
	}
	if err := soon(t, laptop.asks(s.fingerprint()).done); err == nil || !strings.Contains(err.Error(), "another weft up") {
		t.Errorf("a second one: %v", err)
	}
	d, err := ops.Do(t.Context(), w.svc, alice, ops.ApproveRequest{Code: shown.Code})
	if err != nil || d.Name != "notebook" || d.User != "alice" {
		t.Fatalf("%+v, %v", d, err)
	}
	if err := soon(t, a.done); err != nil {
		t.Fatal(err)
	}
	// The device fetches what the rules let this new one do a moment later.
	eventually(t, 20*time.Second, "the device lets it in", func() bool { return laptop.reaches("kitchen-pi") == nil })
	// Once more does no harm, and asks nobody.
	if err := soon(t, laptop.asks(s.fingerprint()).done); err != nil {
		t.Error(err)
	}
	laptop.restart()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "again")

	// The pin of the server CA is as good, and a second network is refused.
	other := w.unjoined("other")
	a = other.asks(w.svc.Pins().Server)
	if _, err := ops.Do(t.Context(), w.svc, alice, ops.ApproveRequest{Code: soon(t, a.codes).Code}); err != nil {
		t.Fatal(err)
	}
	if err := soon(t, a.done); err != nil {
		t.Error(err)
	}
	second := newWorldOf(t, setup{site: newSite(t)})
	err = other.Ask(t.Context(), "https://"+second.addr, second.setup.site.fingerprint(), func(status.Asked) { t.Error("it asked") })
	if kindOf(err) != status.KindUsage || !strings.Contains(err.Error(), "another network") {
		t.Error(err)
	}
}

// What does not end in approval says so plainly, and leaves nothing behind.
func TestAskEnds(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := newWorldOf(t, setup{site: s})
	laptop := w.unjoined("notebook")
	waiting := func() int {
		list, err := w.svc.Requests(context.Background(), ops.Root())
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}

	a := laptop.asks(s.fingerprint())
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.DenyRequest{Word: soon(t, a.codes).Code}); err != nil {
		t.Fatal(err)
	}
	if err := soon(t, a.done); kindOf(err) != status.KindDenied || !strings.Contains(err.Error(), "denied") {
		t.Errorf("denied: %v", err)
	}

	a = laptop.asks(s.fingerprint())
	soon(t, a.codes)
	if waiting() != 1 {
		t.Errorf("%d wait", waiting())
	}
	a.end()
	if err := soon(t, a.done); !errors.Is(err, context.Canceled) || waiting() != 0 {
		t.Errorf("ended: %v, %d wait", err, waiting())
	}

	// The server is restarted: the code of before is good for nothing, there is a new one.
	a = laptop.asks(s.fingerprint())
	first := soon(t, a.codes)
	w.stopServer()
	l, err := w.listen()
	if err != nil {
		t.Fatal(err)
	}
	w.startServer(l)
	next := soon(t, a.codes)
	if next.Code == first.Code {
		t.Error("the same code")
	}
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.ApproveRequest{Code: first.Code}); !errors.Is(err, ops.ErrNotFound) {
		t.Errorf("the code of before: %v", err)
	}

	// The node is ended while it waits: nobody can approve what nobody waits for. It
	// begins again as the same device.
	laptop.stop()
	if err := soon(t, a.done); !errors.Is(err, context.Canceled) || waiting() != 0 {
		t.Errorf("ended: %v, %d wait", err, waiting())
	}
	laptop.begin()
	a = laptop.asks(s.fingerprint())
	d, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.ApproveRequest{Code: soon(t, a.codes).Code})
	if err != nil {
		t.Fatal(err)
	}
	if err := soon(t, a.done); err != nil || laptop.id() != d.ID {
		t.Fatal(err)
	}
	laptop.wait("")
}

// Somebody in between who answers for the site leads nobody astray: what the site says is
// proved by the link, or refused. A server of before says what to do.
func TestAskLies(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := newWorldOf(t, setup{site: s})
	evil := newWorldOf(t, setup{site: newSite(t)})
	laptop := w.unjoined("notebook")
	truth, theirs := w.svc.Pins(), evil.svc.Pins()
	for name, c := range map[string]struct {
		lie         api.Pins
		fingerprint string
		says        string
	}{
		"another network":          {api.Pins{Server: truth.Server, Network: theirs.Network, URLs: truth.URLs}, s.fingerprint(), "of another network"},
		"another server":           {api.Pins{Server: theirs.Server, Network: truth.Network, URLs: truth.URLs}, s.fingerprint(), "another server than its public site says"},
		"elsewhere, by the CA":     {theirs, truth.Server, "another than the one given"},
		"another network, by CA":   {api.Pins{Server: truth.Server, Network: theirs.Network, URLs: theirs.URLs}, truth.Server, "of another network"},
		"no pins":                  {api.Pins{Server: "x", Network: "y"}, s.fingerprint(), "without a token"},
		"an older server":          {api.Pins{}, s.fingerprint(), "without a token"},
		"somebody who knows a pin": {api.Pins{Server: truth.Server}, truth.Server, "without a token"},
	} {
		s.lie.Store(&c.lie)
		s.old.Store(name == "an older server")
		err := laptop.Ask(t.Context(), "https://"+w.addr, c.fingerprint, func(a status.Asked) {
			if a.Code != "" {
				t.Errorf("%s: it shows a code", name)
			}
		})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if st := laptop.Status(); st.State != status.StateUnjoined {
			t.Errorf("%s: %s", name, st.State)
		}
	}
}
