package paths

import (
	"testing"
	"time"

	"weft/overlay/internal/overlaytest"
	"weft/overlay/relay/lane"
)

// apart makes two nodes that cannot reach each other and have been introduced through a
// relay.
func apart(t *testing.T, in *overlaytest.Internet, r *laneRelay) (a, b *side) {
	a, b = newSide(t, in, 1), newSide(t, in, 2)
	in.Partition(a.host, b.host)
	w := &laneConn{r: r, a: a, b: b}
	for _, s := range []*side{a, b} {
		s.in(func() { s.conn = w })
	}
	begin(a, b)
	time.Sleep(5 * time.Second) // they gather
	a.tells(b)
	b.tells(a)
	return a, b
}

// findsSTUN makes nodes ask the relay's STUN server, as they do once it is in their
// config.
func (r *laneRelay) findsSTUN(sides ...*side) {
	for _, s := range sides {
		s.in(func() {
			s.gatherer.SetServers([]string{r.at.String()})
			s.gatherer.Want()
		})
	}
}

func (r *laneRelay) set(f func(r *laneRelay)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

func (r *laneRelay) requests() (n int) {
	r.set(func(r *laneRelay) { n = r.asked })
	return n
}

// Two nodes that cannot reach each other get a lane, and another one when it has ended.
func TestLane(t *testing.T) {
	bubble(t, func(t *testing.T, in *overlaytest.Internet) {
		r := newLaneRelay(t, in)
		a, b := apart(t, in, r)
		r.findsSTUN(a, b)
		a.want(b, "lane")
		b.want(a, "lane")

		r.set(func(r *laneRelay) { clear(r.sides) })
		a.LaneEnded(a.conn, b.id)
		b.LaneEnded(b.conn, a.id)
		a.want(b, "relay")
		asked := r.requests()
		time.Sleep(laneRetry - time.Second)
		if n := r.requests(); n != asked {
			t.Errorf("asked for a lane %d times within %v of the end of one", n-asked, laneRetry)
		}
		a.want(b, "lane")
		b.want(a, "lane")
	})
}

// The lane comes before the relay's UDP address has answered: it is used afterwards.
func TestLaneBeforeSTUN(t *testing.T) {
	bubble(t, func(t *testing.T, in *overlaytest.Internet) {
		r := newLaneRelay(t, in)
		a, b := apart(t, in, r)
		time.Sleep(10 * time.Second)
		if r.requests() == 0 {
			t.Fatal("nobody asks for a lane")
		}
		begun := time.Now()
		r.findsSTUN(a, b)
		a.want(b, "lane")
		b.want(a, "lane")
		if d := time.Since(begun); d >= laneRetry/2 { // simulated time
			t.Errorf("the lane is there %v after the answer", d)
		}
	})
}

// A node that gets no lane asks again, but not at once.
func TestNoLane(t *testing.T) {
	bubble(t, func(t *testing.T, in *overlaytest.Internet) {
		r := newLaneRelay(t, in)
		r.set(func(r *laneRelay) { r.none = true })
		a, b := apart(t, in, r)
		r.findsSTUN(a, b)
		time.Sleep(10*laneWait + laneWait/2)
		if n := r.requests(); n < 10 || n > 22 {
			t.Errorf("two nodes asked %d times in %v, want one each in %v", n, 10*laneWait, laneWait)
		}
		if a.to(b) != "relay" {
			t.Errorf("the path is %s", a.to(b))
		}
	})
}

// A relay whose UDP does not answer binds is not asked repeatedly.
func TestLaneThatCannotBeBound(t *testing.T) {
	bubble(t, func(t *testing.T, in *overlaytest.Internet) {
		r := newLaneRelay(t, in)
		r.set(func(r *laneRelay) { r.silent = true })
		a, b := apart(t, in, r)
		r.findsSTUN(a, b)
		time.Sleep(laneRetry)
		if n := r.requests(); n < 1 || n > 4 {
			t.Errorf("asked %d times in %v", n, laneRetry)
		}
		r.set(func(r *laneRelay) { r.silent = false })
		a.want(b, "lane")
		b.want(a, "lane")
	})
}

// After the tunnel has moved to another relay, a lane of the earlier one is not used.
func TestLaneOfAnotherRelay(t *testing.T) {
	bubble(t, func(t *testing.T, in *overlaytest.Internet) {
		r := newLaneRelay(t, in)
		a, b := apart(t, in, r)
		r.findsSTUN(a, b)
		a.want(b, "lane")
		a.in(func() { a.conn = nil })
		a.want(b, "relay")
		info := lane.Info{Send: lane.NewID(), Recv: lane.NewID(), Key: lane.NewKey(), Idle: time.Minute}
		a.LaneOpened(&laneConn{r: r, a: a, b: b}, b.id, info) // from a connection that it no longer uses
		time.Sleep(time.Second)
		if a.to(b) != "relay" {
			t.Errorf("the path is %s", a.to(b))
		}
	})
}
