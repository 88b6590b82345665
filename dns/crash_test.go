package dns

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// words is a log that a test reads while others write to it.
type words struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *words) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.b.Reset()
	return w.b.String()
}

// A query whose handler panics is answered with SERVFAIL, the stack is in the log, and
// the resolver keeps running.
func TestCrashesAreSurvived(t *testing.T) {
	var log words
	zone := *testZone
	zone.Complete = false
	s := New(Config{
		Zone: func() *Zone { return &zone },
		Log:  slog.New(slog.NewTextHandler(&log, nil)),
		Lookup: func(_ context.Context, name string, _ netip.Addr) (Host, error) {
			if strings.HasPrefix(name, "crash-lookup") {
				panic("crash in lookup")
			}
			return Host{}, ErrNotFound
		},
		Dial:       func(_ context.Context, network, address string) (net.Conn, error) { panic("crash in dial") },
		ResolvConf: writeConf(t, "192.0.2.53"),
	})
	defer s.Close()
	stages := s.stages
	s.stages = append([]stage{func(q *query) (*answer, later) {
		switch name, _, _ := strings.Cut(q.name, "."); name {
		case "crash-now":
			panic("crash at once")
		case "crash-later":
			return nil, func(context.Context) *answer { panic("crash in the rest") }
		}
		return nil, nil
	}}, stages...)
	pc, l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(pc, l)
	addr := l.Addr().String()
	for _, network := range []string{"udp", "tcp"} {
		// Earlier answers are cached, so each query has another name.
		for _, name := range []string{"crash-now.example." + network + ".", "crash-later.example." + network + ".", "crash-lookup-" + network + ".weft.internal.", network + ".example.com."} {
			log.take()
			if r := ask(t, addr, network, name, dns.TypeA); r.Rcode != dns.RcodeServerFailure {
				t.Errorf("%s over %s: %s", name, network, dns.RcodeToString[r.Rcode])
			}
			if said := log.take(); !strings.Contains(said, "a request crashed") || !strings.Contains(said, "TestCrashesAreSurvived") {
				t.Errorf("%s over %s: no stack in the log: %q", name, network, said)
			}
			if r := ask(t, addr, network, "kitchen-pi.weft.internal.", dns.TypeA); answers(r) != "100.64.0.2" {
				t.Errorf("after %s over %s: %s", name, network, r)
			}
		}
	}
	if _, err := s.Query(t.Context(), "kitchen-pi", "A"); err != nil {
		t.Error(err)
	}
	if n := len(s.busy); n != 0 {
		t.Errorf("%d slots are still in use", n)
	}
	if e := s.lookup(t.Context(), s.current(), "crash-lookup", netip.Addr{}); e == nil || e.found || e.err == nil || errors.Is(e.err, ErrNotFound) {
		t.Errorf("the failed lookup is %+v", e)
	}
}
