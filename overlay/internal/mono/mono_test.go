package mono

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestMono(t *testing.T) {
	if !Time(0).IsZero() {
		t.Error("never is a time")
	}
	if s := Time(Now()).String(); !strings.Contains(s, " m=") {
		t.Errorf("%s goes by the wall clock", s)
	}
	synctest.Test(t, func(t *testing.T) {
		ns := Now()
		at := time.Now()
		if Now() < int64(time.Hour) || at.Sub(Time(ns)) != 0 {
			t.Errorf("Time(%d) is %v from now", ns, at.Sub(Time(ns)))
		}
		time.Sleep(time.Minute)
		if d := time.Duration(Now() - ns); d != time.Minute {
			t.Errorf("%v passed in a minute", d)
		}
		if d := time.Since(Time(ns)); d != time.Minute {
			t.Errorf("%v since a minute ago", d)
		}
	})
}
