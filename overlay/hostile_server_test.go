package overlay_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"weft/coord/ops"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/status"
)

// lies is a coordination server whose answers a test alters.
type lies struct {
	path atomic.Pointer[string]
	lie  atomic.Pointer[func(w io.Writer, truth []byte)]
	told atomic.Int64
}

func (l *lies) tell(path string, lie func(w io.Writer, truth []byte)) {
	l.path.Store(&path)
	l.lie.Store(&lie)
	l.told.Store(0)
}

func (l *lies) stop() { l.lie.Store(nil) }

func (l *lies) api(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lie := l.lie.Load()
		if lie == nil || r.URL.Path != *l.path.Load() {
			h.ServeHTTP(w, r)
			return
		}
		r.URL.RawQuery = strings.ReplaceAll(r.URL.RawQuery, "since=", "x=") // so that the answer is always full
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		w.Header().Set(api.TimeHeader, rec.Header().Get(api.TimeHeader))
		(*lie)(w, rec.Body.Bytes())
		l.told.Add(1)
	})
}

func lieJSON[T any](f func(*T)) func(io.Writer, []byte) {
	return func(w io.Writer, truth []byte) {
		var v T
		if err := json.Unmarshal(truth, &v); err != nil {
			panic(err)
		}
		f(&v)
		json.NewEncoder(w).Encode(v)
	}
}

// nudge makes a node fetch everything.
func (w *world) nudgeAll() {
	ops.Do(w.t.Context(), w.svc, ops.Root(), ops.SetPolicy{Text: startingPolicy(w.policies.Add(1))})
}

// startingPolicy is the starting policy, different each time.
func startingPolicy(n int64) string {
	return fmt.Sprintf(`{"rules":[{"from":["user:*"],"to":["self"],"ports":["*"]},{"from":["user:nobody%d"],"to":["self"],"ports":["tcp:1"]}]}`, n)
}

// Whatever is in a server's configuration, a node uses only permitted parts, and
// otherwise keeps its own.
func TestHostileConfig(t *testing.T) {
	t.Parallel()
	var l lies
	w := newWorldOf(t, setup{api: l.api})
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "before")
	relays := laptop.Relays()
	for name, lie := range map[string]func(io.Writer, []byte){
		"everything is overlay": lieJSON(func(c *api.Config) { c.Self.IPv4Prefix = "0.0.0.0/0" }),
		"100 MB":                func(w io.Writer, _ []byte) { endless(w, 100<<20) },
	} {
		l.tell("/v1/config", lie)
		w.nudgeAll()
		eventually(t, 20*time.Second, name+": the lie is told", func() bool { return l.told.Load() >= 2 })
		if names := laptop.Names(); names.IPv4.Bits() < 8 || !names.IPv4.Contains(netip.MustParseAddr(laptop.Status().Self.IPv4)) {
			t.Errorf("%s: the overlay is %v", name, names.IPv4)
		}
		if got := laptop.Relays(); len(got) != len(relays) {
			t.Errorf("%s: relays %+v", name, got)
		}
	}
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "meanwhile")
	l.tell("/v1/config", lieJSON(func(c *api.Config) {
		c.Relays = append(c.Relays, api.Relay{ID: "f", URLs: []string{"file:///etc/passwd"}}, api.Relay{ID: "h", URLs: []string{"http://example.com"}},
			api.Relay{ID: "u", URLs: []string{"https://user:secret@example.com"}}, api.Relay{ID: "p", URLs: []string{"https://example.com/x?y"}})
		for i := range 10_000 {
			c.DNS.Search = append(c.DNS.Search, fmt.Sprintf("suffix-%d.example", i))
		}
	}))
	w.nudgeAll()
	eventually(t, 60*time.Second, "the lie is told", func() bool { return l.told.Load() >= 2 })
	time.Sleep(100 * time.Millisecond)
	if got := laptop.Relays(); len(got) != len(relays) {
		t.Errorf("relays that nobody should use: %+v", got)
	}
	l.stop()
	w.nudgeAll()
	eventually(t, 20*time.Second, "the truth again", func() bool { return len(laptop.Status().Health) == 0 })
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "after")
}

// A directory or a lookup cannot make a node use its own or public addresses for a
// device, mistake one device for another, or run out of memory.
func TestHostileDirectory(t *testing.T) {
	var l lies
	w := newWorldOf(t, setup{api: l.api})
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	other := w.node("attic-pi", "device")
	eventually(t, 20*time.Second, "the directory", func() bool { return len(laptop.Status().Peers) == 2 })
	make1 := func(name, v4 string) []byte {
		key, err := cert.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		der, err := w.auth.Network.SignNode(&key.PublicKey, cert.Attributes{
			Name: name, FQDN: name + ".weft.internal", User: "owner",
			IPv4: netip.MustParseAddr(v4), IPv6: netip.MustParseAddr(pi.Status().Self.IPv6).Next().Next().Next().Next(),
		}, cert.NewSerial(), time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	forged := map[string][]byte{
		"me":      make1("me", laptop.Status().Self.IPv4),
		"dns":     make1("dns", "8.8.8.8"),
		"router":  make1("router", "192.168.1.1"),
		"garbage": []byte("not a certificate"),
	}
	l.tell("/v1/directory", lieJSON(func(d *api.Directory) {
		for _, der := range forged {
			d.Peers = append(d.Peers, api.Peer{Certificate: der, Online: true})
		}
	}))
	laptop.fetchesDirectory(&l)
	// The device that was added and removed to cause the fetch may be listed a moment
	// longer.
	eventually(t, 60*time.Second, "only the two real ones are left", func() bool {
		peers := laptop.Status().Peers
		for _, p := range peers {
			if forged[p.Name] != nil {
				t.Fatalf("%s at %s is in the directory", p.Name, p.IPv4)
			}
		}
		return len(peers) == 2
	})
	// A million meaningless entries, and an endless body.
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, lie := range []func(io.Writer, []byte){
		func(w io.Writer, truth []byte) {
			io.WriteString(w, `{"version":{"epoch":1,"n":1},"full":false,"peers":[`)
			io.Copy(w, io.LimitReader(repeat(`{"certificate":"AA=="},`), 7<<20/23*23))
			io.WriteString(w, `{"certificate":"AA=="}]}`)
		},
		func(w io.Writer, _ []byte) { endless(w, 64<<20) },
	} {
		l.tell("/v1/directory", lie)
		laptop.fetchesDirectory(&l)
	}
	// The last answer has been sent, and may still be being read.
	eventually(t, 60*time.Second, "the memory is given back", func() bool {
		runtime.GC()
		runtime.ReadMemStats(&after)
		return int64(after.HeapAlloc)-int64(before.HeapAlloc) <= 32<<20
	})
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "meanwhile")
	// A name that is looked up, and another device's certificate for an answer.
	attic := other.Status().Self
	truth, err := w.svc.FindDevice(t.Context(), attic.ID)
	if err != nil {
		t.Fatal(err)
	}
	l.tell("/v1/lookup", func(w io.Writer, _ []byte) { json.NewEncoder(w).Encode(api.Peer{Certificate: truth.Certificate}) })
	if p, err := laptop.Resolve(t.Context(), "cellar-pi"); err == nil || status.KindOf(err) == status.KindUnknown {
		t.Errorf("cellar-pi is %+v, %v", p, err)
	}
	l.stop()
	laptop.touchDirectory()
	eventually(t, 60*time.Second, "the truth again", func() bool {
		st := laptop.Status()
		truth, err := w.svc.FindDevice(t.Context(), attic.ID)
		return err == nil && len(st.Health) == 0 && len(st.Peers) == 2 && slices.ContainsFunc(st.Peers, func(p status.PeerStatus) bool { return p.Name == truth.Name })
	})
}

// fetchesDirectory makes the node fetch the directory twice: who asks again has dealt with
// the first answer. The first change in a second comes with the nudge, and causes a fetch
// only if it does not fit.
func (n *node) fetchesDirectory(l *lies) {
	n.w.t.Helper()
	// Each touch takes a node, whose memory counts: not more of them than needed.
	var touched time.Time
	eventually(n.w.t, 60*time.Second, "the lie is told", func() bool {
		if l.told.Load() >= 2 {
			return true
		}
		if time.Since(touched) > 2*time.Second {
			n.touchDirectory()
			touched = time.Now()
		}
		return false
	})
}

// touchDirectory changes the directory twice: it adds and removes a device, since renames
// are limited per day. No two have the same name: a node warns of that.
func (n *node) touchDirectory() {
	spare := n.w.node(fmt.Sprintf("spare-pi-%d", n.w.policies.Add(1)), "device")
	id, err := cert.ParseNodeID(spare.Status().Self.ID)
	spare.stop()
	if err == nil {
		_, err = ops.Do(n.w.t.Context(), n.w.svc, ops.Root(), ops.DeleteDevice{ID: id})
	}
	if err != nil {
		n.w.t.Fatal(err)
	}
}

type repeat string

func (r repeat) Read(p []byte) (int, error) {
	n := 0
	for n+len(r) <= len(p) {
		n += copy(p[n:], r)
	}
	return n, nil
}

// endless writes n bytes of JSON that never ends, until a write fails.
func endless(w io.Writer, n int) {
	block := bytes.Repeat([]byte("["), 1<<16)
	for ; n > 0; n -= len(block) {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}
