package homes

import (
	"slices"
	"sort"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/relay"
)

// Where a peer is, when there is more than one relay: at the relay that the
// directory named; if that says no, or cannot be reached, where the server
// says now; else at ours, or at the others in the order in which the peer
// itself moves when it loses its home (relay.Order). So nodes find each other
// while the server is away.
const (
	maxAsked     = 8 // relays, for one introduction
	maxQuestions = 2 // to the server, for the same
)

// FinderConfig is what a Finder knows of the rest.
type FinderConfig struct {
	// Relays returns the relays that there are now.
	Relays func() []api.Relay
	// Home is the Relay.ID of this node's, and Hint of the peer's as far as is known;
	// "" when it is not.
	Home, Hint func() string
	// Shuns reports whether a relay could not be reached a moment ago.
	Shuns func(relayID string) bool
	// Behind reports whether there may be a newer list of relays than this node's.
	Behind func() bool
	// Where asks the server where the peer is. It does not wait: the answer, one in
	// any case, comes after patience at the latest.
	Where func(patience time.Duration) <-chan Whereabouts
	// Away: the server did not answer when it was last asked for something.
	Away bool
	// AskTime is how long the server has to answer, GoneTime the same when there is
	// nothing else to try.
	AskTime, GoneTime time.Duration
}

// Whereabouts is what the server says of a peer.
type Whereabouts struct {
	Online  bool
	Relay   string // Relay.ID
	Unknown bool   // not online, as far as the server knows yet
}

// Finder names the relays where a peer may be, the likeliest first. It belongs to one
// goroutine. Only Next waits, for an answer of Where.
type Finder struct {
	cfg    FinderConfig
	relays []api.Relay
	queue  []api.Relay
	tries  int                // relays named so far
	again  bool               // a relay that said gone was asked once more
	asked  int                // questions to the server
	answer <-chan Whereabouts // to the last of them; nil when there is none to come
	last   Whereabouts        // the last answer that came
	silent bool               // the peer did not answer a relay
}

// NewFinder makes the finder of one introduction to a peer.
func NewFinder(peer cert.NodeID, cfg FinderConfig) *Finder {
	f := &Finder{cfg: cfg}
	f.fill(peer)
	return f
}

// Again has it begin anew with the relays that there are now, and ask the server.
func (f *Finder) Again(peer cert.NodeID, patience time.Duration) {
	f.fill(peer)
	f.askFor(patience)
}

// fill begins with the relays that there are now.
func (f *Finder) fill(peer cert.NodeID) {
	f.tries, f.asked = 0, 0
	f.relays = f.cfg.Relays()
	if f.alone() {
		f.queue = []api.Relay{{}} // home, wherever that is
		return
	}
	home, hint := f.cfg.Home(), f.cfg.Hint()
	if hint == "" {
		f.Ask()
	}
	order := relay.Order(f.relays, peer)
	first := slices.DeleteFunc(slices.Clone(order), func(r api.Relay) bool { return r.ID != hint && r.ID != home })
	sort.SliceStable(first, func(i, j int) bool { return first[i].ID == hint && first[j].ID != hint })
	rest := slices.DeleteFunc(order, func(r api.Relay) bool { return r.ID == hint || r.ID == home })
	f.queue = append(first, rest...)
	// Those that were out of reach a moment ago come last.
	sort.SliceStable(f.queue, func(i, j int) bool {
		return !f.cfg.Shuns(f.queue[i].ID) && f.cfg.Shuns(f.queue[j].ID)
	})
}

// alone reports whether the network has but one relay.
func (f *Finder) alone() bool { return len(f.relays) <= 1 }

// Gone takes a relay's word that the peer is not there, or silent. The former may
// be of before the peer came back: when a connection is cleared away, the relay
// says so to whoever may wait for it. Who is really gone is said to be so again at
// once; and nobody is called offline whom the server sees online, unless they
// are silent.
func (f *Finder) Gone(rl api.Relay, silent bool) {
	f.silent = silent
	if !f.again && !silent {
		f.again = true
		f.queue = append([]api.Relay{rl}, f.queue...)
	} else if f.alone() && !silent && !f.cfg.Away {
		f.askFor(f.cfg.GoneTime) // somebody waits, and there is nothing else to try
	}
	f.Ask()
}

// Ask asks the server where the peer is now, if there is a choice.
func (f *Finder) Ask() {
	if !f.alone() {
		f.askFor(f.cfg.AskTime)
	}
}

func (f *Finder) askFor(patience time.Duration) {
	if f.answer == nil && f.asked < maxQuestions {
		f.asked++
		f.answer = f.cfg.Where(patience)
	}
}

// Next returns the relay to try, and whether there are more. What the server
// says goes first, and is waited for when there is nothing else.
func (f *Finder) Next() (rl api.Relay, more, ok bool) {
	if f.answer != nil {
		if len(f.queue) == 0 {
			f.take(<-f.answer)
		} else {
			select {
			case w := <-f.answer:
				f.take(w)
			default:
			}
		}
	}
	if len(f.queue) == 0 || f.tries >= maxAsked {
		return rl, false, false
	}
	rl, f.queue = f.queue[0], f.queue[1:]
	f.tries++
	return rl, len(f.queue) > 0, true
}

// Unsure reports whether a peer that was found nowhere may yet be somewhere: the
// server does not know, or it is online at a relay that does not know of it yet, or
// is not known here.
func (f *Finder) Unsure() bool {
	switch {
	case f.silent:
		return false
	case f.last.Online:
		return !f.alone() || !slices.ContainsFunc(f.relays, func(r api.Relay) bool { return r.ID == f.last.Relay })
	}
	return f.last.Unknown || f.cfg.Behind()
}

// take puts the relay that the server named first, also when it was tried
// before: the server's word is newer.
func (f *Finder) take(w Whereabouts) {
	f.answer, f.last = nil, w
	if !w.Online {
		return
	}
	at := api.Relay{} // home
	if !f.alone() {
		i := slices.IndexFunc(f.relays, func(r api.Relay) bool { return r.ID == w.Relay })
		if i < 0 {
			return
		}
		at = f.relays[i]
	}
	f.queue = slices.DeleteFunc(f.queue, func(r api.Relay) bool { return r.ID == at.ID })
	f.queue = append([]api.Relay{at}, f.queue...)
}
