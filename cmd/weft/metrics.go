package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"weft/cmd/internal/cli"
	"weft/overlay/cause"
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
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		writeMetrics(w, status(), d.dns.Counters())
	})
	d.metrics = &http.Server{Handler: serve, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 60 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	go func() {
		if err := d.metrics.Serve(d.metricsListener); !errors.Is(err, http.ErrServerClosed) {
			d.failed <- fmt.Errorf("metrics: %w", err)
		}
	}()
}

// writeMetrics writes Prometheus' text format. It counts peers and does not name them.
func writeMetrics(w io.Writer, st status.Status, queries map[string]uint64) {
	write := func(name, kind, help string) { fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind) }
	yes := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	write("weft_build_info", "gauge", "Always 1; the version of the program.")
	fmt.Fprintf(w, "weft_build_info{version=%s} 1\n", labelValue(cli.Version()))
	write("weft_control_connected", "gauge", "Whether the server answered the last request.")
	fmt.Fprintf(w, "weft_control_connected %d\n", yes(st.Server.Online))
	write("weft_relay_connected", "gauge", "Whether this node is connected to a relay.")
	fmt.Fprintf(w, "weft_relay_connected %d\n", yes(st.Self.Online))
	if t := st.Self.CertificateExpires; t != nil {
		write("weft_key_expiry_timestamp_seconds", "gauge", "When this device's certificate ends, by weft time.")
		fmt.Fprintf(w, "weft_key_expiry_timestamp_seconds %d\n", t.Unix())
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
	write("weft_peers", "gauge", "Peers that this node knows, by their current path.")
	kinds := slices.Collect(maps.Keys(peers))
	sort.Slice(kinds, func(i, j int) bool { return slices.Compare(kinds[i][:], kinds[j][:]) < 0 })
	for _, k := range kinds {
		fmt.Fprintf(w, "weft_peers{state=%s,path=%s} %d\n", labelValue(k[0]), labelValue(k[1]), peers[k])
	}
	write("weft_tunnels_received_bytes", "gauge", "Bytes received by the tunnels that are up now.")
	fmt.Fprintf(w, "weft_tunnels_received_bytes %d\n", rx)
	write("weft_tunnels_sent_bytes", "gauge", "Bytes sent by the tunnels that are up now.")
	fmt.Fprintf(w, "weft_tunnels_sent_bytes %d\n", tx)

	warnings := map[status.Code]int{}
	for _, h := range st.Health {
		warnings[h.Code]++
	}
	write("weft_health_warnings", "gauge", "The warnings of weft status.")
	for _, code := range slices.Sorted(maps.Keys(warnings)) {
		fmt.Fprintf(w, "weft_health_warnings{code=%s} %d\n", labelValue(string(code)), warnings[code])
	}
	write("weft_dns_queries_total", "counter", "Queries to the resolver, by result.")
	for _, outcome := range slices.Sorted(maps.Keys(queries)) {
		fmt.Fprintf(w, "weft_dns_queries_total{outcome=%s} %s\n", labelValue(outcome), strconv.FormatUint(queries[outcome], 10))
	}
}

// labelValue quotes a label value.
func labelValue(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}
