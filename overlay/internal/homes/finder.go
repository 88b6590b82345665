package homes

import (
	"slices"
	"sort"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/relay"
)

// Where to look for a peer when there is more than one relay: first at the relay that the
// directory names; if the peer is not there or the relay is unreachable, where the server
// says now; then at our own relay, and at the others in the order in which the peer moves
// when it loses its home (relay.Order). So nodes find each other while the server is
// unreachable.
const (
	maxAsked     = 8 // relays to try for one introduction
	maxQuestions = 2 // requests to the server for one introduction
)

// FinderConfig configures NewFinder.
type FinderConfig struct {
	// Relays returns the relays of the current config.
	Relays func() []api.Relay
	// Home returns the Relay.ID of this node's home, Hint that of the peer's if it is
	// known; "" if not.
	Home, Hint func() string
	// FailedLately reports whether a relay was unreachable a moment ago.
	FailedLately func(relayID string) bool
	// Behind reports whether this node's list of relays may be out of date.
	Behind func() bool
	// AskServer asks the server where the peer is. It does not block: the channel delivers
	// exactly one answer, after patience at the latest.
	AskServer func(patience time.Duration) <-chan Presence
	// ServerAway says that the server did not answer the last request.
	ServerAway bool
	// AskTime is how long to wait for the server's answer, GoneTime the same when there
	// is nothing else to try.
	AskTime, GoneTime time.Duration
}

// Presence is the presence of a peer as the server reports it.
type Presence struct {
	Online  bool
	Relay   string // Relay.ID
	Unknown bool   // Online is false only because the server does not know yet
}

// Finder returns the relays where a peer may be, the likeliest first. It belongs to one
// goroutine. Only Next blocks, for an answer of AskServer.
type Finder struct {
	cfg    FinderConfig
	relays []api.Relay
	queue  []api.Relay
	tries  int             // how many relays Next has returned
	again  bool            // a relay that answered gone is being tried once more
	asked  int             // how many requests were sent to the server
	answer <-chan Presence // to the last request; nil if none is expected
	last   Presence        // the last answer
	silent bool            // a relay reported that the peer did not answer
}

// NewFinder makes the finder of one introduction to a peer.
func NewFinder(peer cert.NodeID, cfg FinderConfig) *Finder {
	f := &Finder{cfg: cfg}
	f.fill(peer)
	return f
}

// Again starts over with the current relays, and asks the server.
func (f *Finder) Again(peer cert.NodeID, patience time.Duration) {
	f.fill(peer)
	f.askFor(patience)
}

// fill starts over with the current relays.
func (f *Finder) fill(peer cert.NodeID) {
	f.tries, f.asked = 0, 0
	f.relays = f.cfg.Relays()
	if f.alone() {
		f.queue = []api.Relay{{}} // the home relay, whichever that is
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
	// Relays that were unreachable a moment ago come last.
	sort.SliceStable(f.queue, func(i, j int) bool {
		return !f.cfg.FailedLately(f.queue[i].ID) && f.cfg.FailedLately(f.queue[j].ID)
	})
}

// alone reports whether the network has but one relay.
func (f *Finder) alone() bool { return len(f.relays) <= 1 }

// Gone says that a relay has reported the peer as not connected, or as silent. A report
// of the first kind may be from before the peer reconnected, because a relay sends it
// when an old connection ends. So the relay is tried once more, which gives the same
// answer at once if the peer is really gone. The server is asked too: a peer that it
// reports online does not count as offline, unless it is silent.
func (f *Finder) Gone(rl api.Relay, silent bool) {
	f.silent = silent
	if !f.again && !silent {
		f.again = true
		f.queue = append([]api.Relay{rl}, f.queue...)
	} else if f.alone() && !silent && !f.cfg.ServerAway {
		f.askFor(f.cfg.GoneTime) // the caller waits, and there is nothing else to try
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
		f.answer = f.cfg.AskServer(patience)
	}
}

// Next returns the relay to try, and whether there are more. The relay that the server
// names comes first. Next waits for the server's answer only when it has no other relay.
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

// Unsure reports whether a peer that was found at no relay may still be online: the
// server does not know, or it names a relay that does not have the peer yet, or one that
// this node does not know.
func (f *Finder) Unsure() bool {
	switch {
	case f.silent:
		return false
	case f.last.Online:
		return !f.alone() || !slices.ContainsFunc(f.relays, func(r api.Relay) bool { return r.ID == f.last.Relay })
	}
	return f.last.Unknown || f.cfg.Behind()
}

// take puts the relay that the server named first, even if it was tried before: the
// server's answer is newer.
func (f *Finder) take(w Presence) {
	f.answer, f.last = nil, w
	if !w.Online {
		return
	}
	at := api.Relay{} // the home relay
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
