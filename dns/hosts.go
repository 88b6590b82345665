package dns

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"

	"weft/overlay/limited"
)

// maxHosts bounds the cached lookups.
const maxHosts = 2000

// hosts caches the devices that were looked up on the server, and the names and
// addresses that the server does not know. Concurrent equal questions share one lookup.
type hosts struct {
	mu sync.Mutex
	// mu guards the following.
	state   *state // that the entries belong to
	entries map[string]*hostEntry
	flights map[string]*hostFlight
}

// hostEntry is the server's reply. It is immutable.
type hostEntry struct {
	host  Host
	found bool
	err   error
	until time.Time
}

type hostFlight struct {
	done  chan struct{}
	entry *hostEntry // set before done is closed
}

// get returns the cached entry of key, or nil.
func (h *hosts) get(st *state, key string) *hostEntry {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != st {
		h.state, h.entries = st, nil
		return nil
	}
	if e := h.entries[key]; e != nil && time.Now().Before(e.until) {
		return e
	}
	return nil
}

func (h *hosts) clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.entries = nil
}

// ask asks the server, or waits for a lookup of the same key. The error is ctx's. name
// is relative to the zone; if it is empty, addr is looked up.
func (h *hosts) ask(ctx context.Context, s *Server, st *state, key, name string, addr netip.Addr) (*hostEntry, error) {
	h.mu.Lock()
	f := h.flights[key]
	if e := h.entries[key]; f == nil && e != nil && h.state == st && time.Now().Before(e.until) {
		h.mu.Unlock()
		return e, nil // the answer came since the first check
	}
	if f == nil {
		f = &hostFlight{done: make(chan struct{})}
		if h.flights == nil {
			h.flights = map[string]*hostFlight{}
		}
		h.flights[key] = f
		// A goroutine of its own: the other queries go on when the first gives up.
		started := s.start(func() {
			ctx, cancel := context.WithTimeout(s.ctx, budget)
			defer cancel()
			e := s.lookup(ctx, st, name, addr)
			h.mu.Lock()
			defer h.mu.Unlock()
			delete(h.flights, key)
			if h.state == st {
				if h.entries == nil || len(h.entries) >= maxHosts {
					h.entries = map[string]*hostEntry{} // they expire within seconds anyway
				}
				h.entries[key] = e
			}
			f.entry = e
			close(f.done)
		})
		if !started {
			delete(h.flights, key)
			h.mu.Unlock()
			return nil, context.Canceled
		}
	}
	h.mu.Unlock()
	select {
	case <-f.done:
		return f.entry, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// lookup calls Config.Lookup and accepts only a reply about the right host.
func (s *Server) lookup(ctx context.Context, st *state, name string, addr netip.Addr) (e *hostEntry) {
	defer limited.Survive(s.cfg.Log, "dns", func(err error) {
		e = &hostEntry{err: err, until: time.Now().Add(time.Second)}
	})
	s.count(&s.counts.lookups)
	h, err := s.cfg.Lookup(ctx, name, addr)
	e = &hostEntry{host: h, until: time.Now().Add(time.Duration(st.rules.ttl) * time.Second)}
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		s.cfg.Log.Debug("dns: the server could not be asked") // the error contains the name
		e.err, e.until = err, time.Now().Add(time.Second)
	case name != "" && !strings.EqualFold(h.Name, name) && (!strings.EqualFold(h.Former, name) || !validLabel(h.Name)), addr.IsValid() && h.IPv4 != addr && h.IPv6 != addr:
		s.cfg.Log.Debug("dns: the server answered for another host")
	default:
		e.found = true
	}
	return e
}
