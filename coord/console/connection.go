package console

import (
	"context"
	"errors"
	"time"

	"weft/coord/ops"
)

// testView is one result of a connection test, or the offer to make one.
type testView struct {
	Device  deviceView
	Auto    bool   // run it as soon as it is shown
	Latency string // "" when there is no result
	Relay   string
	Problem string
}

// testDevice measures the round trip between the relay and the device. The server is not a
// member of the overlay and cannot measure more; the page says so.
func (c *Console) testDevice(v *visit) error {
	id, err := v.nodeID()
	if err != nil {
		return err
	}
	d, err := c.ops.Device(v.ctx(), v.actor, id.String())
	if err != nil {
		return err
	}
	view := testView{Device: c.deviceView(d)}
	ctx, cancel := context.WithTimeout(v.ctx(), 5*time.Second)
	defer cancel()
	select {
	case c.testing <- struct{}{}:
		defer func() { <-c.testing }()
	case <-ctx.Done():
		return errBusy
	}
	t, err := c.ops.TestConnection(ctx, v.actor, id)
	switch {
	case err == nil:
		view.Latency, view.Relay = latencyText(t.Latency), clean(t.Relay)
		c.reached(d.KeyID)
	case errors.Is(err, ops.ErrOffline):
		view.Problem = "It has no connection to a relay at the moment."
		switch {
		case view.Device.Unknown:
			view.Problem = "The server or a relay has just started and has not heard of it yet."
		case d.Online:
			view.Problem = "It did not answer over its relay connection."
		}
	case errors.Is(err, ops.ErrElsewhere):
		view.Problem = "It is connected to the relay " + clean(d.Relay) + ", which only devices can measure: weft ping " + clean(d.Name)
	case errors.Is(err, context.DeadlineExceeded):
		view.Problem = "No answer within 5 seconds."
	default:
		return err
	}
	// On the page of the device the result is one more of a line.
	samples := v.r.PostForm.Has("samples")
	if v.partial() && !samples {
		return c.fragment(v, "device", "test", view)
	}
	took := time.Duration(-1)
	if view.Latency != "" {
		took = t.Latency
	}
	line := newLatency(view.Device, append(samplesOf(v.r.PostForm.Get("samples")), took))
	line.Relay, line.Problem = view.Relay, view.Problem
	if v.partial() {
		return c.fragment(v, "device", "latency", line)
	}
	return c.overviewPage(v, d, line)
}
