package main

import (
	"testing"
	"time"

	"weft/dns"
	"weft/overlay/localapi"
)

// Former names of peers stand beside the settings, and the pointer moves only
// when something did.
func TestB18FormerNamesInSettings(t *testing.T) {
	var f aliases
	base := &dns.Settings{TTL: 9, Aliases: []dns.Alias{{Name: "own", Target: "laptop"}}}
	none := &localapi.Names{Serial: 1}
	if f.with(base, none) != base || f.with(nil, nil) != nil {
		t.Error("settings without former names are others")
	}
	until := time.Unix(1_900_000_000, 0)
	a := &localapi.Names{Serial: 2, Aliases: []localapi.Alias{{Name: "kitchen-pi", Target: "hall", Until: until}}}
	got := f.with(base, a)
	if got.TTL != 9 || len(got.Aliases) != 2 || got.Aliases[1] != (dns.Alias{Name: "kitchen-pi", Target: "hall", Until: until}) || len(base.Aliases) != 1 {
		t.Errorf("%+v", got)
	}
	presence := &localapi.Names{Serial: 3, Aliases: a.Aliases}
	if f.with(base, a) != got || f.with(base, presence) != got {
		t.Error("another pointer, and nothing changed")
	}
	if f.with(base, &localapi.Names{Aliases: []localapi.Alias{{Name: "x", Target: "hall"}}}) == got || f.with(nil, a) == nil {
		t.Error("a change is not seen")
	}
}
