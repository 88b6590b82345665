package metrics

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"weft/overlay/relay/relayserver"
)

func TestLoopbackOnly(t *testing.T) {
	for addr, good := range map[string]bool{
		"127.0.0.1:0": true, "[::1]:0": true, "localhost:0": true, ":9273": false, "0.0.0.0:9273": false, "192.0.2.1:9273": false, "[::]:1": false, "9273": false, "example.com:80": false,
	} {
		if err := CheckAddr(addr); (err == nil) != good {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestServed(t *testing.T) {
	q := NewRequests()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/config", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotModified) })
	mux.HandleFunc("/", http.NotFound)
	for _, path := range []string{"/v1/config", "/v1/config", "/x", "/y"} {
		q.Count(mux).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
	}
	m, err := Listen(t.Context(), "127.0.0.1:0", "1.2.3", slog.New(slog.DiscardHandler), q.Collect,
		Relay(func() relayserver.Stats { return relayserver.Stats{Clients: 7, Bytes: 12345} }),
		Gauge("weft_server_devices", "Devices.", "state", func() map[string]float64 { return map[string]float64{"online": 3, "offline": 4} }))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	res, err := http.Get("http://" + m.l.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	for _, want := range []string{
		`weft_build_info{version="1.2.3"} 1`, "weft_relay_clients 7", "weft_relay_bytes_total 12345", `weft_server_devices{state="offline"} 4`,
		`weft_server_requests_total{code="304",route="GET /v1/config"} 2`, `weft_server_requests_total{code="404",route="other"} 2`, "go_goroutines", "process_open_fds",
	} {
		if !strings.Contains(string(b), want+"\n") && !strings.Contains(string(b), want+" ") {
			t.Errorf("want %s in\n%s", want, b)
		}
	}
	for _, path := range []string{"/", "/debug/pprof/"} {
		res, err := http.Get("http://" + m.l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}
