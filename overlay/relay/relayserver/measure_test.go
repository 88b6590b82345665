package relayserver

import (
	"context"
	"errors"
	"testing"
	"time"

	"weft/overlay/cert"
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
