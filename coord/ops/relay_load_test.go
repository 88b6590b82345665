package ops

import (
	"testing"
	"time"
)

func TestLoad(t *testing.T) {
	var l relayLoad
	now := time.Unix(1_700_000_040, 0) // a whole minute
	if l.at(now) != nil {
		t.Error("something is known of a relay that said nothing")
	}
	l.note(5000, now) // sent on before: of which minute is not known
	if got := l.at(now); len(got.Minutes) != 1 || got.Minutes[0] != 0 || got.BytesPerSecond != 0 {
		t.Errorf("%+v", got)
	}
	now = now.Add(30 * time.Second)
	l.note(5300, now)
	if got := l.at(now); got.BytesPerSecond != 10 || got.Minutes[0] != 300 {
		t.Errorf("%+v, want 10 a second", got)
	}
	now = now.Add(time.Minute)
	l.note(200, now) // it started anew
	if got := l.at(now); len(got.Minutes) != 2 || got.Minutes[1] != 200 || got.BytesPerSecond != 5 {
		t.Errorf("%+v", got)
	}
	for range 90 {
		now = now.Add(time.Minute)
		l.note(l.total+6000, now)
	}
	if got := l.at(now); len(got.Minutes) != 60 || got.Minutes[0] != 6000 || got.Minutes[59] != 6000 || got.BytesPerSecond < 100 || got.BytesPerSecond > 120 {
		t.Errorf("%+v", got)
	}
	if got := l.at(now.Add(-time.Hour)); got.Minutes[59] != 6000 {
		t.Errorf("a clock that was set back: %+v", got)
	}
	if got := l.at(now.Add(1000 * time.Hour)); got.BytesPerSecond != 0 || got.Minutes[0]+got.Minutes[59] != 0 {
		t.Errorf("after silence: %+v", got)
	}
}
