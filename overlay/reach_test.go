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
		{"one relay, the peer is silent", nil, []api.Relay{{}}, false, nil, silent, ".."},
		{"one relay, not reached", nil, []api.Relay{{}}, false, nil, unreachable, "."},
		{"three relays", []api.Relay{a, b, c}, []api.Relay{a, b, c}, false, []whereabouts{{}, {}}, absent, "a?a?bc"},
		{"the server knows where", []api.Relay{a, b, c}, []api.Relay{a, b, c}, false, []whereabouts{{true, "c"}, {true, "b"}}, absent, "a?c?ba"},
		{"a relay that we do not know", []api.Relay{a, b}, []api.Relay{a, b}, true, []whereabouts{{true, "x"}, {true, "x"}}, unreachable, "a?b?"},
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
