package pause

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		if !Sleep(t.Context(), time.Hour) || time.Since(begun) != time.Hour {
			t.Errorf("slept for %v", time.Since(begun))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if Sleep(ctx, time.Hour) || time.Since(begun) != time.Hour+time.Minute {
			t.Errorf("it was ended after %v", time.Since(begun))
		}
	})
}

func TestJitter(t *testing.T) {
	for range 1000 {
		if d := Jitter(time.Minute); d < 45*time.Second || d > 75*time.Second {
			t.Fatal(d)
		}
	}
	if d := Jitter(-time.Second); d != 0 {
		t.Error(d)
	}
}
