package tun

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"
)

// nftTimeout bounds a run of the nft program.
const nftTimeout = 5 * time.Second

// guarded is for which addresses guard was called last, and how it went.
type guarded struct {
	v4, v6 netip.Addr
	err    error
}

// guard has the kernel drop what comes to the overlay addresses by another
// interface, and replaces what an earlier process has left. Without addresses it
// removes the table. A failure is tried again when the addresses change. l.mu
// is held.
func (l *kernelLink) guard(v4, v6 netip.Addr) error {
	if g := l.guarded; g != nil && g.v4 == v4 && g.v6 == v6 {
		return g.err
	}
	err := nft(guardRules(l.name, v4, v6, l.more))
	l.guarded = &guarded{v4, v6, err}
	return err
}

// guardRules makes the table, as a transaction that replaces it.
func guardRules(name string, v4, v6 netip.Addr, more []netip.Addr) string {
	table := "inet weft-" + name
	var b strings.Builder
	fmt.Fprintf(&b, "table %s\ndelete table %s\n", table, table)
	if !v4.IsValid() && !v6.IsValid() {
		return b.String()
	}
	// Before connection tracking, and before any port is forwarded (DNAT).
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

// nft runs the program on rules.
func nft(rules string) error {
	path, err := exec.LookPath("nft")
	if err != nil {
		path = "/usr/sbin/nft" // not in the PATH of everybody
	}
	ctx, cancel := context.WithTimeout(context.Background(), nftTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	out, err := cmd.CombinedOutput()
	if err != nil {
		line, _, _ := strings.Cut(string(out), "\n")
		return fmt.Errorf("nft: %w %.100s", err, strings.TrimSpace(line))
	}
	return nil
}
