package tun

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"
)

// nftTimeout bounds a run of the nft program.
const nftTimeout = 5 * time.Second

// removedFor is how long a warning says that another program has removed the rules, at
// least: it ends with the next check after that.
const removedFor = time.Hour

// guarded is the last call of guard and its result.
type guarded struct {
	v4, v6 netip.Addr
	err    error
	chain  string // the chain as nft prints it; "" without addresses or after an error
}

// guard makes the kernel drop what arrives for the overlay addresses on another
// interface, and replaces the rules of an earlier process. Without addresses it removes
// the table. A failure is retried when the addresses change. touched means that some
// rules have changed: if another program removed or changed ours, they are set again,
// since each reload of Debian's nftables.service flushes all rules. l.mu is held.
func (l *kernelLink) guard(v4, v6 netip.Addr, touched bool) error {
	g := l.guarded
	if g != nil && g.v4 == v4 && g.v6 == v6 {
		if !touched || g.chain == "" {
			return g.err
		}
		if now, err := nft("list chain "+chainName(l.name), ""); err == nil && now == g.chain {
			return nil
		}
		l.removed = time.Now()
	}
	g = &guarded{v4: v4, v6: v6}
	_, g.err = nft("", guardRules(l.name, v4, v6, l.more))
	if g.err == nil && (v4.IsValid() || v6.IsValid()) {
		g.chain, g.err = nft("list chain "+chainName(l.name), "")
	}
	l.guarded = g
	return g.err
}

// blocked searches, if rules have changed, for another program's rule that drops what
// devices send to this machine. l.mu is held.
func (l *kernelLink) blocked(net4 netip.Prefix, touched bool) (blocker, bool) {
	if b := l.block; b != nil && !touched && b.net4 == net4 {
		return b.found, b.ok
	}
	rules, err := nft("list ruleset", "")
	if err != nil {
		return blocker{}, false // guard reports the error
	}
	found, ok := findBlocker(rules, l.name, net4)
	l.block = &blockedBy{net4, found, ok}
	return found, ok
}

// blockedBy is the last result of blocked.
type blockedBy struct {
	net4  netip.Prefix
	found blocker
	ok    bool
}

// guardRemoved is when another program last removed the rules, the zero Time if that is
// longer ago than removedFor. l.mu is held.
func (l *kernelLink) guardRemoved() time.Time {
	if time.Since(l.removed) > removedFor {
		return time.Time{}
	}
	return l.removed
}

func chainName(name string) string { return "inet weft-" + name + " guard" }

// guardRules returns a transaction that replaces the table.
func guardRules(name string, v4, v6 netip.Addr, more []netip.Addr) string {
	table := "inet weft-" + name
	var b strings.Builder
	fmt.Fprintf(&b, "table %s\ndelete table %s\n", table, table)
	if !v4.IsValid() && !v6.IsValid() {
		return b.String()
	}
	// Before connection tracking and before port forwarding (DNAT).
	fmt.Fprintf(&b, "table %s {\n\tchain guard {\n\t\ttype filter hook prerouting priority raw - 10; policy accept;\n", table)
	for _, ip := range append([]netip.Addr{v4, v6}, more...) {
		if !ip.IsValid() {
			continue
		}
		family := "ip"
		if ip.Is6() {
			family = "ip6"
		}
		fmt.Fprintf(&b, "\t\t%s daddr %s iifname != { \"lo\", %q } fib daddr type local drop\n", family, ip, name)
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}

// nft runs the nft program with a command, or with rules on its standard input, and
// returns its output.
func nft(command, rules string) (string, error) {
	path, err := exec.LookPath("nft")
	if err != nil {
		path = "/usr/sbin/nft" // not in every user's PATH
	}
	ctx, cancel := context.WithTimeout(context.Background(), nftTimeout)
	defer cancel()
	args := strings.Fields(command)
	if command == "" {
		args = []string{"-f", "-"}
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(rules)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		line, _, _ := strings.Cut(said.String(), "\n")
		return "", fmt.Errorf("nft: %w %.100s", err, strings.TrimSpace(line))
	}
	return string(out), nil
}
