package tun

import (
	"net/netip"
	"strings"
	"testing"
)

func TestGuardRules(t *testing.T) {
	more := []netip.Addr{netip.MustParseAddr("100.100.100.100")}
	rules := guardRules("weft0", self4, self6, more)
	for _, want := range []string{
		"table inet weft-weft0\ndelete table inet weft-weft0\n",
		"ip daddr 100.64.0.1 iifname != { \"lo\", \"weft0\" } fib daddr type local drop\n",
		"ip6 daddr fd00:1:2::1 iifname != { \"lo\", \"weft0\" } fib daddr type local drop\n",
		"ip daddr 100.100.100.100 iifname",
	} {
		if !strings.Contains(rules, want) {
			t.Errorf("no %q in\n%s", want, rules)
		}
	}
	if rules := guardRules("weft0", netip.Addr{}, netip.Addr{}, more); strings.Contains(rules, "drop") {
		t.Errorf("without addresses:\n%s", rules)
	}
	for name, good := range map[string]bool{
		"weft0": true, "w": true, "a.b-c_d": true, "fifteen-letters": true,
		"": false, "sixteen-letters-": false, "0weft": false, "-f": false, "a b": false, "a/b": false, "a\"b": false, "a%d": false,
	} {
		if goodName(name) != good {
			t.Errorf("name %q", name)
		}
	}
}
