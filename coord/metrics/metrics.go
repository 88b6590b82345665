// Package metrics serves what the server and its relays count, for Prometheus:
// GET /metrics on a loopback address of its own, never on a public one.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"weft/overlay/relay/relayserver"
)

// Listener serves metrics until it is closed.
type Listener struct {
	l   net.Listener
	srv *http.Server
	wg  sync.WaitGroup
}

// CheckAddr refuses an address that others could reach: metrics have no
// password.
func CheckAddr(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--metrics %q: want ADDR:PORT, such as 127.0.0.1:9273", addr)
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("--metrics %s: it has no password and must be on loopback, such as 127.0.0.1:9273", addr)
}

// Listen serves the collectors, and what the process uses, at addr.
func Listen(ctx context.Context, addr, version string, log *slog.Logger, list ...prometheus.Collector) (*Listener, error) {
	if err := CheckAddr(addr); err != nil {
		return nil, err
	}
	h, err := Handler(version, list...)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--metrics: %w", err)
	}
	m := &Listener{l: l, srv: &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 60 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}}
	m.wg.Go(func() {
		if err := m.srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are no longer served", "err", err)
		}
	})
	return m, nil
}

// Close ends it.
func (m *Listener) Close() error {
	err := m.srv.Close()
	m.wg.Wait()
	return err
}

// Handler serves GET /metrics.
func Handler(version string, list ...prometheus.Collector) (http.Handler, error) {
	reg := prometheus.NewRegistry()
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weft_build_info", Help: "Always 1; the version of the program."}, []string{"version"})
	build.WithLabelValues(version).Set(1)
	for _, c := range append([]prometheus.Collector{build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})}, list...) {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	return mux, nil
}

// Relay collects what a relay counts.
func Relay(stats func() relayserver.Stats) prometheus.Collector {
	return &relay{stats, []series[relayserver.Stats]{
		gauge("weft_relay_clients", "Nodes that are connected.", func(s relayserver.Stats) float64 { return float64(s.Clients) }),
		counter("weft_relay_bytes_total", "Bytes of packets and introductions taken in.", func(s relayserver.Stats) float64 { return float64(s.Bytes) }),
		counter("weft_relay_dropped_bytes_total", "Bytes of those that found no room.", func(s relayserver.Stats) float64 { return float64(s.Dropped) }),
		counter("weft_relay_refused_total", "Connections refused.", func(s relayserver.Stats) float64 { return float64(s.Refused) }),
		counter("weft_relay_replaced_total", "Connections that a newer one of the same node replaced.", func(s relayserver.Stats) float64 { return float64(s.Replaced) }),
		gauge("weft_relay_lanes", "Pairs of nodes that use UDP.", func(s relayserver.Stats) float64 { return float64(s.Lanes) }),
		counter("weft_relay_lane_bytes_total", "Bytes sent on by UDP.", func(s relayserver.Stats) float64 { return float64(s.LaneBytes) }),
		counter("weft_relay_lane_dropped_bytes_total", "Bytes by UDP that found no room or no way, or were too many.", func(s relayserver.Stats) float64 { return float64(s.LaneDropped) }),
	}}
}

type relay struct {
	stats  func() relayserver.Stats
	series []series[relayserver.Stats]
}

// series is one number out of a T.
type series[T any] struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	get  func(T) float64
}

func gauge[T any](name, help string, get func(T) float64) series[T] {
	return series[T]{prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, get}
}

func counter[T any](name, help string, get func(T) float64) series[T] {
	return series[T]{prometheus.NewDesc(name, help, nil, nil), prometheus.CounterValue, get}
}

func (c *relay) Describe(out chan<- *prometheus.Desc) {
	for _, s := range c.series {
		out <- s.desc
	}
}

func (c *relay) Collect(out chan<- prometheus.Metric) {
	st := c.stats()
	for _, s := range c.series {
		out <- prometheus.MustNewConstMetric(s.desc, s.kind, s.get(st))
	}
}

// Gauge collects one number, by the values of a label, "" for no label.
func Gauge(name, help, label string, get func() map[string]float64) prometheus.Collector {
	var labels []string
	if label != "" {
		labels = []string{label}
	}
	return &labelled{prometheus.NewDesc(name, help, labels, nil), label != "", get}
}

type labelled struct {
	desc *prometheus.Desc
	has  bool
	get  func() map[string]float64
}

func (g *labelled) Describe(out chan<- *prometheus.Desc) { out <- g.desc }

func (g *labelled) Collect(out chan<- prometheus.Metric) {
	for k, v := range g.get() {
		var values []string
		if g.has {
			values = []string{k}
		}
		out <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, v, values...)
	}
}

// Requests counts the requests that a handler answers, by the pattern that
// matched and the status.
type Requests struct {
	total   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

// NewRequests makes its counters.
func NewRequests() *Requests {
	return &Requests{
		total:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_server_requests_total", Help: "Requests of nodes and relays, by route and status."}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "weft_server_request_seconds", Help: "How long they took. Relays wait in theirs for news."}, []string{"route"}),
	}
}

// Describe and Collect make it a prometheus.Collector.
func (q *Requests) Describe(out chan<- *prometheus.Desc) {
	q.total.Describe(out)
	q.seconds.Describe(out)
}

// Collect is the other half.
func (q *Requests) Collect(out chan<- prometheus.Metric) {
	q.total.Collect(out)
	q.seconds.Collect(out)
}

// Count counts what h answers.
func (q *Requests) Count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		s := &statusWriter{ResponseWriter: w, code: http.StatusOK}
		h.ServeHTTP(s, r)
		route := r.Pattern // of the mux; there are as many as it has routes
		if route == "/" || route == "" {
			route = "other"
		}
		q.total.WithLabelValues(route, strconv.Itoa(s.code)).Inc()
		q.seconds.WithLabelValues(route).Observe(time.Since(start).Seconds())
	})
}

type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
