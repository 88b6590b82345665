package dns

import (
	"container/list"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of the cache of other resolvers' answers.
const (
	maxPositive  = time.Hour
	maxNegative  = 5 * time.Minute // RFC 2308
	failureTTL   = 2 * time.Second // RFC 9520: 1 s at least
	maxStale     = 24 * time.Hour  // RFC 8767
	staleTTL     = 30
	cacheEntries = 10_000
	cacheBytes   = 4 << 20
	// entryCost is the size of an entry beside its message and name, in bytes.
	entryCost = 300
)

// cacheKey is everything that an answer depends on.
type cacheKey struct {
	name   string // lower case
	qtype  uint16
	do, cd bool
	route  string
}

// entry is a cached answer. It is immutable.
type entry struct {
	key        cacheKey
	msg        []byte // packed, without OPT
	ede        []dns.EDNS0_EDE
	source     string
	stored     time.Time
	expires    time.Time
	failure    bool // SERVFAIL or similar, or, without msg, no answer
	final      bool // of a failure: it is intentional (blocked, bogus)
	noUpstream bool // of a failure: there was no upstream to ask
	cost       int
}

// cache holds the most recently used answers, within a number of entries and of bytes.
type cache struct {
	mu sync.Mutex
	// mu guards the following.
	entries map[cacheKey]*list.Element // of *entry
	order   list.List                  // most recently used first
	bytes   int
	// failures are separate, so that a failure does not replace an expired answer.
	failures map[cacheKey]*entry
}

// maxFailures bounds the failures, which are cached for seconds.
const maxFailures = 1000

// failed returns a failure that is still cached, or nil.
func (c *cache) failed(k cacheKey, now time.Time) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.failures[k]; e != nil && now.Before(e.expires) {
		return e
	}
	return nil
}

// get returns a cached answer: a fresh entry, or one that expired at most a day ago.
func (c *cache) get(k cacheKey, now time.Time) (e *entry, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.entries[k]
	if el == nil {
		return nil, false
	}
	e = el.Value.(*entry)
	switch {
	case now.Before(e.expires):
		c.order.MoveToFront(el)
		return e, true
	case now.Sub(e.expires) > maxStale:
		c.removeLocked(el)
		return nil, false
	}
	return e, false
}

// put caches an entry, unless it expires at once.
func (c *cache) put(e *entry) {
	if !e.expires.After(e.stored) {
		return
	}
	e.cost = len(e.msg) + len(e.key.name) + len(e.key.route) + len(e.source) + entryCost
	for i := range e.ede {
		e.cost += 64 + len(e.ede[i].ExtraText)
	}
	if e.cost > cacheBytes/16 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.failure {
		if c.failures == nil || len(c.failures) >= maxFailures {
			c.failures = map[cacheKey]*entry{}
		}
		c.failures[e.key] = e
		return
	}
	delete(c.failures, e.key)
	if c.entries == nil {
		c.entries = map[cacheKey]*list.Element{}
	}
	if old := c.entries[e.key]; old != nil {
		c.removeLocked(old)
	}
	c.entries[e.key] = c.order.PushFront(e)
	c.bytes += e.cost
	for c.bytes > cacheBytes || len(c.entries) > cacheEntries {
		c.removeLocked(c.order.Back())
	}
}

func (c *cache) removeLocked(el *list.Element) {
	e := c.order.Remove(el).(*entry)
	delete(c.entries, e.key)
	c.bytes -= e.cost
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries, c.bytes, c.failures = nil, 0, nil
	c.order.Init()
}

func (c *cache) size() (entries, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries), c.bytes
}

// lifetime is how long m may be cached; ok is false if it may not be.
func lifetime(m *dns.Msg) (d time.Duration, ok bool) {
	least := uint32(maxPositive / time.Second)
	positive := false
	var soa *dns.SOA
	for _, rr := range m.Answer {
		least = min(least, rr.Header().Ttl)
		t := rr.Header().Rrtype
		positive = positive || t == m.Question[0].Qtype || m.Question[0].Qtype == dns.TypeANY
	}
	for _, rr := range m.Ns {
		least = min(least, rr.Header().Ttl)
		if s, ok := rr.(*dns.SOA); ok {
			soa = s
		}
	}
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			least = min(least, rr.Header().Ttl)
		}
	}
	switch {
	case m.Truncated:
		return 0, false
	case m.Rcode == dns.RcodeSuccess && positive:
	case m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError:
		// A negative answer without an SOA does not say how long it is valid.
		if soa == nil {
			return failureTTL, true
		}
		least = min(least, soa.Minttl, uint32(maxNegative/time.Second))
	default:
		return 0, false
	}
	return time.Duration(least) * time.Second, least > 0
}

// unpack makes a message of the entry with its remaining TTLs.
func (e *entry) unpack(now time.Time, stale bool) (*dns.Msg, error) {
	m := new(dns.Msg)
	if err := m.Unpack(e.msg); err != nil {
		return nil, err
	}
	age := uint32(max(0, now.Sub(e.stored)/time.Second))
	for _, sec := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range sec {
			h := rr.Header()
			switch {
			case h.Rrtype == dns.TypeOPT:
			case stale:
				h.Ttl = staleTTL
			case age == 0:
			case h.Ttl > age:
				h.Ttl -= age
			default:
				h.Ttl = 1
			}
		}
	}
	return m, nil
}
