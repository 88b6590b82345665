package ops

import (
	"crypto/rand"
	"crypto/sha256"
	"net/netip"
	"strings"
	"sync"
	"time"

	"weft/coord/ratelimit"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// Devices that ask to be let in are held in memory only: anybody can ask, and nothing
// that a stranger does should reach the disk. A restart of the server loses them; the
// devices notice and ask anew (api.AskUnknown). What was approved is a device, in the
// database.
//
// A request never gives way to a newer one of the same source, and only to one of
// another source while the first source has several. So whoever floods the table drives
// out only their own.
const (
	maxAsks       = 1000
	maxAsksOf     = 16 // waiting, of one source: an address, or a /64
	codeLength    = 10 // with 28 symbols: 48 bits
	denyingFor    = 10 * time.Second
	maxAskedNames = 10_000 // of the limiters
)

// codeSymbols are what codes are made of: no vowels, so that no words appear, and none
// that look alike.
const codeSymbols = "BCDFGHJKLMNPQRSTVWXZ23456789"

var (
	// askLimit bounds how often one source asks, tryLimit how many wrong codes one account
	// may try, and tryLimitFrom those of one source, where several people may be.
	askLimit     = ratelimit.Limit{Burst: 30, Per: time.Minute}
	tryLimit     = ratelimit.Limit{Burst: 5, Per: api.AskLife}
	tryLimitFrom = ratelimit.Limit{Burst: 30, Per: api.AskLife}
)

// ask is one device that waits, or about which somebody has decided a moment ago.
type ask struct {
	newcomer
	signIn  bool   // it has joined, and is to be signed in again
	id      string // for lists: it is not the code
	from    netip.Addr
	at      time.Time
	code    [32]byte // hash
	state   string   // api.AskWaiting, AskApproved or AskDenied
	by      string   // who decided
	denying time.Time
}

func (a *ask) expires() time.Time { return a.at.Add(api.AskLife) }

// source is what a request counts for.
func (a *ask) source() netip.Addr { return SourceOf(a.from) }

// asks is the table. Its methods take the time, and may be called from many goroutines.
type asks struct {
	asking, tries *ratelimit.Limiter

	mu     sync.Mutex // guards the following
	byNode map[cert.NodeID]*ask
	byCode map[[32]byte]*ask
}

func newAsks() *asks {
	return &asks{
		asking: ratelimit.New(maxAskedNames), tries: ratelimit.New(maxAskedNames),
		byNode: map[cert.NodeID]*ask{}, byCode: map[[32]byte]*ask{},
	}
}

// newCode returns a code as people see it: XXXXX-XXXXX.
func newCode() string {
	var b strings.Builder
	var random [1]byte
	for b.Len() < codeLength+1 {
		if b.Len() == codeLength/2 {
			b.WriteByte('-')
		}
		rand.Read(random[:])
		if n := int(random[0]); n < 256/len(codeSymbols)*len(codeSymbols) { // each is as likely
			b.WriteByte(codeSymbols[n%len(codeSymbols)])
		}
	}
	return b.String()
}

// hashAsk returns the hash of a code as somebody typed it: in small letters, with other
// separators or none. ok says whether it can be a code at all.
func hashAsk(typed string) (hash [32]byte, ok bool) {
	if len(typed) > 4*codeLength {
		return hash, false
	}
	bare := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" -_.\t\r\n", r) {
			return -1
		}
		return r
	}, strings.ToUpper(typed))
	if len(bare) != codeLength || strings.Trim(bare, codeSymbols) != "" {
		return hash, false
	}
	return sha256.Sum256([]byte(bare)), true
}

// add enters a, in place of an earlier request of the same device, and returns its code;
// "" if there is no room.
func (t *asks) add(a ask, now time.Time) (code string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(now)
	if old := t.byNode[a.node()]; old != nil {
		t.dropLocked(old)
	}
	if !t.roomLocked(a.source()) {
		return ""
	}
	code = newCode()
	a.id, a.at, a.state = newID(), now, api.AskWaiting
	a.code, _ = hashAsk(code)
	t.byNode[a.node()], t.byCode[a.code] = &a, &a
	return code
}

// node is the device.
func (a *ask) node() cert.NodeID { return a.caller.id }

func (t *asks) expireLocked(now time.Time) {
	for _, a := range t.byNode {
		if !now.Before(a.expires()) || now.Before(a.at.Add(-api.AskLife)) { // or the clock was put back
			t.dropLocked(a)
		}
	}
}

func (t *asks) dropLocked(a *ask) {
	delete(t.byNode, a.node())
	delete(t.byCode, a.code)
}

// roomLocked makes room for one request of a source, if there is some.
func (t *asks) roomLocked(source netip.Addr) bool {
	waiting := map[netip.Addr]int{}
	var decided *ask
	for _, a := range t.byNode {
		if a.state == api.AskWaiting {
			waiting[a.source()]++
		} else if decided == nil || a.at.Before(decided.at) {
			decided = a
		}
	}
	// Behind a proxy that is not trusted to name its clients, all of them come from
	// loopback.
	if waiting[source] >= maxAsksOf && !source.IsLoopback() {
		return false
	}
	if len(t.byNode) < maxAsks {
		return true
	}
	if decided != nil {
		t.dropLocked(decided)
		return true
	}
	// The newest one of the source that has most, if that would still have more than
	// the newcomer's.
	var worst *ask
	for _, a := range t.byNode {
		n, m := waiting[a.source()], 0
		if worst != nil {
			m = waiting[worst.source()]
		}
		if n > m || n == m && a.at.After(worst.at) {
			worst = a
		}
	}
	if worst.source() == source || waiting[worst.source()] <= waiting[source]+1 {
		return false
	}
	t.dropLocked(worst)
	return true
}

// of returns how a device's request stands, the zero value for unknown.
func (t *asks) of(id cert.NodeID, now time.Time) ask {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(now)
	if a := t.byNode[id]; a != nil {
		return *a
	}
	return ask{}
}

// with returns the request with a code.
func (t *asks) with(hash [32]byte, now time.Time) (ask, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(now)
	if a := t.byCode[hash]; a != nil {
		return *a, true
	}
	return ask{}, false
}

// all returns every request, in no order.
func (t *asks) all(now time.Time) []ask {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(now)
	list := make([]ask, 0, len(t.byNode))
	for _, a := range t.byNode {
		list = append(list, *a)
	}
	return list
}

// end drops the request of a device that no longer waits. What was decided stays, for
// whoever decides about it too.
func (t *asks) end(id cert.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.byNode[id]; a != nil && a.state == api.AskWaiting {
		t.dropLocked(a)
	}
}

// decide notes what was decided about the request with this code, if it is still there.
func (t *asks) decide(hash [32]byte, state, by string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.byCode[hash]; a != nil {
		a.state, a.by = state, by
	}
}

// deny claims a request for a denial that is about to be written: in the same batch of
// writes nobody can approve it. If the write fails, the claim ends by itself.
func (t *asks) deny(hash [32]byte, by string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.byCode[hash]; a != nil {
		a.denying, a.by = now.Add(denyingFor), by
	}
}
