package ops

import (
	"testing"
	"time"

	"weft/overlay/cert"
)

const day = 24 * time.Hour

func TestLifeOf(t *testing.T) {
	for _, c := range []struct {
		name string
		base time.Duration
		n    situation
		want time.Duration
	}{
		{"usual", 90 * day, situation{}, 90 * day},
		{"renewed, renamed three times", 90 * day, situation{held: 4}, 90 * day},
		{"renamed more", 90 * day, situation{held: 6}, 30 * day},
		{"renamed without end", 90 * day, situation{held: 5000}, 3 * day},
		{"ephemeral", 90 * day, situation{ephemeral: true}, 3 * day},
		{"some devices of the token are gone", 90 * day, situation{gone: 99}, 90 * day},
		{"many are", 90 * day, situation{gone: 100}, 3 * day},
		{"more are", 90 * day, situation{gone: 2500, ephemeral: true}, day},
		{"half full", 90 * day, situation{list: cert.MaxCRL / 2}, 90 * day},
		{"half full, it joins", 90 * day, situation{list: cert.MaxCRL / 2, joins: true}, day},
		{"an eighth full, it joins", 90 * day, situation{list: cert.MaxCRL / 8, joins: true}, 90 * day},
		{"11/16 full", 90 * day, situation{list: cert.MaxCRL / 16 * 11}, 16*day + 10*time.Hour + 22*time.Minute}, // the geometric mean
		{"nearly full", 90 * day, situation{list: cert.MaxCRL / 8 * 7}, 3 * day},
		{"full", 90 * day, situation{list: cert.MaxCRL}, 3 * day},
		{"full, short by configuration", 20 * time.Second, situation{list: cert.MaxCRL, gone: 5000, held: 100, ephemeral: true}, 20 * time.Second},
	} {
		if got := lifeOf(c.base, c.n); (got - c.want).Abs() > time.Minute {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// Devices with a token each that are deleted a moment after they joined, as some
// build servers do it: the list settles below the length from which on none joins.
func TestListSettles(t *testing.T) {
	for perDay, most := range map[int]int{333: halfList, 1_000: halfList, 5_000: almostAll, 10_000: almostAll} {
		ends := map[int]int{} // entries by the hour in which they expire
		entries, longest := 0, 0
		for hour := range 500 * 24 {
			entries -= ends[hour]
			for range perDay / 24 {
				life := lifeOf(90*day, situation{joins: true, list: entries * 28})
				ends[hour+int(life/time.Hour)]++
				entries++
			}
			longest = max(longest, entries*28)
		}
		t.Logf("%d a day: %d KB at most", perDay, longest>>10)
		if longest > most {
			t.Errorf("%d a day: %d bytes", perDay, longest)
		}
	}
}

func TestSpanText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", day: "1 day", 999 * day: "999 days", 36 * time.Hour: "36h", 90 * time.Minute: "1h30m", time.Minute: "1m", 61 * time.Second: "1m1s", 20 * time.Second: "20s",
		time.Hour + 30*time.Second: "1h0m30s", 10 * time.Hour: "10h", -day: "-24h", 500 * time.Millisecond: "500ms", 10 * time.Minute: "10m",
	} {
		if s := spanText(d); s != want {
			t.Errorf("%v: %q, want %q", d, s, want)
		}
	}
}
