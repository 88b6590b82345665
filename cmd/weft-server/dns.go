package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/webapi/client"
	"weft/overlay/api"
)

// This file shows and changes the DNS settings of the network. The verbs for records, routes,
// nameservers and other lists are in dns_lists.go.

func dnsCmd() *cobra.Command {
	cmd := group("dns", "Show and set names: records, routes, nameservers, search domains, options",
		dnsShowCmd(), dnsSetCmd(), dnsRecordsCmd(), dnsRoutesCmd(), dnsNameserversCmd(), dnsSearchCmd(), dnsAliasesCmd(), dnsDeviceCmd(), dnsPreviewCmd())
	cmd.Long = `Decides about names in the whole network. Devices fetch a change within
seconds.

  weft-server dns records add www A 192.0.2.1
  weft-server dns records add app CNAME kitchen-pi
  weft-server dns routes add corp.example 10.0.0.53
  weft-server dns nameservers set https://dns.quad9.net/dns-query --bootstrap 9.9.9.9
  weft-server dns set stop-rebinding=on ttl=30
  weft-server dns device kitchen-pi --wildcard on
  weft-server dns preview www --from laptop`
	return cmd
}

func dnsShowCmd() *cobra.Command {
	return apiVerb{
		use: "show", short: "Show all DNS settings",
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			i, err := c.DNS(ctx)
			return answer{schema: "dns-settings/1", object: i, out: dnsText(i)}, err
		},
	}.command()
}

func dnsText(i ops.DNSInfo) string {
	rows := [][]string{{"suffix", i.Suffix}, {"records", strconv.Itoa(len(i.Records))}}
	for _, r := range i.Routes {
		rows = append(rows, []string{"route", r.Suffix + " to " + serverText(r.Nameservers)})
	}
	rows = append(rows, []string{"nameservers", serverText(i.Nameservers)}, []string{"search", strings.Join(i.Search, " ")})
	for _, a := range i.Aliases {
		rows = append(rows, []string{"former name", a.Name + " of " + a.Device + " until " + when(&a.Until)})
	}
	rows = append(rows, []string{"wildcards", strings.Join(i.Wildcards, " ")})
	for _, o := range ops.DNSOptions {
		rows = append(rows, []string{o.Name, o.Value(i.DNS)})
	}
	return table(rows)
}

// serverText returns a list of nameservers for people.
func serverText(list []api.Nameserver) string {
	if len(list) == 0 {
		return "each device's own"
	}
	var l []string
	for _, n := range list {
		text := n.Address
		if len(n.Bootstrap) > 0 {
			text += " (" + strings.Join(n.Bootstrap, " ") + ")"
		}
		l = append(l, text)
	}
	return strings.Join(l, ", ")
}

func dnsSetCmd() *cobra.Command {
	var help strings.Builder
	var keys []string
	for _, o := range ops.DNSOptions {
		fmt.Fprintf(&help, "  %-18s %s\n", o.Name, o.Help)
		keys = append(keys, o.Name+"=")
	}
	options := map[string]string{}
	return apiVerb{
		use:   "set OPTION=VALUE...",
		short: "Set options",
		long:  "Sets options; switches are on or off.\n\n" + help.String(),
		args:  cobra.MinimumNArgs(1),
		words: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return keys, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
		},
		check: func(cmd *cobra.Command, a []string) error {
			for _, kv := range a {
				k, v, ok := strings.Cut(kv, "=")
				if !ok {
					return usagef("%q: want OPTION=VALUE; see: %s --help", kv, cmd.CommandPath())
				}
				options[k] = v
			}
			return nil
		},
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			return editDNS(ctx, c, ops.DNSEdit{Options: options}, "set "+strings.Join(a, " "))
		},
	}.command()
}

// editDNS changes DNS settings. The answer is all settings after the change, and for people that
// it is done.
func editDNS(ctx context.Context, c *client.Client, e ops.DNSEdit, done string) (answer, error) {
	i, err := c.EditDNS(ctx, e, nil)
	return answer{schema: "dns-settings/1", object: i, said: cli.Plain(done) + "; devices fetch it within seconds"}, err
}

func dnsDeviceCmd() *cobra.Command {
	var wildcard string
	var d ops.DeviceDNS
	cmd := apiVerb{
		use:   "device NAME [--wildcard on|off] [--lan-names default|on|off]",
		short: "Set the DNS settings of one device",
		long: `Sets how one device answers and asks:

  --wildcard   it answers for every name below its own (x.kitchen-pi)
  --lan-names  on this device, short names of its own LAN come before the network's`,
		args:  cobra.ExactArgs(1),
		words: complete(deviceNames),
		check: func(*cobra.Command, []string) error {
			switch wildcard {
			case "on", "off":
				on := wildcard == "on"
				d.Wildcard = &on
			case "":
				if d.LANNames == "" {
					return usagef("name what to set: --wildcard or --lan-names")
				}
			default:
				return usagef("--wildcard %q: want on or off", wildcard)
			}
			return nil
		},
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			info, err := c.EditDevice(ctx, a[0], ops.EditDevice{DeviceDNS: d})
			return deviceChanged(info, "set for %s; the device fetches it within seconds", called(info)), err
		},
	}.command()
	cmd.Flags().StringVar(&wildcard, "wildcard", "", "the device answers for every name below its own: on or off")
	cmd.Flags().StringVar(&d.LANNames, "lan-names", "", "short names of the device's LAN come first: default, on or off")
	return cmd
}

func dnsPreviewCmd() *cobra.Command {
	var q ops.PreviewQuery
	cmd := apiVerb{
		use: "preview NAME [TYPE] [--from DEVICE]", short: "Say what a name will answer on a device, and why", args: cobra.RangeArgs(1, 2), words: complete(deviceNames),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			q.Name = a[0]
			if len(a) > 1 {
				q.Type = a[1]
			}
			p, err := c.PreviewName(ctx, q)
			rows := [][]string{{"name", p.Name}, {"answer", strings.ReplaceAll(strings.Join(p.Answers, "; "), "\t", " ")}}
			if p.Rcode == "" {
				rows[1][1] = "as the nameserver says"
			} else if len(p.Answers) == 0 {
				rows[1][1] = p.Rcode
			}
			for _, st := range p.Steps {
				rows = append(rows, []string{st.Stage, st.Text})
			}
			return answer{schema: "dns-preview/1", object: p, out: table(rows)}, err
		},
	}.command()
	cmd.Flags().StringVar(&q.From, "from", "", "the device that asks (default: one that sees all devices)")
	return cmd
}
