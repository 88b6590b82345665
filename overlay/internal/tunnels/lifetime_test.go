package tunnels

import (
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/cert"
)

// When a peer must present another certificate, and when it is checked again for that. No
// call is made here, because an introduction is in progress or was a moment ago.
func TestRenewal(t *testing.T) {
	const life = 6 * time.Hour
	moment := time.Unix(1, 0) // stands for now
	for name, c := range map[string]struct {
		age    time.Duration // of the certificate
		silent time.Duration // since data were sent
		q      peer
		want   func(now, end time.Time) time.Time
	}{
		"it is new": {age: time.Hour, want: func(_, end time.Time) time.Time { return end.Add(-expirySlack - life/lastShare) }},
		"it ends soon, and nobody sends": {
			age: life - time.Hour/2, silent: time.Minute,
			want: func(_, end time.Time) time.Time { return end },
		},
		"it ends soon, being introduced": {
			age: life - time.Hour/2, q: peer{dial: &dialing{}},
			want: func(now, _ time.Time) time.Time { return now.Add(renewMin) },
		},
		"it ends soon, and showed the old one a moment ago": {
			age: life - time.Hour/2, q: peer{nextRenew: moment.Add(time.Minute)},
			want: func(now, _ time.Time) time.Time { return now.Add(time.Minute) },
		},
		"it ends soon, and could not be reached a moment ago": {
			age: life - time.Hour/2, q: peer{nextRedial: moment.Add(redialMax)},
			want: func(now, _ time.Time) time.Time { return now.Add(redialMax) },
		},
		"it ends before anything else is due": {
			age: life - time.Second, q: peer{nextRedial: moment.Add(redialMax)},
			want: func(_, end time.Time) time.Time { return end },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				now := time.Now()
				tb := &Table{cfg: Config{Clock: cert.NewClock(now, time.Now)}}
				q := c.q
				q.node = &cert.Node{NotBefore: now.Add(-c.age), NotAfter: now.Add(life - c.age)}
				for _, at := range []*time.Time{&q.nextRenew, &q.nextRedial} {
					if !at.IsZero() {
						*at = now.Add(at.Sub(moment))
					}
				}
				end := q.node.NotAfter.Add(expirySlack)
				if got, want := tb.renewPeer(&q, now, now.Add(-c.silent)), c.want(now, end); !got.Equal(want) {
					t.Errorf("looks again in %v, want %v", got.Sub(now), want.Sub(now))
				}
			})
		})
	}
}
