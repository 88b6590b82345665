package age

import (
	"testing"
	"time"
)

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "a moment ago", 0: "a moment ago", 1999 * time.Millisecond: "a moment ago", 2 * time.Second: "2 s ago", 119 * time.Second: "119 s ago",
		12*time.Minute + 59*time.Second: "12 min ago", 119 * time.Minute: "119 min ago", 2 * time.Hour: "2 h ago", 47 * time.Hour: "47 h ago", 48 * time.Hour: "2 days ago", 9000 * time.Hour: "375 days ago",
	} {
		if got := Ago(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
	if got := Of(-time.Minute); got != "0 s" {
		t.Error(got)
	}
}
