package overlay

import (
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/relay"
	"weft/overlay/status"
)

// What follows from changes of the home connection and from reports of its relay.
func TestHomeState(t *testing.T) {
	var did []string
	do := func(what string) func() { return func() { did = append(did, what) } }
	var health status.Warnings
	held := api.Versions{CRL: 7}
	h := &homeState{
		health: &health, last: "kept",
		versions: func() api.Versions { return held },
		unknown:  do("strange"), reconnected: do("reconnected"), lost: do("lost"), current: do("current"),
		moved:        func(id string) { did = append(did, "moved to "+id) },
		namesVersion: func(api.Version) { did = append(did, "names") },
		announced:    func(api.Versions) { did = append(did, "hear") },
		nudged: func(_ api.Versions, spread time.Duration, c *api.Changes) {
			did = append(did, "nudged over "+spread.String())
			if c != nil {
				did = append(did, "changes")
			}
		},
	}
	on := func(id string) relay.State { return relay.State{Online: true, Relay: api.Relay{ID: id}} }
	changed := func(st relay.State) func() { return func() { h.changed(st) } }
	changes := new(api.Changes)
	for _, step := range []struct {
		what     string
		do       func()
		want     []string
		warnings []string // messages
	}{
		{"connecting", changed(relay.State{}), nil, nil},
		{"cut off", changed(relay.State{Err: io.ErrUnexpectedEOF}), nil, []string{"not connected to the relay: the connection was closed; trying again by itself"}},
		{"out of reach", changed(relay.State{Err: errors.New("no route")}), nil, []string{"not connected to the relay: no route; trying again by itself"}},
		{"refused for another reason", changed(relay.State{Err: &relay.RefusedError{}}), nil, []string{"not connected to the relay: " + (&relay.RefusedError{}).Error() + "; trying again by itself"}},
		{"where it was", changed(on("kept")), []string{"reconnected"}, nil},
		{"at another relay", changed(on("b")), []string{"reconnected", "lost", "moved to b"}, nil},
		{"there again", changed(on("b")), []string{"reconnected"}, nil},
		{"at one that says no name", changed(on("")), []string{"reconnected"}, nil},
		{"welcome", func() { h.welcome(relay.Welcome{Versions: api.Versions{CRL: 7}}) }, []string{"names", "hear", "current"}, nil},
		{"welcome, behind", func() { h.welcome(relay.Welcome{Versions: api.Versions{CRL: 8}}) }, []string{"names", "hear"}, nil},
		{"the server is away", func() { h.nudge(relay.Nudge{Away: true, SpreadMS: 1500, Changes: changes}, false) },
			[]string{"names", "nudged over 1.5s"}, []string{"the coordination server does not answer the relay; known devices stay reachable"}},
		{"and back", func() { h.nudge(relay.Nudge{Changes: changes}, true) }, []string{"names", "nudged over 0s", "changes"}, nil},
	} {
		did = nil
		step.do()
		var warnings []string
		for _, w := range health.List() {
			warnings = append(warnings, w.Message)
		}
		if !slices.Equal(did, step.want) || !slices.Equal(warnings, step.warnings) {
			t.Errorf("%s: did %q, want %q; warnings %q, want %q", step.what, did, step.want, warnings, step.warnings)
		}
	}
	did = nil
	h.changed(relay.State{Err: &relay.RefusedError{Reason: relay.RefusedUnknown}})
	if !slices.Equal(did, []string{"strange"}) {
		t.Errorf("a relay that does not know the node: %q", did)
	}
	// A warning from elsewhere that the server is unreachable is not ended by a relay
	// that has never reported it so.
	health.Set(status.CodeServerOffline, "asked it")
	h.nudge(relay.Nudge{}, true)
	if !health.Has(status.CodeServerOffline) {
		t.Error("the server is said to answer")
	}
	h.replaced()
	if !health.Has(status.CodeCloned) {
		t.Error("no warning of another machine")
	}
	// The first home is not a change of the home.
	did, h.last = nil, ""
	h.changed(on("a"))
	if !slices.Equal(did, []string{"reconnected", "moved to a"}) {
		t.Errorf("the first relay: %q", did)
	}
}
