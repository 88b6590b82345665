package main

import (
	"fmt"
	"strings"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
)

// changesText says what a policy would change.
func changesText(r ops.PolicyCheck) string {
	var b strings.Builder
	if len(r.Gains)+len(r.Losses)+len(r.AESAdded)+len(r.AESRemoved) == 0 {
		b.WriteString("nobody gains or loses anything\n")
	}
	for _, side := range []struct {
		head, sign string
		list       []ops.AccessChange
		more       int
	}{
		{"who gains what:", "+", r.Gains, r.MoreGains},
		{"who loses what:", "-", r.Losses, r.MoreLosses},
		{"what would need AES:", "+", r.AESAdded, r.MoreAESAdded},
		{"what would no longer need AES:", "-", r.AESRemoved, r.MoreAESRemoved},
	} {
		if len(side.list) > 0 {
			b.WriteString(side.head + "\n")
		}
		for _, c := range side.list {
			fmt.Fprintf(&b, "  %s %s → %s: %s\n", side.sign, cli.Plain(party(c.From)), cli.Plain(target(c)), portsText(c.Ports))
		}
		if side.more > 0 {
			fmt.Fprintf(&b, "  %s and %d more lines like these\n", side.sign, side.more)
		}
	}
	if len(r.TagOwners) > 0 {
		b.WriteString("who may give tags:\n")
	}
	for _, c := range r.TagOwners {
		fmt.Fprintf(&b, "  tag:%s: %s, before %s\n", cli.Plain(c.Tag), cli.Plain(tagOwners(c.After)), cli.Plain(tagOwners(c.Before)))
	}
	return b.String()
}

// tagOwners names those who may give a tag, besides owners and admins.
func tagOwners(list []string) string {
	if len(list) == 0 {
		return "nobody else"
	}
	return some(list[:min(len(list), 10)], len(list), "other")
}

// party names people and devices.
func party(p ops.Party) string {
	var words []string
	for _, l := range []struct {
		names []string
		count int
		kind  string
	}{{p.Users, p.UserCount, "person"}, {p.Devices, p.DeviceCount, "device"}} {
		if l.count > 0 {
			words = append(words, some(l.names, l.count, l.kind))
		}
	}
	if len(words) == 0 {
		return "nobody"
	}
	return strings.Join(words, ", and ")
}

// some joins names. If count is larger than their number, it adds how many more there are.
func some(names []string, count int, kind string) string {
	text := strings.Join(names, ", ")
	if more := count - len(names); more > 0 {
		if text != "" {
			text += " and "
		}
		text += fmt.Sprintf("%d more %s", more, plural(more, kind))
	}
	return text
}

// target names the devices of a change, within its scope.
func target(c ops.AccessChange) string {
	devices := some(c.To.Devices, c.To.DeviceCount, "device")
	switch c.Scope {
	case "own":
		return "their own of " + devices
	case "others":
		return "those of others of " + devices
	}
	return devices
}

func portsText(ports []string) string {
	if len(ports) == 1 && ports[0] == "*" {
		return "everything"
	}
	return strings.Join(ports, ", ")
}

// count returns a number with a noun: "1 rule", "2 rules".
func count(n int, noun string) string { return fmt.Sprintf("%d %s", n, plural(n, noun)) }

func plural(n int, noun string) string {
	switch {
	case n == 1:
		return noun
	case noun == "person":
		return "people"
	}
	return noun + "s"
}
