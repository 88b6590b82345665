package homes

import (
	"testing"
	"time"

	"weft/overlay/api"
)

// TestFinder: which relays are tried for a peer, in which order, and when the server is
// asked.
func TestFinder(t *testing.T) {
	a, b, c := api.Relay{ID: "a"}, api.Relay{ID: "b"}, api.Relay{ID: "c"}
	const absent, silent, unreachable = "absent", "silent", "unreachable"
	for _, tc := range []struct {
		name   string
		relays []api.Relay
		queue  []api.Relay
		away   bool
		server []Presence // its answers, in order
		relay  string     // the answer of every relay
		want   string     // relays tried; "?" is a request to the server
	}{
		{"one relay, the server agrees that it is offline", nil, []api.Relay{{}}, false, []Presence{{}}, absent, "..?"},
		{"one relay, the server sees it online", nil, []api.Relay{{}}, false, []Presence{{Online: true}, {Online: true}}, absent, "..?.?."},
		{"one relay, online at first", nil, []api.Relay{{}}, false, []Presence{{Online: true}, {}}, absent, "..?.?"},
		{"one relay, no server", nil, []api.Relay{{}}, true, nil, absent, ".."},
		{"one relay, the peer is silent", nil, []api.Relay{{}}, false, nil, silent, "."},
		{"one relay, not reached", nil, []api.Relay{{}}, false, nil, unreachable, "."},
		{"three relays", []api.Relay{a, b, c}, []api.Relay{a, b, c}, false, []Presence{{}, {}}, absent, "a?a?bc"},
		{"the server knows where", []api.Relay{a, b, c}, []api.Relay{a, b, c}, false, []Presence{{Online: true, Relay: "c"}, {Online: true, Relay: "b"}}, absent, "a?c?ba"},
		{"a relay that we do not know", []api.Relay{a, b}, []api.Relay{a, b}, true, []Presence{{Online: true, Relay: "x"}, {Online: true, Relay: "x"}}, unreachable, "a?b?"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := ""
			f := &Finder{relays: tc.relays, queue: tc.queue, cfg: FinderConfig{ServerAway: tc.away}}
			f.cfg.AskServer = func(time.Duration) <-chan Presence {
				got += "?"
				answer := make(chan Presence, 1)
				answer <- tc.server[0]
				tc.server = tc.server[1:]
				return answer
			}
			for {
				rl, _, ok := f.Next()
				if !ok {
					break
				}
				if got += rl.ID; rl.ID == "" {
					got += "."
				}
				if tc.relay == unreachable {
					f.Ask()
				} else {
					f.Gone(rl, tc.relay == silent)
				}
			}
			if got != tc.want {
				t.Errorf("asked %s, want %s", got, tc.want)
			}
		})
	}
}

// A peer that was found nowhere is looked for again only if that may change soon.
func TestFinderUnsure(t *testing.T) {
	a, b := api.Relay{ID: "a"}, api.Relay{ID: "b"}
	one, two := []api.Relay{a}, []api.Relay{a, b}
	for _, c := range []struct {
		name           string
		relays         []api.Relay
		last           Presence
		silent, behind bool
		want           bool
	}{
		{"nobody was asked", two, Presence{}, false, false, false},
		{"the server does not know", one, Presence{Unknown: true}, false, false, true},
		{"the server does not know, but the relay does", one, Presence{Unknown: true}, true, false, false},
		{"online at a relay that is not known here", one, Presence{Online: true, Relay: "b"}, false, false, true},
		{"online at the only relay, which says no", one, Presence{Online: true, Relay: "a"}, false, false, false},
		{"online at one of two, which says no yet", two, Presence{Online: true, Relay: "b"}, false, false, true},
		{"online at one of two, and silent", two, Presence{Online: true, Relay: "b"}, true, false, false},
		{"there may be more relays", one, Presence{}, false, true, true},
	} {
		f := &Finder{relays: c.relays, last: c.last, silent: c.silent, cfg: FinderConfig{Behind: func() bool { return c.behind }}}
		if got := f.Unsure(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
