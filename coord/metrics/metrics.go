// Package metrics serves what the server and its relays count, for Prometheus:
// GET /metrics on a loopback address of its own, never on a public one.
//
//	metrics.go   the listener, and the counters of the relay
//	requests.go  requests, by route
//	process.go   resources of the process; process_linux.go: those that Linux reports
package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/overlay/promtext"
	"weft/overlay/relay/relayserver"
)

// A Collector appends metrics. It may be called from several goroutines at a time.
type Collector func(*promtext.Text)

// Listener serves metrics until it is closed.
type Listener struct {
	l   net.Listener
	srv *http.Server
	wg  sync.WaitGroup
}

// CheckAddr refuses an address that other machines could reach, because metrics have no password.
func CheckAddr(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--metrics %q: want ADDR:PORT, such as 127.0.0.1:9273", addr)
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("--metrics %s: metrics have no password, so the address must be on loopback, such as 127.0.0.1:9273", addr)
}

// Listen serves the collectors, and the resources of the process, at addr. The caller closes the
// Listener.
func Listen(ctx context.Context, addr, version string, log *slog.Logger, list ...Collector) (*Listener, error) {
	if err := CheckAddr(addr); err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--metrics: %w", err)
	}
	m := &Listener{l: l, srv: &http.Server{Handler: Handler(version, list...), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 60 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}}
	m.wg.Go(func() {
		if err := m.srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are no longer served", "err", err)
		}
	})
	return m, nil
}

// Close stops serving and waits for the goroutine.
func (m *Listener) Close() error {
	err := m.srv.Close()
	m.wg.Wait()
	return err
}

// Handler serves GET /metrics.
func Handler(version string, list ...Collector) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		var t promtext.Text
		t.Head("weft_build_info", promtext.Gauge, "Always 1; the version of the program.")
		t.Value("weft_build_info", 1, "version", version)
		process(&t)
		for _, c := range list {
			c(&t)
		}
		w.Header().Set("Content-Type", promtext.ContentType)
		w.Write(t.Bytes())
	})
	return mux
}

// Relay returns a collector of a relay's counters.
func Relay(stats func() relayserver.Stats) Collector {
	return func(t *promtext.Text) {
		s := stats()
		for _, m := range []struct {
			name string
			kind promtext.Kind
			help string
			v    uint64
		}{
			{"weft_relay_clients", promtext.Gauge, "Nodes that are connected.", uint64(s.Clients)},
			{"weft_relay_bytes_total", promtext.Counter, "Bytes of packets and introductions received.", uint64(s.Bytes)},
			{"weft_relay_dropped_bytes_total", promtext.Counter, "Bytes of packets and introductions that were dropped because a queue was full.", uint64(s.Dropped)},
			{"weft_relay_refused_total", promtext.Counter, "Connections refused.", uint64(s.Refused)},
			{"weft_relay_replaced_total", promtext.Counter, "Connections that a newer one of the same node replaced.", uint64(s.Replaced)},
			{"weft_relay_lanes", promtext.Gauge, "Pairs of nodes that use UDP.", uint64(s.Lanes)},
			{"weft_relay_lane_bytes_total", promtext.Counter, "Bytes forwarded by UDP.", uint64(s.LaneBytes)},
			{"weft_relay_lane_dropped_bytes_total", promtext.Counter, "Bytes by UDP that were dropped: a queue was full, there was no lane, or the rate was too high.", uint64(s.LaneDropped)},
		} {
			t.Head(m.name, m.kind, m.help)
			t.Value(m.name, float64(m.v))
		}
	}
}

// Gauge returns a collector of one gauge. get returns its values by the values of label. If
// label is "" get returns at most one value, and its key is ignored.
func Gauge(name, help, label string, get func() map[string]float64) Collector {
	return func(t *promtext.Text) {
		values := get()
		if len(values) == 0 {
			return
		}
		t.Head(name, promtext.Gauge, help)
		for _, k := range slices.Sorted(maps.Keys(values)) {
			if label == "" {
				t.Value(name, values[k])
			} else {
				t.Value(name, values[k], label, k)
			}
		}
	}
}
