package main

import (
	"testing"
	"time"

	"weft/dns"
	"weft/overlay/status"
)

// Former names of peers are added to the settings, and the pointer changes only if
// something did.
func TestFormerNamesInSettings(t *testing.T) {
	var f aliases
	base := &dns.Settings{TTL: 9, Aliases: []dns.Alias{{Name: "own", Target: "laptop"}}}
	none := &status.Names{Serial: 1}
	if f.with(base, none) != base || f.with(nil, nil) != nil {
		t.Error("settings without former names got a new pointer")
	}
	until := time.Unix(1_900_000_000, 0)
	a := &status.Names{Serial: 2, Aliases: []status.Alias{{Name: "kitchen-pi", Target: "hall", Until: until}}}
	got := f.with(base, a)
	if got.TTL != 9 || len(got.Aliases) != 2 || got.Aliases[1] != (dns.Alias{Name: "kitchen-pi", Target: "hall", Until: until}) || len(base.Aliases) != 1 {
		t.Errorf("%+v", got)
	}
	presence := &status.Names{Serial: 3, Aliases: a.Aliases}
	if f.with(base, a) != got || f.with(base, presence) != got {
		t.Error("a new pointer although nothing changed")
	}
	if f.with(base, &status.Names{Aliases: []status.Alias{{Name: "x", Target: "hall"}}}) == got || f.with(nil, a) == nil {
		t.Error("a change did not change the pointer")
	}
}
