package metrics

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"weft/overlay/promtext"
)

// Requests counts the requests to a handler, by the pattern that matched and the status of the
// answer.
type Requests struct {
	mu     sync.Mutex // guards the following
	total  map[answer]uint64
	routes map[string]*histogram
}

type answer struct {
	route string
	code  int
}

// histogram counts requests by how long they took.
type histogram struct {
	upTo  [len(bounds)]uint64 // requests that took at most bounds[i]
	count uint64
	sum   float64 // seconds
}

var bounds = [...]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10} // seconds

// NewRequests returns Requests without any counts.
func NewRequests() *Requests {
	return &Requests{total: map[answer]uint64{}, routes: map[string]*histogram{}}
}

// Count returns a handler that counts the requests to h.
func (q *Requests) Count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		s := &statusWriter{ResponseWriter: w, code: http.StatusOK}
		h.ServeHTTP(s, r)
		route := r.Pattern // the mux has few patterns, so there are few routes
		if route == "/" || route == "" {
			route = "other"
		}
		q.add(route, s.code, time.Since(start).Seconds())
	})
}

func (q *Requests) add(route string, code int, seconds float64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total[answer{route, code}]++
	h := q.routes[route]
	if h == nil {
		h = &histogram{}
		q.routes[route] = h
	}
	h.count++
	h.sum += seconds
	for i, bound := range bounds {
		if seconds <= bound {
			h.upTo[i]++
		}
	}
}

// Collect is a Collector of the counts.
func (q *Requests) Collect(t *promtext.Text) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.total) == 0 {
		return
	}
	const total, seconds = "weft_server_requests_total", "weft_server_request_seconds"
	t.Head(total, promtext.Counter, "Requests of nodes and relays, by route and status.")
	for _, a := range slices.SortedFunc(maps.Keys(q.total), func(a, b answer) int { return cmp.Or(cmp.Compare(a.route, b.route), cmp.Compare(a.code, b.code)) }) {
		t.Value(total, float64(q.total[a]), "code", strconv.Itoa(a.code), "route", a.route)
	}
	t.Head(seconds, promtext.Histogram, "How long requests took. Those of relays include the time in which they wait for news.")
	for _, route := range slices.Sorted(maps.Keys(q.routes)) {
		h := q.routes[route]
		for i, bound := range bounds {
			t.Value(seconds+"_bucket", float64(h.upTo[i]), "route", route, "le", promtext.Number(bound))
		}
		t.Value(seconds+"_bucket", float64(h.count), "route", route, "le", "+Inf")
		t.Value(seconds+"_sum", h.sum, "route", route)
		t.Value(seconds+"_count", float64(h.count), "route", route)
	}
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
