package overlay

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"

	"weft/overlay/api"
	"weft/overlay/status"
)

type fakeRouter struct {
	Net
	v4, v6 netip.Prefix
	err    error
}

func (r *fakeRouter) SetRanges(v4, v6 netip.Prefix) error {
	if r.err == nil {
		r.v4, r.v6 = v4, v6
	}
	return r.err
}

// A range that cannot be routed is a warning, until the server sends another.
func TestSetRanges(t *testing.T) {
	r := &fakeRouter{}
	n := &Node{cfg: Config{Net: r}, log: slog.New(slog.DiscardHandler)}
	with := func(v4, v6 string) *snapshot {
		return &snapshot{config: &api.Config{Self: api.Self{IPv4Prefix: v4, IPv6Prefix: v6}}}
	}
	n.setRanges(with("100.64.0.0/10", "fd00::/48"))
	if r.v4 != netip.MustParsePrefix("100.64.0.0/10") || r.v6 != netip.MustParsePrefix("fd00::/48") {
		t.Errorf("%v %v", r.v4, r.v6)
	}
	r.err = errors.New("no such range")
	n.setRanges(with("0.0.0.0/0", ""))
	if !n.health.Has(status.CodeRoutes) {
		t.Error("no warning")
	}
	r.err = nil
	n.setRanges(with("lots", ""))
	if n.health.Has(status.CodeRoutes) || r.v4.IsValid() || r.v6.IsValid() {
		t.Errorf("%v %v %v", n.health.List(), r.v4, r.v6)
	}
	n.cfg.Net = struct{ Net }{} // one without routes
	n.setRanges(with("100.64.0.0/10", "fd00::/48"))
}
