package dns

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// outcome is the result of a query, for the counters.
type outcome uint8

const (
	outRefused outcome = iota
	outMalformed
	outLocal
	outOwn
	outCached
	outForwarded
	outStale
	outFailed
	outBusy
	outcomes
)

// outcomeNames are the stable names of the counters, for metrics.
var outcomeNames = [outcomes]string{"refused", "malformed", "local", "overlay", "cached", "forwarded", "stale", "failed", "busy"}

// counts are the resolver's counters since the start.
type counts struct {
	answered                    [outcomes]atomic.Uint64
	dropped, strangers, limited atomic.Uint64
	lookups, rebound            atomic.Uint64
}

func (c *counts) done(o outcome) { c.answered[o].Add(1) }

func (s *Server) count(c *atomic.Uint64) { c.Add(1) }

// Status is the state of the resolver.
type Status struct {
	Listen    []string          `json:"listen"`    // addresses, UDP and TCP
	Suffix    string            `json:"suffix"`    // "" while there is no configuration
	Serial    uint64            `json:"serial"`    // of the names
	Names     int               `json:"names"`     // devices in the snapshot
	Complete  bool              `json:"complete"`  // whether the snapshot has all devices; others are looked up
	Zones     []string          `json:"zones"`     // answered here
	Records   int               `json:"records"`   // extra records
	Aliases   int               `json:"aliases"`   // former names
	Search    []string          `json:"search"`    // of the settings
	Upstreams []UpstreamStatus  `json:"upstreams"` // for all names without a route
	Routes    []RouteStatus     `json:"routes"`
	Portal    bool              `json:"portal"` // whether there is a captive portal
	Cache     CacheStatus       `json:"cache"`
	Counters  map[string]uint64 `json:"counters"`
	Problems  []Problem         `json:"problems"` // of the settings
}

// RouteStatus is one route of split DNS.
type RouteStatus struct {
	Suffix    string           `json:"suffix"`
	Upstreams []UpstreamStatus `json:"upstreams"`
}

// UpstreamStatus is one resolver.
type UpstreamStatus struct {
	Address   string  `json:"address"`
	State     string  `json:"state"` // "unused", "ok", "failing" or "loop"
	Preferred bool    `json:"preferred"`
	RTTms     float64 `json:"rtt_ms"` // of the last answer, 0 until there is one
	Asked     uint64  `json:"asked"`
	Answered  uint64  `json:"answered"`
	Failed    uint64  `json:"failed"`
	Error     string  `json:"error"` // of the last failure since the last answer
}

// CacheStatus is the size of the cache.
type CacheStatus struct {
	Entries  int `json:"entries"`
	Bytes    int `json:"bytes"`
	MaxBytes int `json:"max_bytes"`
}

// Health is a problem that needs attention. It never stops the resolver.
type Health struct {
	Code    string // "dns-loop", "dns-upstream", "dns-portal", "dns-settings"
	Message string // for people, with the next step
}

// Status returns the state of the resolver. It asks no upstream.
func (s *Server) Status() Status {
	st := s.current()
	out := Status{
		Listen: []string{}, Zones: []string{}, Search: []string{}, Routes: []RouteStatus{},
		Records: 0, Aliases: len(st.rules.aliases), Portal: s.portal.now(), Problems: append([]Problem{}, st.rules.problems...),
	}
	s.mu.Lock()
	for _, a := range s.own {
		out.Listen = append(out.Listen, a.String())
	}
	s.mu.Unlock()
	out.Search = append(out.Search, st.rules.settings.Search...)
	for _, set := range st.rules.records {
		out.Records += len(set.rrs)
	}
	if ix := st.ix; ix != nil {
		out.Suffix, out.Serial, out.Complete = st.zone.Suffix, st.zone.Serial, st.zone.Complete
		out.Names = len(st.zone.Hosts)
		out.Zones = append(out.Zones, strings.TrimSuffix(ix.apex, "."))
		for _, p := range []netip.Prefix{st.zone.IPv4, st.zone.IPv6} {
			if p.IsValid() {
				out.Zones = append(out.Zones, "reverse of "+p.String())
			}
		}
	}
	for _, r := range st.rules.routes {
		up := r
		if r.servers == nil {
			up = systemRoute
		}
		out.Routes = append(out.Routes, RouteStatus{Suffix: strings.TrimSuffix(r.name, "."), Upstreams: s.fwd.status(up)})
	}
	sort.Slice(out.Routes, func(i, j int) bool { return out.Routes[i].Suffix < out.Routes[j].Suffix })
	all := systemRoute
	if st.rules.global != nil && !out.Portal {
		all = st.rules.global
	}
	out.Upstreams = s.fwd.status(all)
	out.Cache.Entries, out.Cache.Bytes = s.cache.size()
	out.Cache.MaxBytes = cacheBytes
	out.Counters = s.Counters()
	return out
}

// Counters are the counts since the start, by outcome.
func (s *Server) Counters() map[string]uint64 {
	c := map[string]uint64{
		"dropped": s.counts.dropped.Load(), "strangers": s.counts.strangers.Load(), "limited": s.counts.limited.Load(),
		"lookups": s.counts.lookups.Load(), "rebound": s.counts.rebound.Load(),
	}
	for o, name := range outcomeNames {
		c[name] = s.counts.answered[o].Load()
	}
	return c
}

// Health returns the problems, nothing if there are none.
func (s *Server) Health() []Health {
	var out []Health
	st := s.state.Load()
	if st == nil {
		return nil
	}
	if n := len(st.rules.problems); n > 0 {
		out = append(out, Health{"dns-settings", fmt.Sprintf("%d parts of the DNS settings are not used; the first is %s: %s; see: weft dns status", n, st.rules.problems[0].Part, st.rules.problems[0].Text)})
	}
	if s.portal.now() {
		out = append(out, Health{"dns-portal", "this network wants you to sign in first: open any http:// page in a browser"})
	}
	s.fwd.mu.Lock()
	var loops, dead []string
	for _, u := range s.fwd.ups {
		switch u.state() {
		case "loop":
			loops = append(loops, u.String())
		case "failing":
			dead = append(dead, u.String())
		}
	}
	crowded := s.fwd.crowded
	s.fwd.mu.Unlock()
	slices.Sort(loops)
	slices.Sort(dead)
	if len(loops) > 0 {
		out = append(out, Health{"dns-loop", "the resolver " + strings.Join(loops, ", ") + " sends this one its own questions back; it is not used until the network changes; name another one in " + s.cfg.ResolvConf})
	} else if !crowded.IsZero() && time.Since(crowded) < time.Minute {
		out = append(out, Health{"dns-loop", "the same question comes in again and again: resolvers on this machine or network seem to forward in a loop; see: weft dns status"})
	}
	if len(dead) > 0 {
		out = append(out, Health{"dns-upstream", "no answer from the resolver " + strings.Join(dead, ", ") + "; see: weft dns status"})
	}
	return out
}

// status describes the upstreams of a route.
func (f *forwarder) status(r *route) []UpstreamStatus {
	out := []UpstreamStatus{}
	ups := f.upstreams(r, time.Now())
	f.mu.Lock()
	good := f.good[r.name]
	f.mu.Unlock()
	for _, u := range ups {
		x := UpstreamStatus{
			Address: u.String(), State: u.state(), Preferred: u == good, RTTms: float64(u.lastRTT.Load()/1000) / 1000,
			Asked: u.asked.Load(), Answered: u.answered.Load(), Failed: u.failed.Load(),
		}
		if e := u.lastError.Load(); e != nil {
			x.Error = *e
		}
		out = append(out, x)
	}
	return out
}

func (u *upstream) state() string {
	switch {
	case u.looped.Load():
		return "loop"
	case u.lastError.Load() != nil:
		return "failing"
	case u.answered.Load() > 0:
		return "ok"
	}
	return "unused"
}

func (p *portal) now() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.is
}

// Flush drops everything learnt from other resolvers and returns how many answers that
// were.
func (s *Server) Flush() int {
	n, _ := s.cache.size()
	s.forget()
	return n
}

// logQuery logs a question, if the settings ask for it. The name is hashed: equal names
// look equal until the next start.
func (s *Server) logQuery(q *query) {
	if q.st.rules.settings.QueryLog {
		var b [8]byte
		h := maphash.String(s.hashKey, q.name)
		for i := range b {
			b[i] = byte(h >> (8 * i))
		}
		s.cfg.Log.LogAttrs(context.Background(), slog.LevelInfo, "dns: query", slog.String("name", hex.EncodeToString(b[:])), slog.String("type", dns.Type(q.q.Qtype).String()))
	}
}
