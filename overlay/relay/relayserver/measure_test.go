package relayserver

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/cert"
	"weft/overlay/relay"
)

func TestPingMeasures(t *testing.T) {
	onStage(t, func(st *stage) {
		a := st.join(1)
		rtt, err := st.s.Ping(context.Background(), netA, a.id)
		if err != nil || rtt < 0 || rtt > time.Second {
			t.Errorf("a connected node: %v, %v", rtt, err)
		}
		if _, err := st.s.Ping(context.Background(), netB, a.id); !errors.Is(err, ErrAbsent) {
			t.Errorf("the same id in another network: %v", err)
		}
		if _, err := st.s.Ping(context.Background(), netA, cert.NodeID{9}); !errors.Is(err, ErrAbsent) {
			t.Errorf("an absent node: %v", err)
		}
		a.mu.Lock()
		a.mute = true
		a.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := st.s.Ping(ctx, netA, a.id); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a silent node: %v", err)
		}
	})
}

// TestLookPingsSilentNodes: Look hears from a silent node again, or disconnects it as a
// ping of the relay's own does, however often it is called.
func TestLookPingsSilentNodes(t *testing.T) {
	onStage(t, func(st *stage) {
		well, dead := st.join(1), st.join(2)
		time.Sleep(probeAfter + time.Second)
		dead.mu.Lock()
		dead.mute = true
		dead.mu.Unlock()
		look := func() time.Duration {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			began := time.Now()
			st.s.Look(ctx, netA, []cert.NodeID{well.id, dead.id, {9}})
			return time.Since(began)
		}
		if took := look(); took != time.Second {
			t.Errorf("it waits for all %s", took)
		}
		silent := func(id cert.NodeID) time.Duration {
			heard, ok := st.s.Heard(netA, id)
			if !ok {
				t.Fatalf("%s is not here", id)
			}
			return time.Since(heard)
		}
		if s := silent(well.id); s > time.Second {
			t.Errorf("who answered was heard %s ago", s)
		}
		if s := silent(dead.id); s < probeAfter {
			t.Errorf("who did not answer was heard %s ago", s)
		}
		if took := look(); took != 0 {
			t.Errorf("asked again before it is given up, for %s", took)
		}
		time.Sleep(pingAnswer)
		if _, ok := st.s.Online(netA, dead.id); ok {
			t.Error("who did not answer is still there")
		}
		if _, ok := st.s.Online(netA, well.id); !ok {
			t.Error("who answered is gone")
		}
	})
}

// Traffic counts both directions of a connection, and begins anew with the next one.
func TestTraffic(t *testing.T) {
	onStage(t, func(st *stage) {
		a, b := st.join(1), st.join(2)
		a.packet(b.id, "twelve bytes")
		b.wantOne(relay.TypePacket, a.id, "twelve bytes")
		sent, _, ok := st.s.Traffic(netA, a.id)
		_, received, _ := st.s.Traffic(netA, b.id)
		if !ok || sent != received || sent < 12 || sent > 100 {
			t.Errorf("%d bytes sent, %d received, %v", sent, received, ok)
		}
		if _, received, _ := st.s.Traffic(netA, a.id); received != 0 {
			t.Errorf("the sender received %d bytes", received)
		}
		if _, _, ok := st.s.Traffic(netB, a.id); ok {
			t.Error("the same id in another network has traffic")
		}
		a.c.Close()
		synctest.Wait()
		if _, _, ok := st.s.Traffic(netA, a.id); ok {
			t.Error("an absent node has traffic")
		}
		if sent, _, ok := st.s.Traffic(netA, st.join(1).id); !ok || sent != 0 {
			t.Errorf("a new connection begins with %d bytes, %v", sent, ok)
		}
	})
}
