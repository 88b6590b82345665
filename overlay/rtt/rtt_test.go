package rtt

import (
	"testing"
	"time"
)

func TestEstimate(t *testing.T) {
	const least, most = 2 * time.Second, 10 * time.Second
	for _, c := range []struct {
		name     string
		measured []time.Duration
		from, to time.Duration // of Wait
	}{
		{"nothing known", nil, least, least},
		{"a fast network", []time.Duration{20 * time.Millisecond, 30 * time.Millisecond, 20 * time.Millisecond}, least, least},
		{"no measurement", []time.Duration{0, -time.Second}, least, least},
		{"a full uplink", []time.Duration{3 * time.Second}, 9 * time.Second, 9 * time.Second},
		{"one that has just filled", []time.Duration{20 * time.Millisecond, 3 * time.Second}, 6 * time.Second, 6 * time.Second},
		{"beyond all bounds", []time.Duration{time.Hour}, most, most},
	} {
		var e Estimate
		for _, d := range c.measured {
			e.Add(d)
		}
		if got := e.Wait(least, most); got < c.from || got > c.to {
			t.Errorf("%s: waits for %v, want %v to %v", c.name, got, c.from, c.to)
		}
	}
	// A slow link that becomes fast again is believed.
	var e Estimate
	e.Add(3 * time.Second)
	for range 40 {
		e.Add(20 * time.Millisecond)
	}
	if got := e.Wait(least, most); got != least || e.Trip() > 100*time.Millisecond {
		t.Errorf("after 40 fast answers it waits for %v, trip %v", got, e.Trip())
	}
}
