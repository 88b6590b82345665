package follow

import (
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/network"
)

func version(n uint64) api.Version { return api.Version{Epoch: 7, N: n} }

// planned returns the plan and moment of a laptop in the first day of its certificate,
// with the first version of everything.
func planned() (plan, moment) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	self := &cert.Node{Serial: big.NewInt(1), NotBefore: now, NotAfter: now.Add(90 * 24 * time.Hour)}
	held := api.Versions{Config: version(1), Directory: version(1), CRL: 1}
	s := &network.Network{Self: self, Config: &api.Config{Version: version(1), Directory: true}, CRL: &cert.CRL{Number: 1}}
	return newPlan(held), moment{Network: s, held: held, now: now, weft: now}
}

func (m moment) after(d time.Duration) moment {
	m.now, m.weft = m.now.Add(d), m.weft.Add(d)
	return m
}

// asked returns the parts that are requested at a moment.
func (l *plan) asked(m moment) []part {
	ask, _, _ := l.next(m)
	var parts []part
	for _, q := range ask {
		parts = append(parts, q.part)
	}
	return parts
}

// What is requested, and in which interval, after one report of current versions.
func TestPlanAsks(t *testing.T) {
	for _, c := range []struct {
		name        string
		w           wanted
		change      func(l *plan, m *moment)
		want        []part
		least, most time.Duration // until the request
	}{
		{"nothing new: the certificate alone is due, in two thirds of its life", wanted{Versions: api.Versions{Config: version(1), Directory: version(1), CRL: 1}}, nil,
			[]part{partCertificate}, 59 * 24 * time.Hour, 60 * 24 * time.Hour},
		{"the relay does not know", wanted{}, nil, []part{partCertificate}, 59 * 24 * time.Hour, 60 * 24 * time.Hour},
		{"a welcome: at once", wanted{Versions: api.Versions{Config: version(2), Directory: version(1), CRL: 1}}, nil, []part{partConfig}, 0, 0},
		{"another epoch, and a smaller number", wanted{Versions: api.Versions{Config: api.Version{Epoch: 8, N: 1}, Directory: version(1)}}, nil, []part{partConfig}, 0, 0},
		{"a nudge for the config", wanted{Versions: api.Versions{Config: version(2), Directory: version(1), CRL: 1}, nudged: true}, nil, []part{partConfig}, 0, jitterConfig},
		{"for the directory", wanted{Versions: api.Versions{Config: version(1), Directory: version(2), CRL: 1}, nudged: true}, nil, []part{partDirectory}, 0, jitterDirectory},
		{"for the list: it may be pushed first", wanted{Versions: api.Versions{Config: version(1), Directory: version(1), CRL: 2}, nudged: true}, nil, []part{partList}, pushTime, 2 * pushTime},
		{"an older list", wanted{Versions: api.Versions{Config: version(1), Directory: version(1), CRL: 0}, nudged: true}, nil, []part{partCertificate}, 59 * 24 * time.Hour, 60 * 24 * time.Hour},
		{"in a large network", wanted{Versions: api.Versions{Config: version(2), Directory: version(1)}, nudged: true, spread: time.Hour}, nil, []part{partConfig}, 0, maxSpread},
		{"all at once", wanted{Versions: api.Versions{Config: version(2), Directory: version(2), CRL: 2}, renew: true}, nil, []part{partList, partCertificate, partConfig, partDirectory}, 0, 0},
		{"a directory that is not read", wanted{Versions: api.Versions{Config: version(2), Directory: version(2)}}, func(_ *plan, m *moment) {
			m.Config.Lookup = true
		}, []part{partConfig}, 0, 0},
		{"asked a moment ago because of a nudge", wanted{Versions: api.Versions{Config: version(2), Directory: version(1)}, nudged: true}, func(l *plan, m *moment) {
			l.last[true] = m.now
		}, []part{partConfig}, nudgeSpacing, nudgeSpacing + jitterConfig},
		{"failed a moment ago: the relay has heard from the server", wanted{Versions: api.Versions{Config: version(2), Directory: version(1)}}, func(l *plan, m *moment) {
			l.steps[partConfig].retry = m.now.Add(time.Minute)
		}, []part{partConfig}, 0, 0},
		{"of no use a moment ago: that it has costs nothing", wanted{Versions: api.Versions{Config: version(3), Directory: version(1)}}, func(l *plan, m *moment) {
			l.steps[partConfig].refuse(m.now, m.weft, version(2).String(), version(1).String(), "", nil, 0, errors.New("no"))
		}, []part{partConfig}, firstHold, firstHold},
		{"refused before", wanted{Versions: api.Versions{Config: version(2), Directory: version(1)}}, func(l *plan, m *moment) {
			l.steps[partConfig].refuse(m.now, m.weft, version(2).String(), version(1).String(), "", nil, 0, errors.New("no"))
		}, []part{partCertificate}, 59 * 24 * time.Hour, 60 * 24 * time.Hour},
		{"under way", wanted{Versions: api.Versions{Config: version(2), Directory: version(1)}}, func(l *plan, _ *moment) {
			l.steps[partConfig].busy = true
		}, []part{partCertificate}, 59 * 24 * time.Hour, 60 * 24 * time.Hour},
		{"renewed a moment ago, a certificate that is due as it comes", wanted{}, func(l *plan, m *moment) {
			m.Self.NotAfter, l.renewed = m.weft.Add(time.Second), m.weft
		}, []part{partCertificate}, renewSpacing, renewSpacing},
	} {
		l, m := planned()
		if c.change != nil {
			c.change(&l, &m)
		}
		l.hear(m, l.complete(c.w), l.waiting(m))
		if c.least > 0 {
			if early := l.asked(m.after(c.least - 1)); early != nil {
				t.Errorf("%s: %v is asked for too early", c.name, early)
			}
		}
		if got := l.asked(m.after(c.most)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v is asked for, want %v", c.name, got, c.want)
		}
		if again := l.asked(m.after(c.most)); again != nil {
			t.Errorf("%s: %v is asked for twice", c.name, again)
		}
	}
}

// A relay that nudges endlessly makes the node fetch neither more often nor never.
func TestPlanNudgedWithoutEnd(t *testing.T) {
	l, m := planned()
	asked := 0
	const step = 10 * time.Millisecond
	for i := range 6000 { // a minute
		for range l.asked(m) {
			asked++
			l.steps[partConfig].succeed()
			m.held.Config = l.target.Config
		}
		w := wanted{Versions: api.Versions{Config: version(uint64(2 + i)), Directory: version(1)}, nudged: true}
		l.hear(m, l.complete(w), l.waiting(m))
		m = m.after(step)
	}
	if asked < 10 || asked > 31 {
		t.Errorf("fetched %d times in a minute", asked)
	}
}

// next says when to call it again: there is nothing to do before.
func TestPlanWaits(t *testing.T) {
	l, m := planned()
	l.hear(m, l.complete(wanted{Versions: api.Versions{CRL: 2}, nudged: true}), false)
	ask, _, wait := l.next(m)
	if ask != nil || wait < pushTime || wait > 2*pushTime {
		t.Fatalf("%v is asked for; %v", ask, wait)
	}
	if early := l.asked(m.after(wait - 1)); early != nil {
		t.Errorf("%v is asked for before", early)
	}
	if got := l.asked(m.after(wait)); !slices.Equal(got, []part{partList}) {
		t.Errorf("%v is asked for", got)
	}
}

// What the server does not have is not requested again, and what came from elsewhere
// counts as current.
func TestPlanForgets(t *testing.T) {
	l, m := planned()
	l.hear(m, l.complete(wanted{Versions: api.Versions{Config: version(2), Directory: version(2), CRL: 2}, renew: true}), false)
	if l.lets(m) {
		t.Error("strangers are let in before the list is current")
	}
	l.forget(m.held, partConfig, version(3).String()) // not what was announced
	if word, _, _ := l.wants(m, partConfig); word != version(2).String() {
		t.Errorf("wants the config %s", word)
	}
	for p, word := range map[part]string{partList: "2", partConfig: version(2).String(), partDirectory: version(2).String(), partCertificate: ""} {
		l.forget(m.held, p, word)
	}
	if got := l.asked(m); got != nil || !l.lets(m) || l.busy() {
		t.Errorf("%v is asked for", got)
	}

	l.target.CRL = 2
	l.steps[partList].refuse(m.now, m.weft, "2", "1", "", nil, 0, errors.New("no"))
	if !l.lets(m) {
		t.Error("a list that is of no use keeps strangers out")
	}
	if _, well, _ := l.next(m); well != nil {
		t.Errorf("well is %v", well)
	}
	m.held.CRL = 3 // a peer had it
	if _, well, _ := l.next(m); !slices.Equal(well, []part{partList}) || l.steps[partList].warning(partList) != "" {
		t.Errorf("well is %v", well)
	}

	l.steps[partConfig].refuse(m.now, m.weft, version(2).String(), version(1).String(), "", nil, 0, errors.New("no"))
	l.target.Config = version(2)
	l.mayFit(partConfig)
	if got := l.asked(m.after(maxHold)); !slices.Equal(got, []part{partConfig}) || !l.busy() {
		t.Errorf("%v is asked for, though what it was judged by is another", got)
	}
}
