package overlay

import (
	"testing"
	"time"

	"weft/overlay/api"
)

// TestFinder: which relays are asked for a peer, in which order, and when the
// server is.
func TestFinder(t *testing.T) {
	a, b, c := api.Relay{ID: "a"}, api.Relay{ID: "b"}, api.Relay{ID: "c"}
	const absent, silent, unreachable = "absent", "silent", "unreachable"
	for _, tc := range []struct {
		name   string
		relays []api.Relay
		queue  []api.Relay
		away   bool
		server []whereabouts // its answers, in order
		relay  string        // what every relay says
		want   string        // relays tried; "?" is a question to the server
	}{
		{"one relay, the server agrees that it is offline", nil, []api.Relay{{}}, false, []whereabouts{{}}, absent, "..?"},
		{"one relay, the server sees it online", nil, []api.Relay{{}}, false, []whereabouts{{online: true}, {online: true}}, absent, "..?.?."},
		{"one relay, online at first", nil, []api.Relay{{}}, false, []whereabouts{{online: true}, {}}, absent, "..?.?"},
		{"one relay, no server", nil, []api.Relay{{}}, true, nil, absent, ".."},
		{"one relay, the peer is silent", nil, []api.Relay{{}}, false, nil, silent, "."},
		{"one relay, not reached", nil, []api.Relay{{}}, false, nil, unreachable, "."},
		{"three relays", []api.Relay{a, b, c}, []api.Relay{a, b, c}, false, []whereabouts{{}, {}}, absent, "a?a?bc"},
		{"the server knows where", []api.Relay{a, b, c}, []api.Relay{a, b, c}, false, []whereabouts{{online: true, relay: "c"}, {online: true, relay: "b"}}, absent, "a?c?ba"},
		{"a relay that we do not know", []api.Relay{a, b}, []api.Relay{a, b}, true, []whereabouts{{online: true, relay: "x"}, {online: true, relay: "x"}}, unreachable, "a?b?"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := ""
			f := &finder{relays: tc.relays, queue: tc.queue, away: tc.away}
			f.where = func(time.Duration) <-chan whereabouts {
				got += "?"
				answer := make(chan whereabouts, 1)
				answer <- tc.server[0]
				tc.server = tc.server[1:]
				return answer
			}
			for {
				rl, _, ok := f.next()
				if !ok {
					break
				}
				if got += rl.ID; rl.ID == "" {
					got += "."
				}
				if tc.relay == unreachable {
					f.ask()
				} else {
					f.gone(rl, tc.relay == silent)
				}
			}
			if got != tc.want {
				t.Errorf("asked %s, want %s", got, tc.want)
			}
		})
	}
}

// Who was found nowhere is looked for again only if that may change soon.
func TestFinderUnsure(t *testing.T) {
	a, b := api.Relay{ID: "a"}, api.Relay{ID: "b"}
	one, two := []api.Relay{a}, []api.Relay{a, b}
	for _, c := range []struct {
		name           string
		relays         []api.Relay
		last           whereabouts
		silent, behind bool
		want           bool
	}{
		{"nobody was asked", two, whereabouts{}, false, false, false},
		{"the server does not know", one, whereabouts{unknown: true}, false, false, true},
		{"the server does not know, but the relay does", one, whereabouts{unknown: true}, true, false, false},
		{"online at a relay that is not known here", one, whereabouts{online: true, relay: "b"}, false, false, true},
		{"online at the only relay, which says no", one, whereabouts{online: true, relay: "a"}, false, false, false},
		{"online at one of two, which says no yet", two, whereabouts{online: true, relay: "b"}, false, false, true},
		{"online at one of two, and silent", two, whereabouts{online: true, relay: "b"}, true, false, false},
		{"there may be more relays", one, whereabouts{}, false, true, true},
	} {
		f := &finder{relays: c.relays, last: c.last, silent: c.silent, behind: func() bool { return c.behind }}
		if got := f.unsure(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
