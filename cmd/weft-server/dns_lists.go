package main

import (
	"cmp"
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"weft/coord/ops"
	"weft/coord/webapi/client"
	"weft/overlay/api"
)

// listCmd makes a verb that shows one part of the DNS settings. With --json it prints an object
// with that part as the field name.
func listCmd(name, short string, part func(ops.DNSInfo) any, rows func(ops.DNSInfo) [][]string) *cobra.Command {
	return apiVerb{
		use: "list", short: short,
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			i, err := c.DNS(ctx)
			return answer{schema: "dns-" + name + "/1", object: map[string]any{name: part(i)}, out: table(rows(i))}, err
		},
	}.command()
}

// editCmd makes a verb that changes DNS settings, and prints done and the arguments on standard
// error. With --json it prints all settings after the change instead.
func editCmd(use, short, done string, many cobra.PositionalArgs, edit func(a []string) (ops.DNSEdit, error)) *cobra.Command {
	var e ops.DNSEdit
	return apiVerb{
		use: use, short: short, args: many, words: cobra.NoFileCompletions,
		check: func(_ *cobra.Command, a []string) (err error) { e, err = edit(a); return err },
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			if len(a) > 0 {
				done += ": " + strings.Join(a, " ")
			}
			return editDNS(ctx, c, e, done)
		},
	}.command()
}

func dnsRecordsCmd() *cobra.Command {
	r := ops.NewRecord{}
	add := editCmd("add NAME TYPE VALUE", "Add a record", "added the record", cobra.ExactArgs(3), func(a []string) (ops.DNSEdit, error) {
		r.Name, r.Type, r.Value = a[0], a[1], a[2]
		return ops.DNSEdit{AddRecord: &r}, nil
	})
	add.Long = `Adds a record beside the devices' own names. NAME is short (www), @ for the
network's zone itself, or full (www.kitchen-pi.weft.internal). TYPE is A, AAAA,
CNAME, TXT, SRV, MX or PTR; VALUE is as in a zone file:

  www A 192.0.2.1                    app CNAME kitchen-pi
  @ MX "10 mail"                     _http._tcp.kitchen-pi.weft.internal SRV "0 5 80 kitchen-pi"
  @ TXT "v=spf1 -all"                100.64.0.99 PTR old-printer`
	add.Flags().IntVar(&r.TTL, "ttl", 0, "seconds for which resolvers may cache it, 1 to 86400 (300)")
	add.Flags().BoolVar(&r.Outside, "outside", false, "allow a name outside the network's zone")
	add.Flags().BoolVar(&r.Shadow, "shadow", false, "allow the name of a device: the record answers while no device has the name")
	var id string
	remove := editCmd("remove NAME [TYPE [VALUE]]", "Remove records, by name, type and value, or by --id", "removed", cobra.RangeArgs(0, 3), func(a []string) (ops.DNSEdit, error) {
		m := ops.RecordMatch{ID: id}
		for i, to := range []*string{&m.Name, &m.Type, &m.Value} {
			if i < len(a) {
				*to = a[i]
			}
		}
		if (id == "") == (len(a) == 0) {
			return ops.DNSEdit{}, usagef("name the record: NAME [TYPE [VALUE]], or --id ID")
		}
		return ops.DNSEdit{RemoveRecord: &m}, nil
	})
	remove.Flags().StringVar(&id, "id", "", "the record's id")
	list := listCmd("records", "List the records", func(i ops.DNSInfo) any { return i.Records }, func(i ops.DNSInfo) [][]string {
		rows := [][]string{{"NAME", "TYPE", "VALUE", "TTL", "ID"}}
		for _, r := range i.Records {
			rows = append(rows, []string{r.Name, r.Type, r.Value, strconv.Itoa(cmp.Or(r.TTL, 300)), r.ID})
		}
		return rows
	})
	return group("records", "List, add and remove records beside the devices' names", list, add, remove)
}

// nameservers makes nameservers of addresses. Those that have a host name get the bootstrap
// addresses.
func nameservers(list, bootstrap []string) []api.Nameserver {
	out := []api.Nameserver{}
	for _, a := range list {
		n := api.Nameserver{Address: a}
		if hasHost(a) {
			n.Bootstrap = bootstrap
		}
		out = append(out, n)
	}
	return out
}

// hasHost reports whether a nameserver's address begins with tls:// or https://, and so may have
// a host name that must be resolved first.
func hasHost(a string) bool {
	scheme, _, ok := strings.Cut(a, "://")
	return ok && (scheme == "tls" || scheme == "https")
}

const bootstrapHelp = "addresses of the hosts in tls:// and https:// (default: devices ask their own resolvers for them)"

func dnsRoutesCmd() *cobra.Command {
	var bootstrap []string
	add := editCmd("add SUFFIX [NAMESERVER...]", "Ask other nameservers for the names below a suffix", "added the route", cobra.MinimumNArgs(1), func(a []string) (ops.DNSEdit, error) {
		return ops.DNSEdit{AddRoute: &api.DNSRoute{Suffix: a[0], Nameservers: nameservers(a[1:], bootstrap)}}, nil
	})
	add.Long = `Sends a suffix and everything below it to nameservers of its own (split DNS), in
the place of a route that is there. The longest suffix wins; reverse zones work
like any other. Without a nameserver each device asks its own.

A NAMESERVER is IP, IP:PORT, tls://HOST or https://HOST/PATH.`
	add.Flags().StringSliceVar(&bootstrap, "bootstrap", nil, bootstrapHelp)
	remove := editCmd("remove SUFFIX", "Remove a route", "removed the route", cobra.ExactArgs(1), func(a []string) (ops.DNSEdit, error) {
		return ops.DNSEdit{RemoveRoute: &a[0]}, nil
	})
	list := listCmd("routes", "List the routes", func(i ops.DNSInfo) any { return i.Routes }, func(i ops.DNSInfo) [][]string {
		rows := [][]string{{"SUFFIX", "NAMESERVERS"}}
		for _, r := range i.Routes {
			rows = append(rows, []string{r.Suffix, serverText(r.Nameservers)})
		}
		return rows
	})
	return group("routes", "List, add and remove routes (split DNS)", list, add, remove)
}

func dnsNameserversCmd() *cobra.Command {
	var bootstrap []string
	set := editCmd("set NAMESERVER...", "Set the nameservers for all other names", "set the nameservers", cobra.MinimumNArgs(1), func(a []string) (ops.DNSEdit, error) {
		l := nameservers(a, bootstrap)
		return ops.DNSEdit{Nameservers: &l}, nil
	})
	set.Flags().StringSliceVar(&bootstrap, "bootstrap", nil, bootstrapHelp)
	set.Long = `Sets the nameservers that answer for all names that are neither the network's nor
a route's, the first before others. A NAMESERVER is IP, IP:PORT, tls://HOST or
https://HOST/PATH.`
	clear := editCmd("clear", "Remove the nameservers, so that each device asks its own", "cleared the nameservers: each device asks its own", cobra.NoArgs, func([]string) (ops.DNSEdit, error) {
		return ops.DNSEdit{Nameservers: &[]api.Nameserver{}}, nil
	})
	list := listCmd("nameservers", "List the nameservers", func(i ops.DNSInfo) any { return i.Nameservers }, func(i ops.DNSInfo) [][]string {
		rows := [][]string{{"NAMESERVER", "BOOTSTRAP"}}
		for _, n := range i.Nameservers {
			rows = append(rows, []string{n.Address, strings.Join(n.Bootstrap, " ")})
		}
		return rows
	})
	return group("nameservers", "List and set the nameservers for all other names", list, set, clear)
}

func dnsSearchCmd() *cobra.Command {
	set := editCmd("set DOMAIN...", "Set the domains to try for short names, beside the network's", "set the search domains", cobra.MinimumNArgs(1), func(a []string) (ops.DNSEdit, error) {
		return ops.DNSEdit{Search: &a}, nil
	})
	clear := editCmd("clear", "Try only the network's own zone and the domains of the machine", "cleared the search domains", cobra.NoArgs, func([]string) (ops.DNSEdit, error) {
		return ops.DNSEdit{Search: &[]string{}}, nil
	})
	list := listCmd("search", "List the search domains", func(i ops.DNSInfo) any { return i.Search }, func(i ops.DNSInfo) [][]string {
		rows := [][]string{{"DOMAIN"}, {i.Suffix}}
		for _, d := range i.Search {
			rows = append(rows, []string{d})
		}
		return rows
	})
	return group("search", "List and set search domains", list, set, clear)
}

func dnsAliasesCmd() *cobra.Command {
	remove := editCmd("remove NAME", "End a former name before its time", "ended the former name", cobra.ExactArgs(1), func(a []string) (ops.DNSEdit, error) {
		return ops.DNSEdit{RemoveAlias: &a[0]}, nil
	})
	list := listCmd("aliases", "List former names that still lead to their devices", func(i ops.DNSInfo) any { return i.Aliases }, func(i ops.DNSInfo) [][]string {
		rows := [][]string{{"NAME", "DEVICE", "UNTIL"}}
		for _, a := range i.Aliases {
			rows = append(rows, []string{a.Name, a.Device, when(&a.Until)})
		}
		return rows
	})
	return group("aliases", "List and end former names of devices", list, remove)
}
