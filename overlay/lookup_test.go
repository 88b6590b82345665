package overlay_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/api"
	"weft/overlay"
	"weft/overlay/cert"
)

// lookUp has the server tell nodes to look names up, as it does where there are
// many, and counts the lookups.
func lookUp(lookups *atomic.Int64) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/lookup" {
				lookups.Add(1)
			}
			if r.URL.Path != "/v1/join" && r.URL.Path != "/v1/config" {
				h.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			body := rec.Body.Bytes()
			switch {
			case rec.Code != http.StatusOK:
			case r.URL.Path == "/v1/join":
				var res api.JoinResponse
				if json.Unmarshal(body, &res) == nil {
					res.Config.Lookup = true
					body, _ = json.Marshal(res)
				}
			default:
				var c api.Config
				if json.Unmarshal(body, &c) == nil {
					c.Lookup = true
					body, _ = json.Marshal(c)
				}
			}
			maps.Copy(w.Header(), rec.Header())
			w.WriteHeader(rec.Code)
			w.Write(body)
		})
	}
}

// TestB17LookedUpNames: a node that looks names up hears of a change of those it
// remembers, at once, and asks for each again when it is used; one that remembers
// none hears nothing.
func TestB17LookedUpNames(t *testing.T) {
	var lookups, told atomic.Int64
	w := newWorldOf(t, setup{look: true, api: lookUp(&lookups)})
	pi := w.node("kitchen-pi", "device")
	laptop := w.nodeOf("laptop", overlay.Config{NamesChanged: func() { told.Add(1) }})
	id, err := cert.ParseNodeID(pi.Status().Self.ID)
	if err != nil {
		t.Fatal(err)
	}
	rename := func(to string) {
		t.Helper()
		if _, err := w.svc.RenameDevice(t.Context(), id, to, nil); err != nil {
			t.Fatal(err)
		}
	}
	name := func(asked string) string {
		p, err := laptop.Resolve(t.Context(), asked)
		if err != nil {
			return err.Error()
		}
		return p.Name
	}
	if got := name("kitchen-pi"); got != "kitchen-pi" {
		t.Fatal(got)
	}
	for range 3 {
		name("kitchen-pi")
		name("attic-pi") // does not exist
	}
	if n := lookups.Load(); n != 2 {
		t.Errorf("%d lookups for two names", n)
	}
	round, heard := laptop.Names().LookedUp, told.Load()
	start := time.Now()
	rename("attic-pi")
	eventually(t, 5*time.Second, "the laptop hears of it", func() bool { return laptop.Names().LookedUp != round })
	for asked, want := range map[string]string{"attic-pi": "attic-pi", "kitchen-pi": "attic-pi"} { // the latter is a former name now
		if got := name(asked); got != want {
			t.Errorf("%s: %s, want %s", asked, got, want)
		}
	}
	t.Logf("the new name is seen after %v", time.Since(start).Round(time.Millisecond))
	if told.Load() == heard {
		t.Error("whoever remembers names is not told")
	}
	// Nothing is remembered from here on, until somebody asks: many changes
	// are not heard of one by one.
	rename("cellar-pi")
	eventually(t, 5*time.Second, "the laptop hears of it", func() bool { return told.Load() == heard+2 })
	asked := lookups.Load()
	for _, to := range []string{"hall-pi", "roof-pi", "shed-pi"} {
		rename(to)
	}
	w.relay.Notify(w.svc.Network().ID, nil)
	time.Sleep(300 * time.Millisecond)
	if n := told.Load(); n != heard+2 || lookups.Load() != asked {
		t.Errorf("a laptop that uses no names heard of %d changes and looked up %d times", n-heard, lookups.Load()-asked)
	}
	if got := name("shed-pi"); got != "shed-pi" {
		t.Error(got)
	}
	// It subscribed with what it had heard last, and hears at once that there
	// was more.
	eventually(t, 5*time.Second, "the laptop hears of what it missed", func() bool { return told.Load() == heard+3 })
}
