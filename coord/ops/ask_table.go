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

// Requests of devices that ask to join are kept in memory only: anybody can send one, and
// strangers should not be able to fill the disk. When the server restarts the requests are
// lost; the devices notice (api.AskUnknown) and ask again. An approved request becomes a
// device in the database.
//
// If the table is full, a new request may replace one that has been decided, or else a waiting
// one from a source that has more requests than the new one's source. So somebody who floods
// the table displaces only their own requests.
const (
	maxAsks       = 1000
	maxAsksOf     = 16               // waiting requests from one source: an IPv4 address, or an IPv6 /64
	codeLength    = 10               // of 28 symbols: 48 bits
	denyingFor    = 10 * time.Second // see asks.deny
	maxAskedNames = 10_000           // that each limiter remembers
)

// codeSymbols are the symbols of codes. There are no vowels, so that no words appear, and no
// symbols that look alike.
const codeSymbols = "BCDFGHJKLMNPQRSTVWXZ23456789"

var (
	// askLimit bounds the requests from one source, tryLimit the wrong codes that one account
	// may try, and tryLimitFrom the wrong codes from one source, which several people may
	// share.
	askLimit     = ratelimit.Limit{Burst: 30, Per: time.Minute}
	tryLimit     = ratelimit.Limit{Burst: 5, Per: api.AskLife}
	tryLimitFrom = ratelimit.Limit{Burst: 30, Per: api.AskLife}
)

// ask is the request of one device, which waits or was decided a moment ago.
type ask struct {
	newcomer
	signIn  bool   // the device has joined, and asks its owner to sign it in again
	id      string // names the request in lists, which do not contain the code
	from    netip.Addr
	at      time.Time
	code    [32]byte  // hash of the code
	state   string    // api.AskWaiting, AskApproved or AskDenied
	by      string    // who decided
	denying time.Time // until then the request is being denied: see asks.deny
}

func (a *ask) expires() time.Time { return a.at.Add(api.AskLife) }

// source is the network to which the limits by source apply.
func (a *ask) source() netip.Addr { return SourceOf(a.from) }

// asks is the table of requests. Its methods may be called from many goroutines.
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
		if n := int(random[0]); n < 256/len(codeSymbols)*len(codeSymbols) { // so that all symbols are equally likely
			b.WriteByte(codeSymbols[n%len(codeSymbols)])
		}
	}
	return b.String()
}

// hashAsk returns the hash of a code as a person typed it, perhaps in lower case, and with
// other separators or none. ok is false if no code looks like this.
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

// add adds a request, in place of an earlier one of the same device, and returns its code, or
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

// node is the id of the device.
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

// roomLocked makes room for one more request from a source. It returns false if there is none.
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
	// Loopback has no such limit: behind a reverse proxy that is not in --trusted-proxy all
	// requests come from there.
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
	// Drop the newest request of the source that has the most, unless the new request's source
	// would then have more.
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

// of returns the request of a device, the zero value if there is none.
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

// end drops the request of a device that no longer waits. A request that was decided stays, so
// that a second person who decides is told what was decided.
func (t *asks) end(id cert.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.byNode[id]; a != nil && a.state == api.AskWaiting {
		t.dropLocked(a)
	}
}

// decide sets the decision about the request with this code, if it is still there.
func (t *asks) decide(hash [32]byte, state, by string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.byCode[hash]; a != nil {
		a.state, a.by = state, by
	}
}

// deny marks a request as being denied until the denial is written, so that nobody can approve
// it in the same batch of writes. If the write fails, the mark ends after denyingFor.
func (t *asks) deny(hash [32]byte, by string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.byCode[hash]; a != nil {
		a.denying, a.by = now.Add(denyingFor), by
	}
}
