package tun

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Another program's firewall may drop packets from the overlay's addresses: other VPNs
// use the same range, and some drop all of it that arrives on other interfaces than
// theirs. weft does not change those rules; it finds and names them.

// blocker is a rule that drops what devices send to this machine.
type blocker struct {
	table, chain string // "ip filter", "ts-input"
	rule         string
}

// cure is a command that lets the interface's packets pass before the rule.
func (b blocker) cure(name string) string {
	return fmt.Sprintf("nft insert rule %s %s iifname %s accept", b.table, b.chain, name)
}

// findBlocker searches a ruleset, as printed by `nft list ruleset`, for a rule that
// drops packets of the network's range arriving on the interface name, in a chain for
// packets to this machine.
func findBlocker(ruleset, name string, net4 netip.Prefix) (found blocker, ok bool) {
	if !net4.IsValid() {
		return blocker{}, false
	}
	sourceIs := regexp.MustCompile(`\bip saddr ([0-9./]+)`)
	inputIs := regexp.MustCompile(`\biifname (!= )?"?([^" ]+)"?`)
	passesIt := regexp.MustCompile(`\b(accept|return)\b`)
	dropsIt := regexp.MustCompile(`\b(drop|reject)\b`)
	type at struct{ table, chain string }
	var here at
	var blocks []blocker
	passed := map[at]bool{}
	hooked := map[at]bool{}    // chains of the relevant hooks
	jumps := map[at][]string{} // to chains of the same table
	for line := range strings.Lines(ruleset) {
		line = strings.TrimSpace(line)
		fields := strings.Fields(line)
		switch {
		case len(fields) == 4 && fields[0] == "table" && fields[3] == "{":
			here = at{table: fields[1] + " " + fields[2]}
			continue
		case len(fields) == 3 && fields[0] == "chain" && fields[2] == "{":
			here.chain = fields[1]
			continue
		case strings.HasPrefix(line, "type filter hook input") || strings.HasPrefix(line, "type filter hook prerouting"):
			hooked[here] = true
			continue
		}
		if i := slices.IndexFunc(fields, func(f string) bool { return f == "jump" || f == "goto" }); i >= 0 && i+1 < len(fields) {
			jumps[here] = append(jumps[here], fields[i+1])
		}
		src := sourceIs.FindStringSubmatch(line)
		if in := inputIs.FindStringSubmatch(line); src == nil && in != nil && in[1] == "" && in[2] == name && passesIt.MatchString(line) {
			passed[here] = true // our packets do not reach later rules of this chain
		}
		if src == nil || !dropsIt.MatchString(line) || passed[here] {
			continue
		}
		from, err := netip.ParsePrefix(src[1])
		if err != nil || from.Bits() > net4.Bits() || !from.Contains(net4.Addr()) {
			continue // the rule may be about a part of the range only
		}
		if in := inputIs.FindStringSubmatch(line); in != nil && (in[2] == name) == (in[1] != "") {
			continue
		}
		blocks = append(blocks, blocker{here.table, here.chain, line})
	}
	// Follow the jumps from the hooks.
	todo := make([]at, 0, len(hooked))
	for c := range hooked {
		todo = append(todo, c)
	}
	for len(todo) > 0 {
		c := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, to := range jumps[c] {
			if next := (at{c.table, to}); !hooked[next] {
				hooked[next] = true
				todo = append(todo, next)
			}
		}
	}
	for _, b := range blocks {
		if hooked[at{b.table, b.chain}] {
			return b, true
		}
	}
	return blocker{}, false
}
