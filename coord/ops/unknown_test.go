package ops

import (
	"crypto/x509"
	"net/netip"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
)

// Nobody is said to be offline by a server that cannot know: lookups, the directory,
// presence and the console agree.
func TestUnknown(t *testing.T) {
	s := openSite(t)
	laptop, pi, cam := s.laptop("laptop"), s.camera("kitchen-pi"), s.camera("cam")
	as := func(d *device) *client.Client {
		return client.New(&direct{api: s.API(), leaf: func() *x509.Certificate { return d.shown }}, nil)
	}
	is := func(when string, d *device, online, unknown bool) {
		t.Helper()
		c, id := as(laptop), d.id.String()
		p, err := c.Lookup(t.Context(), "id", id)
		if err != nil || p.Online != online || p.Unknown != unknown {
			t.Errorf("%s: looked up: %+v, %v", when, p, err)
		}
		peers, err := c.Presence(t.Context(), []string{id})
		if err != nil || len(peers) != 1 || peers[0].Online != online || peers[0].Unknown != unknown {
			t.Errorf("%s: asked for: %+v, %v", when, peers, err)
		}
		shown, err := s.Device(t.Context(), s.owner(), id)
		if err != nil || shown.Online != online || shown.Unknown != unknown {
			t.Errorf("%s: shown: %+v, %v", when, shown, err)
		}
		off, err := s.Devices(t.Context(), s.owner(), DeviceQuery{State: "offline", Text: d.name(), Limit: 1})
		if err != nil || (off.Total == 1) != (!online && !unknown) {
			t.Errorf("%s: %d listed as offline, %v", when, off.Total, err)
		}
	}
	addr := netip.MustParseAddr("192.0.2.7")
	here := func(d *device, conn uint64, online bool) { s.Presence(d.id, conn, online, s.clock.Now(), addr) }
	is("a new network, and it has not come yet", pi, false, false)
	here(cam, 1, true)
	here(cam, 1, false)
	is("it left, and there is one relay", cam, false, false)

	relay := newDevice(t, s.Service)
	csr, _ := cert.NewCSR(relay.key)
	far := as(relay)
	_, err := far.JoinRelay(t.Context(), api.RelayJoinRequest{
		Protocol: api.Protocol, Secret: s.token(CreateKey{Relay: true}).Secret, CSR: csr, Name: "far", URLs: []string{"https://far:8443"}})
	if err != nil {
		t.Fatal(err)
	}
	report := func(run, all string, events ...api.RelayEvent) string {
		t.Helper()
		res, err := as(relay).ReportRelay(t.Context(), api.RelayReport{Run: run, Events: events, All: all})
		if err != nil {
			t.Fatal(err)
		}
		return res.Instance
	}
	event := func(d *device, conn uint64, online bool) api.RelayEvent {
		return api.RelayEvent{Node: d.id.String(), Conn: conn, Online: online, At: s.clock.Now()}
	}
	instance := report("1", "")
	report("1", instance, event(pi, 1, true))
	is("at the other relay", pi, true, false)
	report("1", "", event(pi, 1, false))
	is("it may be on its way to another one", pi, false, true)
	s.clock.Add(movesIn)
	is("it is not", pi, false, false)

	report("1", "", event(pi, 2, true))
	report("2", "")
	is("its relay started anew", pi, false, true)
	report("2", "", event(pi, 1, true))
	is("and it came back", pi, true, false)
	report("2", "", event(pi, 1, false))
	s.clock.Add(movesIn)
	is("and left", pi, false, false)
	report("2", "", event(pi, 2, true))
	report("3", "")
	s.clock.Add(comesBack)
	is("its relay started anew, and it does not come back", pi, false, false)

	late := s.camera("late")
	is("it joined just now, and its relay may not have told yet", late, false, true)
	s.clock.Add(movesIn + time.Second)
	is("it did not connect", late, false, false)

	// From here on the server has started anew.
	again := func() {
		t.Helper()
		if err := s.Service.Close(); err != nil {
			t.Fatal(err)
		}
		var err error
		if s.Service, err = OpenService(t.Context(), Options{Data: s.data, Now: s.clock.Now}); err != nil {
			t.Fatal(err)
		}
		s.SetRelay(s.told)
	}
	again()
	is("a server that started just now", pi, false, true)
	is("and another device", cam, false, true)
	fresh := s.camera("fresh")
	is("one that joined since, of which a relay may know more", fresh, false, true)
	here(cam, 1, true)
	is("it is at the server", cam, true, false)
	here(cam, 1, false)
	s.clock.Add(movesIn)
	is("it left, and may be at the relay that has said nothing yet", cam, false, true)
	instance = report("3", "")
	is("and that has not said all", cam, false, true)
	report("3", instance+"x")
	is("nor did it to this server", cam, false, true)
	report("3", instance)
	is("it is not there", cam, false, false)
	is("neither is another, which may come back to the server", pi, false, true)
	s.clock.Add(comesBack - movesIn)
	is("which it does not", pi, false, false)

	// A relay that is never heard of again, or is of before and never says all.
	again()
	here(cam, 1, true)
	here(cam, 1, false)
	s.clock.Add(comesBack - time.Second)
	is("nobody knows yet", cam, false, true)
	s.clock.Add(time.Second)
	is("long enough", cam, false, false)
}
