package overlay_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"weft/overlay/api"
	"weft/overlay/api/wiretest"
	"weft/overlay/status"
)

// A later server sends unknown fields in every object of every answer, and rules with
// unknown words. Nodes join, find each other and communicate; unknown rules open nothing.
func TestLaterServer(t *testing.T) {
	t.Parallel()
	later := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			body := rec.Body.Bytes()
			if json.Valid(body) {
				body = wiretest.Later(t, bytes.ReplaceAll(body, []byte(`"rules":[`),
					[]byte(`"rules":[{"from":["*","planet:earth"],"ports":[{"proto":"sctp","first":0,"last":65535},{"proto":"tcp!","first":9,"last":9}]},{"from":["planet:earth"],"ports":[{"proto":"*","first":0,"last":65535}]},`)))
			}
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(rec.Code)
			w.Write(body)
		})
	}
	w := newWorldOf(t, setup{api: later})
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	other := w.node("other-pi", "device")
	pi.echo()
	laptop.echo()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "as ever")
	if c, err := other.Dial(t.Context(), "tcp", "laptop:7"); err == nil {
		c.Close()
		t.Error("a rule in unknown words let a device in")
	}
}

// A server that no longer supports this version says so. The node reports which of the
// two must be updated, keeps working with known devices, and recovers once the server
// supports it.
func TestTooOld(t *testing.T) {
	t.Parallel()
	var tooOld atomic.Bool
	w := newWorldOf(t, setup{api: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if tooOld.Load() {
				r.Header.Set(api.ProtocolHeader, "0")
			}
			h.ServeHTTP(w, r)
		})
	}})
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "before")
	health := func(code status.Code) string {
		for _, h := range laptop.Status().Health {
			if h.Code == code {
				return h.Message
			}
		}
		return ""
	}
	tooOld.Store(true)
	w.nudgeAll()
	w.until("the laptop says that it is too old", func() bool { return strings.Contains(health("version"), "update weft on the device") })
	if st := laptop.Status(); health("server-offline") != "" || !st.Server.Online || st.State != status.StateRunning {
		t.Errorf("%+v", st)
	}
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "all the same")
	tooOld.Store(false)
	w.nudgeAll()
	w.until("all is well", func() bool { return health("version") == "" })
}
