package ops

import (
	"strings"
	"testing"

	"weft/overlay/api"
)

// Who has been told the server's addresses is known for each device, over
// restarts, and whoever is told by whatever way.
func TestWhoKnowsTheAddresses(t *testing.T) {
	s := openSite(t)
	laptop, pi, off := s.laptop("laptop"), s.camera("pi"), s.camera("off")
	unaware := func() string {
		t.Helper()
		list, err := s.Devices(t.Context(), Root(), DeviceQuery{})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, d := range list.Devices {
			if !d.KnowsURLs {
				names = append(names, d.Name)
			}
		}
		page, err := s.Devices(t.Context(), Root(), DeviceQuery{Limit: 50})
		if err != nil || page.Unaware != len(names) {
			t.Errorf("%d are counted, %v", page.Unaware, err)
		}
		return strings.Join(names, " ")
	}
	if got := unaware(); got != "" {
		t.Errorf("at first: %s", got)
	}
	again := func(urls ...string) {
		t.Helper()
		if err := s.flushSeen(true); err != nil {
			t.Fatal(err)
		}
		s.Close()
		data := s.data
		s = openSite(t, func(o *Options) { o.Data, o.Create, o.URLs = data, false, urls })
		laptop, pi, off = laptop.at(s), pi.at(s), off.at(s)
	}
	again("https://127.0.0.1:8443", "https://weft.example:8443")
	if got := unaware(); got != "laptop off pi" {
		t.Errorf("with a new address: %q", got)
	}
	// One fetches its config, another says that it holds it.
	if _, err := laptop.Config(t.Context(), api.Version{}); err != nil {
		t.Fatal(err)
	}
	s.index.tell(pi.id, api.Version{Epoch: 1, N: 1 << 40})
	if got := unaware(); got != "off pi" {
		t.Errorf("after a word of another epoch: %q", got)
	}
	v, _ := s.index.versions(pi.id)
	s.index.tell(pi.id, api.Version{Epoch: v.Config.Epoch, N: v.Config.N - 1})
	if got := unaware(); got != "off pi" {
		t.Errorf("after a word of an older version: %q", got)
	}
	s.index.tell(pi.id, v.Config)
	again("https://127.0.0.1:8443", "https://weft.example:8443")
	if got := unaware(); got != "off" {
		t.Errorf("after a restart: %q", got)
	}
	// Other changes of the config are none of the addresses.
	if err := s.SetPolicy(t.Context(), `{"rules":[]}`); err != nil {
		t.Fatal(err)
	}
	s.laptop("new")
	if got := unaware(); got != "off" {
		t.Errorf("after a change of the policy: %q", got)
	}
	if _, err := off.Config(t.Context(), api.Version{}); err != nil {
		t.Fatal(err)
	}
	if got := unaware(); got != "" {
		t.Errorf("at last: %q", got)
	}
}
