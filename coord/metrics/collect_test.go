package metrics

import (
	"regexp"
	"strings"
	"sync"
	"testing"

	"weft/overlay/promtext"
)

// What is written is what Prometheus' text format is, also of hostile labels.
func TestText(t *testing.T) {
	q := NewRequests()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { q.add("GET /x", 200, 0.75) })
	}
	wg.Wait()
	q.add("GET /x", 200, 0.005)
	q.add("GET /x", 503, 1000)
	var got promtext.Text
	q.Collect(&got)
	Gauge("g", "Help with \\ and\na line.", "who", func() map[string]float64 { return map[string]float64{"a\"\\\n}": 1e21, "": -0.5} })(&got)
	Gauge("nothing", "x", "", func() map[string]float64 { return nil })(&got)
	want := `# HELP weft_server_requests_total Requests of nodes and relays, by route and status.
# TYPE weft_server_requests_total counter
weft_server_requests_total{code="200",route="GET /x"} 51
weft_server_requests_total{code="503",route="GET /x"} 1
# HELP weft_server_request_seconds How long requests took. Those of relays include the time in which they wait for news.
# TYPE weft_server_request_seconds histogram
weft_server_request_seconds_bucket{route="GET /x",le="0.005"} 1
weft_server_request_seconds_bucket{route="GET /x",le="0.01"} 1
weft_server_request_seconds_bucket{route="GET /x",le="0.025"} 1
weft_server_request_seconds_bucket{route="GET /x",le="0.05"} 1
weft_server_request_seconds_bucket{route="GET /x",le="0.1"} 1
weft_server_request_seconds_bucket{route="GET /x",le="0.25"} 1
weft_server_request_seconds_bucket{route="GET /x",le="0.5"} 1
weft_server_request_seconds_bucket{route="GET /x",le="1"} 51
weft_server_request_seconds_bucket{route="GET /x",le="2.5"} 51
weft_server_request_seconds_bucket{route="GET /x",le="5"} 51
weft_server_request_seconds_bucket{route="GET /x",le="10"} 51
weft_server_request_seconds_bucket{route="GET /x",le="+Inf"} 52
weft_server_request_seconds_sum{route="GET /x"} 1037.505
weft_server_request_seconds_count{route="GET /x"} 52
# HELP g Help with \\ and\na line.
# TYPE g gauge
g{who=""} -0.5
g{who="a\"\\\n}"} 1e+21
`
	if string(got.Bytes()) != want {
		t.Errorf("got:\n%s", got.Bytes())
	}
}

// All that is served has a head before it, once, and every line is one of the format.
func TestProcess(t *testing.T) {
	var got promtext.Text
	process(&got)
	line := regexp.MustCompile(`^([a-z_]+)(\{[a-z]+="[^"]*"\})? [0-9.e+-]+$`)
	heads := map[string]bool{}
	for _, l := range strings.Split(strings.TrimSuffix(string(got.Bytes()), "\n"), "\n") {
		if name, ok := strings.CutPrefix(l, "# TYPE "); ok {
			name, _, _ = strings.Cut(name, " ")
			if heads[name] {
				t.Errorf("%s twice", name)
			}
			heads[name] = true
		} else if m := line.FindStringSubmatch(l); !strings.HasPrefix(l, "# HELP ") && (m == nil || !heads[m[1]]) {
			t.Errorf("line %q", l)
		}
	}
	for _, name := range []string{"go_info", "go_goroutines", "go_memstats_heap_alloc_bytes", "process_start_time_seconds", "process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"} {
		if !heads[name] {
			t.Errorf("no %s in\n%s", name, got.Bytes())
		}
	}
}
