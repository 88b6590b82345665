package ops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"weft/coord/store"
	"weft/overlay/cert"
)

// Reasons why the round trip to a device cannot be measured.
var (
	ErrOffline   = errors.New("offline")
	ErrElsewhere = errors.New("connected to another relay") // the server cannot measure from there
)

// Connection is one measured round trip between the server's relay and a device.
type Connection struct {
	Relay   string        `json:"relay"`
	Latency time.Duration `json:"latency"`
}

// TestConnection measures the round trip to a device over its connection to the relay
// in this process. It returns ErrOffline if the device has no such connection or does
// not answer until ctx ends.
func (s *Service) TestConnection(ctx context.Context, a Actor, id cert.NodeID) (Connection, error) {
	var n store.Node
	err := s.store.Read(ctx, func(r *store.Reader) (err error) { n, err = r.Node(s.network, id); return err })
	if err == nil {
		err = opDeviceTest.authorize(a, deviceTarget(n))
	}
	if err != nil {
		return Connection{}, About(KindDevice, id.String(), err)
	}
	st, _ := s.presence.Get(n.ID)
	switch {
	case !st.Online:
		return Connection{}, fmt.Errorf("%s: %w", n.Name, ErrOffline)
	case st.Relay != s.auth.RelayID():
		return Connection{}, fmt.Errorf("%s: %w: %s", n.Name, ErrElsewhere, s.relayLabel(st.Relay))
	}
	rtt, err := s.measure(ctx, n.ID)
	if err != nil {
		return Connection{}, fmt.Errorf("%s: %w: %w", n.Name, ErrOffline, err)
	}
	return Connection{Relay: relayName, Latency: rtt}, nil
}

// measureFor bounds one measurement. It does not end with the context of the caller who began
// it, because others may wait for the same measurement.
const measureFor = 10 * time.Second

// measure pings a device. Concurrent callers for the same device share one ping.
func (s *Service) measure(ctx context.Context, id cert.NodeID) (time.Duration, error) {
	result := s.measuring.DoChan(id.String(), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), measureFor)
		defer cancel()
		return s.relay.get().Ping(ctx, s.network, id)
	})
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case r := <-result:
		return r.Val.(time.Duration), r.Err
	}
}
