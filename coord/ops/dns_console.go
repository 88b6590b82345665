package ops

import (
	"context"
	"errors"
	"strings"

	"weft/coord/console"
	"weft/coord/store"
	"weft/overlay/api"
)

// What the console's DNS page sees and does. The whole network's names are its
// owner's matter: for others the page does not exist.

// owner refuses everybody else.
func (b *backend) owner(ctx context.Context, userID string) error {
	return b.read(ctx, func(r *store.Reader) error {
		users, err := r.Users(b.s.network)
		if err != nil {
			return err
		}
		for _, u := range users {
			if u.ID == userID && u.Owner {
				return nil
			}
		}
		return ErrNotFound
	})
}

// dnsProblem says an error in words for people, where it is one of theirs.
func dnsProblem(err error) error {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case errors.Is(err, ErrInvalid):
		return &console.Problem{Kind: console.ErrInvalid, Text: text}
	case errors.Is(err, ErrTaken):
		return &console.Problem{Kind: console.ErrConflict, Text: strings.TrimSuffix(text, ": "+ErrTaken.Error())}
	case errors.Is(err, ErrNotFound):
		return &console.Problem{Kind: console.ErrNotFound, Text: "That is not there any more"}
	}
	return err
}

func (b *backend) DNS(ctx context.Context, userID string) (console.DNS, error) {
	if err := b.owner(ctx, userID); err != nil {
		return console.DNS{}, err
	}
	i, err := b.s.DNS(ctx)
	if err != nil {
		return console.DNS{}, consoleError(err)
	}
	d := console.DNS{Suffix: i.Suffix, Nameservers: serverLines(i.Nameservers), Search: i.Search, Wildcards: i.Wildcards, Options: map[string]string{}}
	for _, r := range i.Records {
		d.Records = append(d.Records, console.DNSRecord(r))
	}
	for _, r := range i.Routes {
		d.Routes = append(d.Routes, console.DNSRoute{Suffix: r.Suffix, Nameservers: serverLines(r.Nameservers)})
	}
	for _, a := range i.Aliases {
		d.Aliases = append(d.Aliases, console.DNSAlias(a))
	}
	for _, o := range DNSOptions {
		d.Options[o.Name] = o.Value(i)
	}
	return d, nil
}

// serverLines are nameservers as the console's forms have them: the address
// and, after spaces, where its host is.
func serverLines(list []api.Nameserver) []string {
	out := []string{}
	for _, n := range list {
		out = append(out, strings.Join(append([]string{n.Address}, n.Bootstrap...), " "))
	}
	return out
}

func parseServerLines(lines []string) []api.Nameserver {
	out := []api.Nameserver{}
	for _, l := range lines {
		if f := words(l); len(f) > 0 {
			out = append(out, api.Nameserver{Address: f[0], Bootstrap: f[1:]})
		}
	}
	return out
}

func (b *backend) EditDNS(ctx context.Context, userID string, in console.DNSEdit) error {
	if err := b.owner(ctx, userID); err != nil {
		return err
	}
	e := DNSEdit{Search: in.Search, Options: in.Options}
	if r := in.AddRecord; r != nil {
		e.AddRecord = &NewRecord{Name: r.Name, Type: r.Type, Value: r.Value, TTL: r.TTL, Outside: r.Outside}
	}
	if in.RemoveRecord != "" {
		e.RemoveRecord = &RecordMatch{ID: in.RemoveRecord}
	}
	if r := in.AddRoute; r != nil {
		e.AddRoute = &api.DNSRoute{Suffix: r.Suffix, Nameservers: parseServerLines(r.Nameservers)}
	}
	if in.RemoveRoute != "" {
		e.RemoveRoute = &in.RemoveRoute
	}
	if in.Nameservers != nil {
		l := parseServerLines(*in.Nameservers)
		e.Nameservers = &l
	}
	if in.RemoveAlias != "" {
		e.RemoveAlias = &in.RemoveAlias
	}
	_, err := Do(ctx, b.s, b.actor(ctx, userID), EditDNS{e})
	return dnsProblem(err)
}

func (b *backend) PreviewName(ctx context.Context, userID, from, name, recordType string) (console.NamePreview, error) {
	if err := b.owner(ctx, userID); err != nil {
		return console.NamePreview{}, err
	}
	p, err := b.s.PreviewName(ctx, PreviewQuery{Name: name, Type: recordType, From: from})
	if err != nil {
		return console.NamePreview{}, dnsProblem(err)
	}
	out := console.NamePreview{Name: p.Name, Rcode: p.Rcode, Answers: p.Answers}
	for _, st := range p.Steps {
		if st.Stage != "question" {
			out.Steps = append(out.Steps, st.Text)
		}
	}
	return out, nil
}

func (b *backend) SetDeviceDNS(ctx context.Context, userID, id string, wildcard bool, lan string) error {
	nodeID, err := parseID(id)
	if err != nil {
		return err
	}
	_, err = Do(ctx, b.s, b.actor(ctx, userID), SetDeviceDNS{nodeID, DeviceDNS{Wildcard: &wildcard, LANNames: lan}})
	return consoleError(err)
}
