package dns

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// loops finds resolvers that ask us what we ask them: a question for a random
// name goes to each, once after the start and each change of the network; when
// it arrives here, that resolver is not asked any more.
type loops struct {
	mu     sync.Mutex
	probes map[string]*upstream // by name; bounded by the upstreams
}

// returned reports whether name is one of the probes, and stops asking the
// upstream that it was sent to.
func (l *loops) returned(name string) bool {
	l.mu.Lock()
	u := l.probes[name]
	l.mu.Unlock()
	if u == nil {
		return false
	}
	if !u.looped.Swap(true) {
		u.f.s.cfg.Log.Warn("dns: a resolver sends our own questions back to us and is not asked any more", "resolver", u.String())
		u.end() // what it was asked already
	}
	return true
}

// lookForLoop sends the probe, unless that was done or nobody could send it
// back: a resolver without a port of its own is in no loop.
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
