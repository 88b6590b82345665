package ops

import (
	"sync"
	"time"
)

// LoadSpan is the time for which the load of relays is remembered.
const LoadSpan = time.Hour

// rateSpan is the time over which Load.BytesPerSecond is a mean.
const rateSpan = 5 * time.Minute

// relayLoad is how many bytes a relay forwarded in each of the last minutes.
type relayLoad struct {
	mu sync.Mutex
	// mu guards the following.
	began   time.Time                      // the first call of note; zero if nothing is known
	total   uint64                         // since the relay started
	minute  int64                          // the latest minute in minutes, since 1970
	minutes [LoadSpan / time.Minute]uint64 // a ring, indexed by minute modulo its length
}

// note takes how many bytes a relay has forwarded since it started. A total that is less than
// the last one means that the relay has restarted.
func (l *relayLoad) note(total uint64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.began.IsZero() {
		l.began, l.total, l.minute = now, total, now.Unix()/60
	}
	l.moveLocked(now)
	if total < l.total {
		l.total = 0
	}
	l.minutes[l.minute%int64(len(l.minutes))] += total - l.total
	l.total = total
}

// moveLocked makes the present minute the latest one, and forgets minutes that are too old. If
// the clock was set back it does nothing.
func (l *relayLoad) moveLocked(now time.Time) {
	to := now.Unix() / 60
	for n := 0; l.minute < to; n++ {
		if l.minute++; n >= len(l.minutes) {
			l.minute = to // all minutes in the ring are zero by now
		}
		l.minutes[l.minute%int64(len(l.minutes))] = 0
	}
}

// Load is how much a relay forwards between devices.
type Load struct {
	// BytesPerSecond is the mean of the last five minutes.
	BytesPerSecond int64
	// Minutes are the bytes in each known minute of LoadSpan, the oldest first.
	Minutes []uint64
}

// at returns the load now, nil if nothing is known.
func (l *relayLoad) at(now time.Time) *Load {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.began.IsZero() {
		return nil
	}
	l.moveLocked(now)
	known := min(int64(len(l.minutes)), l.minute-l.began.Unix()/60+1)
	res := &Load{}
	for m := l.minute - known + 1; m <= l.minute; m++ {
		res.Minutes = append(res.Minutes, l.minutes[m%int64(len(l.minutes))])
	}
	var sum uint64
	for m := max(l.minute-int64(rateSpan/time.Minute)+1, l.minute-known+1); m <= l.minute; m++ {
		sum += l.minutes[m%int64(len(l.minutes))]
	}
	// The present minute counts only as far as it has passed.
	span := min(now.Sub(l.began), rateSpan-time.Minute+time.Duration(now.Unix()%60)*time.Second)
	res.BytesPerSecond = int64(float64(sum) / max(span.Seconds(), 1))
	return res
}

// NoteRelayed takes how many bytes the relay in this process has forwarded since it started. The
// caller calls it about once a minute.
func (s *Service) NoteRelayed(total uint64) { s.ownLoad.note(total, s.now()) }

// RelayLoad returns the load of a relay, nil if unknown.
func (s *Service) RelayLoad(id string) *Load {
	if id == s.auth.RelayID() {
		return s.ownLoad.at(s.now())
	}
	if rs := s.relays.all()[id]; rs != nil {
		return rs.load.at(s.now())
	}
	return nil
}

func (s *Service) rateOf(id string) *int64 {
	if l := s.RelayLoad(id); l != nil {
		return &l.BytesPerSecond
	}
	return nil
}
