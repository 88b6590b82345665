package overlay_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/overlay"
	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/relay"
	"weft/overlay/status"
)

// lists is a coordination server that sends list, if set, in place of the real revocation
// list. It counts requests and bytes.
type lists struct {
	list   atomic.Pointer[[]byte]
	former atomic.Bool // behave like earlier servers, without ETag and length of a list

	asked, sent atomic.Int64

	mu sync.Mutex
	// mu guards the following.
	times map[string]int // by node and number of the real list: how often it was asked for
}

func (l *lists) api(h http.Handler) http.Handler {
	l.times = map[string]int{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/crl" || r.Method != http.MethodGet {
			h.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		if l.former.Load() {
			r.Header.Del("If-None-Match")
		}
		h.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		if list := l.list.Load(); list != nil && rec.Code == http.StatusOK {
			body = *list
		}
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.Header().Del("Content-Length")
		if l.former.Load() {
			w.Header().Del("ETag")
		} else if len(body) > 64<<10 {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		w.WriteHeader(rec.Code)
		for rest := body; len(rest) > 0; { // as long as somebody reads
			n, err := w.Write(rest[:min(len(rest), 4<<10)])
			if l.sent.Add(int64(n)); err != nil {
				break
			}
			http.NewResponseController(w).Flush()
			rest = rest[n:]
		}
		l.asked.Add(1)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.times[string(r.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo)+rec.Header().Get("ETag")]++
	})
}

func (l *lists) total() (asked, sent int64) { return l.asked.Load(), l.sent.Load() }

func (n *node) health(code status.Code) string {
	for _, h := range n.Status().Health {
		if h.Code == code {
			return h.Message
		}
	}
	return ""
}

// deletes deletes a device, which makes a new revocation list.
func (w *world) deletes(name string) {
	w.t.Helper()
	d, err := w.svc.FindDevice(w.t.Context(), name)
	if err == nil {
		_, err = ops.Do(w.t.Context(), w.svc, ops.Root(), ops.DeleteDevice{ID: d.ID})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// A useless revocation list prevents neither a configuration that denies everything nor
// the renewal. It is fetched only once, and health reports it with the time. The next
// list is taken, and the warning ends.
func TestRefusedListHoldsNothingUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		former bool
		list   []byte
	}{
		"too long":            {false, make([]byte, cert.MaxCRL+100<<10)},
		"too long, former":    {true, make([]byte, cert.MaxCRL+100<<10)},
		"not genuine":         {false, bytes.Repeat([]byte{0x30}, 100<<10)},
		"not genuine, former": {true, bytes.Repeat([]byte{0x30}, 100<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var l lists
			l.former.Store(c.former)
			w := newWorldOf(t, setup{evil: true, api: l.api})
			pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
			pi.echo()
			w.node("first", "device").stop()
			w.node("second", "device").stop()
			say(t, laptop.dial("tcp", "kitchen-pi:7"), "before")
			laptop.stop() // only one counts
			before := pi.CRLNumber()
			asked0, _ := l.total()
			w.evil.mute.Store(true)
			l.list.Store(&c.list)

			w.deletes("first")
			if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.SetPolicy{Text: `{"rules":[]}`}); err != nil {
				t.Fatal(err)
			}
			if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.RenameDevice{ID: pi.id(), Name: "pantry-pi"}); err != nil {
				t.Fatal(err)
			}
			eventually(t, 20*time.Second, "the certificate is renewed", func() bool { return pi.Status().Self.Name == "pantry-pi" })
			eventually(t, 20*time.Second, "the missing list is told of", func() bool { return pi.health("revocation-list") != "" })
			said := pi.health("revocation-list")
			if !strings.Contains(said, "since "+time.Now().UTC().Format("2006-")) || pi.health("server-offline") != "" {
				t.Errorf("health: %+v", pi.Status().Health)
			}
			laptop.start()
			wantKind(t, laptop.dialFails("pantry-pi:7", 3*time.Second), status.KindUnknown)
			laptop.stop()

			// It is announced again and again, and everything else keeps working.
			eventually(t, 20*time.Second, "the first fetch ends", func() bool { n, _ := l.total(); return n > asked0 })
			for range 3 {
				w.nudgeAll()
				want := w.svc.Versions(pi.id()).Config
				eventually(t, 20*time.Second, "a configuration", func() bool { return pi.Versions().Config == want })
			}
			if pi.CRLNumber() != before {
				t.Error("the list was taken")
			}

			l.list.Store(nil)
			w.deletes("second")
			want := w.svc.Versions(pi.id()).CRL
			eventually(t, 20*time.Second, "the next list is taken", func() bool { return pi.CRLNumber() == want })
			eventually(t, 20*time.Second, "nothing is wrong any more", func() bool { return len(pi.Status().Health) == 0 })
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, n := range l.times {
				if n > 1 {
					t.Errorf("a node has asked %d times for the same list", n)
				}
			}
		})
	}
}

// A relay announces a new number with each nudge. The node requests the list less and
// less often, whether the server's list is useful or not, and the server does not send
// again what the node has.
func TestRelayAnnouncesListsThatAreNotThere(t *testing.T) {
	t.Parallel()
	for _, former := range []bool{false, true} {
		t.Run(fmt.Sprintf("former=%v", former), func(t *testing.T) {
			t.Parallel()
			var l lists
			l.former.Store(former)
			w := newWorldOf(t, setup{evil: true, api: l.api})
			pi := w.node("kitchen-pi", "device")
			w.node("first", "device").stop()
			w.deletes("first")
			want := w.svc.Versions(pi.id()).CRL
			eventually(t, 20*time.Second, "the list", func() bool { return pi.CRLNumber() == want })
			asked0, sent0 := l.total()
			// For 12 seconds, in which every two of them could bring a fetch.
			begun := time.Now()
			for i := uint64(1); time.Since(begun) < 12*time.Second; i++ {
				v := w.svc.Versions(pi.id())
				v.CRL += 1000 + i
				w.evil.say(pi.id(), relay.TypeNudge, relay.Nudge{Versions: v})
				time.Sleep(20 * time.Millisecond)
			}
			asked, sent := l.total()
			if n := asked - asked0; n < 1 || n > 4 {
				t.Errorf("asked %d times", n)
			}
			if n := sent - sent0; !former && n > 0 {
				t.Errorf("%d bytes of what the node knows", n)
			}
			if h := pi.Status().Health; len(h) > 0 {
				t.Errorf("health because of what a relay says: %+v", h)
			}
		})
	}
}

// A disk that hangs or is full delays nothing: revoked nodes and removed rights are
// dropped at once. When the disk works again, everything is saved.
func TestDiskPutsNothingOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var fault atomic.Pointer[error]
	hang := make(chan struct{})
	var hangs atomic.Bool
	pi := &node{w: w, cfg: overlay.Config{StateDir: filepath.Join(t.TempDir(), "pi"), Hostname: "kitchen-pi", Token: w.token(ops.CreateKey{Tags: []string{"device"}})}}
	pi.cfg.UDP.Off = true
	pi.prepare = func(n *overlay.Node) {
		n.BreakDisk(func(string) error {
			if hangs.Load() {
				<-hang
			}
			if err := fault.Load(); err != nil {
				return *err
			}
			return nil
		})
	}
	pi.start()
	pi.echo()
	laptop, other := w.node("laptop"), w.node("other-laptop")
	connected := func(name string) bool {
		for _, p := range pi.Status().Peers {
			if p.Name == name && p.Path == status.PathRelay {
				return true
			}
		}
		return false
	}
	for _, n := range []*node{laptop, other} {
		say(t, n.dial("tcp", "kitchen-pi:7"), "before")
	}
	full := error(syscall.ENOSPC)
	fault.Store(&full)
	w.deletes("laptop")
	eventually(t, 10*time.Second, "the disk is full: the tunnel ends", func() bool { return !connected("laptop") })
	eventually(t, 10*time.Second, "health says so", func() bool { return strings.Contains(pi.health("state-directory"), "the revocation list") })

	hangs.Store(true)
	w.nudgeAll() // something to write, and to hang in
	want := w.svc.Versions(pi.id()).Config
	eventually(t, 20*time.Second, "the disk hangs: a configuration is taken", func() bool { return pi.Versions().Config == want })
	w.deletes("other-laptop")
	number := w.svc.Versions(pi.id()).CRL
	eventually(t, 10*time.Second, "the disk hangs: the tunnel ends", func() bool { return !connected("other-laptop") && pi.CRLNumber() == number })

	hangs.Store(false)
	close(hang)
	fault.Store(nil)
	eventually(t, 30*time.Second, "the disk works: health is well", func() bool { return pi.health("state-directory") == "" })
	w.away.Store(true)
	w.stopRelay()
	pi.stop()
	again, err := os.ReadFile(filepath.Join(pi.cfg.StateDir, "crl.der"))
	if err != nil {
		t.Fatal(err)
	}
	if list, err := w.auth.Roots.VerifyCRL(again); err != nil || list.Number != number {
		t.Errorf("on disk is %+v, %v, want number %d", list, err, number)
	}
	l, err := w.listen()
	if err != nil {
		t.Fatal(err)
	}
	w.startRelay(l)
}

// Joining again with the same token does not forget deleted nodes.
func TestJoinAgainKeepsTheList(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, setup{evil: true})
	pi := w.node("kitchen-pi", "device")
	w.node("first", "device").stop()
	w.deletes("first")
	want := w.svc.Versions(pi.id()).CRL
	eventually(t, 20*time.Second, "the list", func() bool { return pi.CRLNumber() == want })
	w.evil.mute.Store(true)
	if err := pi.Up(t.Context(), pi.cfg.Token); err != nil {
		t.Fatal(err)
	}
	if pi.CRLNumber() != want {
		t.Errorf("number %d, want %d", pi.CRLNumber(), want)
	}
}

// The configuration on disk is a cache: one that does not fit the identity is ignored.
func TestConfigOfAnotherTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi := w.node("kitchen-pi", "device")
	pi.stop()
	file := filepath.Join(pi.cfg.StateDir, "config.json")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other, err := cert.NewCA("another", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	lie := lieJSON(func(c *api.Config) { c.NetworkCAs = [][]byte{other.Cert.Raw} })
	var out bytes.Buffer
	lie(&out, b)
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	pi.start()
	pi.echo()
	laptop := w.node("laptop")
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "as ever")
}
