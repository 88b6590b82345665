package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sort"
	"time"

	"weft/cmd/internal/cli"
	"weft/overlay/cause"
	"weft/overlay/promtext"
	"weft/overlay/status"
)

// listenMetrics opens the port for Prometheus, on loopback only, since it has no
// password.
func listenMetrics(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, usagef("%q: want ADDR:PORT, such as 127.0.0.1:9274", addr)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return nil, usagef("%s: want a loopback address, such as 127.0.0.1:9274, since there is no password", addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", addr, cause.Of(err))
	}
	return l, nil
}

// serveMetrics serves /metrics until the listener is closed.
func (d *services) serveMetrics(status func() status.Status, log *slog.Logger) {
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", promtext.ContentType)
		w.Write(metricsText(status(), d.dns.Counters()))
	})
	d.metrics = &http.Server{Handler: serve, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 60 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	go func() {
		if err := d.metrics.Serve(d.metricsListener); !errors.Is(err, http.ErrServerClosed) {
			d.failed <- fmt.Errorf("metrics: %w", err)
		}
	}()
}

// metricsText counts peers and does not name them.
func metricsText(st status.Status, queries map[string]uint64) []byte {
	var t promtext.Text
	one := func(name, help string, v float64, labels ...string) {
		t.Head(name, promtext.Gauge, help)
		t.Value(name, v, labels...)
	}
	yes := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	one("weft_build_info", "Always 1; the version of the program.", 1, "version", cli.Version())
	one("weft_control_connected", "Whether the server answered the last request.", yes(st.Server.Online))
	one("weft_relay_connected", "Whether this node is connected to a relay.", yes(st.Self.Online))
	if end := st.Self.CertificateExpires; end != nil {
		one("weft_key_expiry_timestamp_seconds", "When this device's certificate ends, by weft time.", float64(end.Unix()))
	}

	peers := map[[2]string]int{}
	var rx, tx uint64
	for _, p := range st.Peers {
		state, path := "offline", string(p.Path)
		if p.Online {
			state = "online"
		}
		if path == "" {
			path = "none"
		}
		peers[[2]string{state, path}]++
		rx += p.RxBytes
		tx += p.TxBytes
	}
	t.Head("weft_peers", promtext.Gauge, "Peers that this node knows, by their current path.")
	kinds := slices.Collect(maps.Keys(peers))
	sort.Slice(kinds, func(i, j int) bool { return slices.Compare(kinds[i][:], kinds[j][:]) < 0 })
	for _, k := range kinds {
		t.Value("weft_peers", float64(peers[k]), "state", k[0], "path", k[1])
	}
	one("weft_tunnels_received_bytes", "Bytes received by the tunnels that are up now.", float64(rx))
	one("weft_tunnels_sent_bytes", "Bytes sent by the tunnels that are up now.", float64(tx))

	warnings := map[status.Code]int{}
	for _, h := range st.Health {
		warnings[h.Code]++
	}
	t.Head("weft_health_warnings", promtext.Gauge, "The warnings of weft status.")
	for _, code := range slices.Sorted(maps.Keys(warnings)) {
		t.Value("weft_health_warnings", float64(warnings[code]), "code", string(code))
	}
	t.Head("weft_dns_queries_total", promtext.Counter, "Queries to the resolver, by result.")
	for _, outcome := range slices.Sorted(maps.Keys(queries)) {
		t.Value("weft_dns_queries_total", float64(queries[outcome]), "outcome", outcome)
	}
	return t.Bytes()
}
