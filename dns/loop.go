package dns

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// loops detects resolvers that forward our questions back to us. It sends each one a
// question for a random name, once after the start and after each change of the
// network. If that question arrives here, the resolver is no longer asked.
type loops struct {
	mu     sync.Mutex
	probes map[string]*upstream // by name; at most one per upstream
}

// returned reports whether name is one of the probes, and stops asking the upstream
// that got it.
func (l *loops) returned(name string) bool {
	l.mu.Lock()
	u := l.probes[name]
	l.mu.Unlock()
	if u == nil {
		return false
	}
	if !u.looped.Swap(true) {
		u.f.s.cfg.Log.Warn("dns: a resolver sends our own questions back to us; it is no longer asked", "resolver", u.String())
		u.end() // abort its questions in progress
	}
	return true
}

// lookForLoop sends the probe, unless that was done or no loop is possible: without a
// UDP port of our own, nothing can come back.
func (f *forwarder) lookForLoop(u *upstream) {
	if u.addr.proto != "udp" || !f.s.listening.Load() || u.probed.Swap(true) {
		return
	}
	var b [16]byte
	rand.Read(b[:])
	name := hex.EncodeToString(b[:8]) + "." + hex.EncodeToString(b[8:]) + "."
	l := &f.loops
	l.mu.Lock()
	if l.probes == nil {
		l.probes = map[string]*upstream{}
	}
	l.probes[name] = u
	l.mu.Unlock()
	forget := func() {
		l.mu.Lock()
		delete(l.probes, name)
		l.mu.Unlock()
	}
	ok := f.s.serve(func() {
		defer forget()
		ctx, cancel := context.WithTimeout(u.life, 3*time.Second)
		defer cancel()
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeHINFO)
		u.askUDP(ctx, m)
	}, nil)
	if !ok {
		forget()
	}
}
