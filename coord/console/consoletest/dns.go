package consoletest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"weft/coord/console"
)

// PutAlias gives a device a former name.
func (b *Backend) PutAlias(id string, a console.DNSAlias) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.devices[id]
	d.Aliases = append(slices.Clone(d.Aliases), a)
	b.devices[id] = d
	a.Device = d.Name
	b.names.Aliases = append(b.names.Aliases, a)
}

// SetDeviceDNS implements console.Backend.
func (b *Backend) SetDeviceDNS(_ context.Context, _, id string, wildcard bool, lan string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	d, ok := b.devices[id]
	if !ok {
		return console.ErrNotFound
	}
	d.Wildcard, d.LANNames = wildcard, lan
	b.devices[id] = d
	return nil
}

// ownerLocked refuses everybody but the network's owner.
func (b *Backend) ownerLocked(userID string) error {
	for _, u := range b.users {
		if u.ID == userID && u.Owner {
			return nil
		}
	}
	return console.ErrNotFound
}

// DNS implements console.Backend.
func (b *Backend) DNS(_ context.Context, userID string) (console.DNS, error) {
	if err := b.fail("DNS"); err != nil {
		return console.DNS{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.names
	d.Suffix = b.Net.Suffix
	d.Records, d.Routes, d.Aliases = slices.Clone(d.Records), slices.Clone(d.Routes), slices.Clone(d.Aliases)
	d.Options = map[string]string{}
	for k, v := range b.names.Options {
		d.Options[k] = v
	}
	for _, dev := range b.devices {
		if dev.Wildcard {
			d.Wildcards = append(d.Wildcards, dev.Name)
		}
	}
	slices.Sort(d.Wildcards)
	return d, b.ownerLocked(userID)
}

// EditDNS implements console.Backend.
func (b *Backend) EditDNS(_ context.Context, userID string, e console.DNSEdit) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.ownerLocked(userID); err != nil {
		return err
	}
	n := &b.names
	gone := &console.Problem{Kind: console.ErrNotFound, Text: "that is not there any more"}
	invalid := func(format string, args ...any) error {
		return &console.Problem{Kind: console.ErrInvalid, Text: fmt.Sprintf(format, args...)}
	}
	switch {
	case e.AddRecord != nil:
		r := e.AddRecord.DNSRecord
		if strings.ContainsAny(r.Name, " \n") || r.Name == "" || r.Value == "" {
			return invalid("name %.80q: want labels of letters, digits and hyphens", r.Name)
		}
		if !strings.Contains(r.Name, ".") {
			r.Name += "." + b.Net.Suffix
		}
		if !strings.HasSuffix(r.Name, b.Net.Suffix) && !e.AddRecord.Outside {
			return invalid("the name %s is not in %s", r.Name, b.Net.Suffix)
		}
		b.nextID++
		r.ID = fmt.Sprintf("r%d", b.nextID)
		n.Records = append(n.Records, r)
	case e.RemoveRecord != "":
		had := len(n.Records)
		n.Records = slices.DeleteFunc(slices.Clone(n.Records), func(r console.DNSRecord) bool { return r.ID == e.RemoveRecord })
		if len(n.Records) == had {
			return gone
		}
	case e.AddRoute != nil:
		if e.AddRoute.Suffix == "" || strings.Contains(e.AddRoute.Suffix, " ") {
			return invalid("route %q: want a suffix", e.AddRoute.Suffix)
		}
		n.Routes = append(n.Routes, *e.AddRoute)
	case e.RemoveRoute != "":
		n.Routes = slices.DeleteFunc(slices.Clone(n.Routes), func(r console.DNSRoute) bool { return r.Suffix == e.RemoveRoute })
	case e.Nameservers != nil:
		for _, s := range *e.Nameservers {
			if strings.HasPrefix(s, "ftp:") {
				return invalid("nameserver %s: want IP, tls://HOST or https://HOST/PATH", s)
			}
		}
		n.Nameservers = *e.Nameservers
	case e.Search != nil:
		n.Search = *e.Search
	case e.Options != nil:
		if e.Options["ttl"] == "0" {
			return invalid("ttl: want a number from 1 to 60")
		}
		n.Options = e.Options
	case e.RemoveAlias != "":
		n.Aliases = slices.DeleteFunc(slices.Clone(n.Aliases), func(a console.DNSAlias) bool { return a.Name == e.RemoveAlias })
	default:
		return gone
	}
	return nil
}

// PreviewName implements console.Backend: devices and records by their names.
func (b *Backend) PreviewName(_ context.Context, userID, _, name, recordType string) (console.NamePreview, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.ownerLocked(userID); err != nil {
		return console.NamePreview{}, err
	}
	if strings.Contains(name, " ") {
		return console.NamePreview{}, &console.Problem{Kind: console.ErrInvalid, Text: fmt.Sprintf("%q is not a domain name", name)}
	}
	p := console.NamePreview{Name: name, Rcode: "NXDOMAIN"}
	if !strings.Contains(name, ".") {
		p.Name += "." + b.Net.Suffix
	} else if !strings.HasSuffix(name, b.Net.Suffix) {
		p.Rcode = ""
		p.Steps = []string{"no route: the machine's own resolvers"}
		return p, nil
	}
	for _, d := range b.devices {
		if d.FQDN == p.Name {
			p.Rcode = "NOERROR"
			p.Steps = []string{p.Name + ". is a device"}
			if recordType == "" || recordType == "A" {
				p.Answers = []string{p.Name + ".\t5\tIN\tA\t" + d.IPv4.String()}
			}
			return p, nil
		}
	}
	for _, r := range b.names.Records {
		if r.Name == p.Name {
			p.Rcode, p.Answers = "NOERROR", append(p.Answers, r.Name+".\t300\tIN\t"+r.Type+"\t"+r.Value)
			p.Steps = []string{p.Name + ". has records in the settings"}
		}
	}
	if p.Rcode == "NXDOMAIN" {
		p.Steps = []string{"there is no device " + name}
	}
	return p, nil
}

// SetOwner makes the one user the network's owner, or not.
func (b *Backend) SetOwner(owner bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.users["owner"].Owner = owner
}

// SetNames sets what is set about names, as it is.
func (b *Backend) SetNames(d console.DNS) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.names = d
}
