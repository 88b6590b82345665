package overlay_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/coord/store"
	"weft/overlay/api"
)

// reports sets whether the devices with a tag report introductions.
func (w *world) reports(tag string, on bool) {
	w.t.Helper()
	c := ops.EditAudit{Report: []string{tag}}
	if !on {
		c = ops.EditAudit{NoReport: []string{tag}}
	}
	if _, err := ops.Do(w.t.Context(), w.svc, ops.Root(), c); err != nil {
		w.t.Fatal(err)
	}
}

// claims returns what devices claim.
func (w *world) claims() []store.Introduction {
	w.t.Helper()
	list, err := w.svc.Introductions(w.t.Context(), ops.Root(), ops.IntroductionQuery{})
	if err != nil {
		w.t.Fatal(err)
	}
	return list.Introductions
}

// carriers notes which requests carried introductions, and in whose.
type carriers struct {
	mu   sync.Mutex
	seen map[string]int // by method and path; mu guards it
}

func (c *carriers) api(h http.Handler) http.Handler {
	c.seen = map[string]int{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(api.IntroductionsHeader) != "" {
			c.mu.Lock()
			c.seen[r.Method+" "+r.URL.Path]++
			c.mu.Unlock()
		}
		h.ServeHTTP(w, r)
	})
}

func (c *carriers) count() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.seen {
		n += k
	}
	return n
}

// A device whose owner wants to know reports who introduced themselves to it, with the
// next thing that it asks anyway, and says in its status that it does. Others report
// nothing.
func TestReportsIntroductions(t *testing.T) {
	t.Parallel()
	var c carriers
	w := newWorldOf(t, setup{api: c.api})
	pi, attic, laptop := w.node("kitchen-pi", "camera"), w.node("attic", "sensor"), w.node("laptop")
	pi.echo()
	attic.echo()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "unasked")
	if pi.Status().Self.ReportsIntroductions {
		t.Error("it reports unasked")
	}
	w.reports("camera", true)
	eventually(t, 20*time.Second, "the device knows that it reports", func() bool { return pi.Status().Self.ReportsIntroductions })
	laptop.restart()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "asked")
	say(t, laptop.dial("tcp", "attic:7"), "asked")
	// The next thing that it asks anyway: another configuration.
	w.reports("door", true)
	eventually(t, 20*time.Second, "the server knows", func() bool { return len(w.claims()) > 0 })
	if !slices.ContainsFunc(w.claims(), func(i store.Introduction) bool { return i.Inbound }) {
		t.Errorf("nobody introduced himself: %+v", w.claims())
	}
	for _, i := range w.claims() {
		if i.DeviceName != "kitchen-pi" || i.Device != pi.id() || i.Peer != laptop.id() || i.Name != "laptop" || i.User != "admin" || i.Count < 1 || i.Paths == "" || i.Suites == "" || i.Doubts != "" {
			t.Errorf("%+v", i)
		}
	}
	if attic.Status().Self.ReportsIntroductions {
		t.Error("a device of another tag reports")
	}
	// It is kept from a restart that it reports; what it counted is not.
	pi.restart()
	if !pi.Status().Self.ReportsIntroductions {
		t.Error("after a restart it does not know")
	}
	w.reports("camera", false)
	eventually(t, 20*time.Second, "the device knows that it does not report", func() bool { return !pi.Status().Self.ReportsIntroductions })
}

// A server that does not know of introductions ignores them, and the device goes on
// counting within its bounds. One before this date does not set the switch either.
func TestReportsToOldServer(t *testing.T) {
	t.Parallel()
	var c carriers
	strip := func(h http.Handler) http.Handler {
		return c.api(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del(api.IntroductionsHeader)
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				if k != api.IntroductionsHeader {
					w.Header()[k] = v
				}
			}
			w.WriteHeader(rec.Code)
			w.Write(rec.Body.Bytes())
		}))
	}
	w := newWorldOf(t, setup{api: strip})
	pi, laptop := w.node("kitchen-pi", "camera"), w.node("laptop")
	pi.echo()
	w.reports("camera", true)
	eventually(t, 20*time.Second, "the device reports", func() bool { return pi.Status().Self.ReportsIntroductions })
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "hello")
	began := time.Now()
	for i := range 3 {
		asked := w.requests.Load()
		w.reports(fmt.Sprint("other-", i), true)
		eventually(t, 20*time.Second, "the device asks for its configuration", func() bool { return c.count() > 0 && w.requests.Load() > asked })
	}
	if most := 1 + int(time.Since(began)/time.Minute); c.count() > most {
		t.Errorf("it said the same %d times, at most %d", c.count(), most)
	}
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "hello again")
	if len(w.claims()) > 0 {
		t.Error("an old server took something")
	}
}

// Reporting costs nothing while the device is idle: no request is made for its sake, and
// no more bytes than without.
func dayReporting(w *dayWorld, day time.Duration) {
	idle := func() (requests, bytes int64) {
		time.Sleep(30 * time.Minute) // the tunnel ends
		r, b := w.requests.Load(), w.pi.bytes.Load()
		time.Sleep(day)
		return w.requests.Load() - r, w.pi.bytes.Load() - b
	}
	requests, bytes := idle()
	w.reports("device", true)
	for !w.pi.Status().Self.ReportsIntroductions {
		time.Sleep(time.Second)
	}
	time.Sleep(time.Minute) // until the laptop has the new configuration too
	before := w.requests.Load()
	for range 3 { // in three hours
		w.talk(time.Minute)
		time.Sleep(time.Hour)
	}
	if n := w.requests.Load() - before; n != 0 {
		w.t.Errorf("%d requests because of introductions", n)
	}
	again, more := idle()
	w.t.Logf("idle for %v: %d requests and %d bytes; reporting: %d and %d", day, requests, bytes, again, more)
	if again != requests || more > bytes+bytes/20+200 {
		w.t.Errorf("idle: %d requests and %d bytes, without reporting %d and %d", again, more, requests, bytes)
	}
	if len(w.claims()) > 0 {
		w.t.Error("the server knows already")
	}
	w.reports("other", true) // the device asks for its configuration
	for end := time.Now().Add(time.Minute); len(w.claims()) < 3 && time.Now().Before(end); {
		time.Sleep(time.Second)
	}
	hours := map[int]bool{}
	for _, i := range w.claims() {
		hours[i.First.Hour()] = true
		if i.Name != "laptop" || !i.Inbound || i.Doubts != "" || !strings.Contains(i.Paths, "direct") {
			w.t.Errorf("%+v", i)
		}
	}
	if len(hours) < 3 {
		w.t.Errorf("%+v", w.claims())
	}
}
