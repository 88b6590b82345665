package main

import (
	"context"
	"fmt"
	"io"
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
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "show",
		Short:             "Show all DNS settings",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServer(cmd, func(ctx context.Context, a *client.Client) error {
				i, err := a.DNS(ctx)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "dns-settings/1", i)
				}
				return showDNS(cmd.OutOrStdout(), i)
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func showDNS(w io.Writer, i ops.DNSInfo) error {
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
	return printTable(w, rows)
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
	var asJSON *bool
	var help strings.Builder
	var keys []string
	for _, o := range ops.DNSOptions {
		fmt.Fprintf(&help, "  %-18s %s\n", o.Name, o.Help)
		keys = append(keys, o.Name+"=")
	}
	cmd := &cobra.Command{
		Use:   "set OPTION=VALUE...",
		Short: "Set options",
		Long:  "Sets options; switches are on or off.\n\n" + help.String(),
		Args:  args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return keys, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			options := map[string]string{}
			for _, kv := range a {
				k, v, ok := strings.Cut(kv, "=")
				if !ok {
					return usagef("%q: want OPTION=VALUE; see: %s --help", kv, cmd.CommandPath())
				}
				options[k] = v
			}
			return editDNS(cmd, *asJSON, ops.DNSEdit{Options: options}, "set "+strings.Join(a, " "))
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

// editDNS changes DNS settings, and prints done on standard error. With asJSON it prints all
// settings after the change instead.
func editDNS(cmd *cobra.Command, asJSON bool, e ops.DNSEdit, done string) error {
	return withServer(cmd, func(ctx context.Context, a *client.Client) error {
		i, err := a.EditDNS(ctx, e, nil)
		switch {
		case err != nil:
			return err
		case asJSON:
			return cli.PrintObject(cmd.OutOrStdout(), "dns-settings/1", i)
		}
		_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s; devices fetch it within seconds\n", cli.Plain(done))
		return err
	})
}

func dnsDeviceCmd() *cobra.Command {
	var asJSON *bool
	var wildcard, lan string
	cmd := &cobra.Command{
		Use:   "device NAME [--wildcard on|off] [--lan-names default|on|off]",
		Short: "Set the DNS settings of one device",
		Long: `Sets how one device answers and asks:

  --wildcard   it answers for every name below its own (x.kitchen-pi)
  --lan-names  on this device, short names of its own LAN come before the network's`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: complete(deviceNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			d := ops.DeviceDNS{LANNames: lan}
			switch wildcard {
			case "on", "off":
				on := wildcard == "on"
				d.Wildcard = &on
			case "":
				if lan == "" {
					return usagef("name what to set: --wildcard or --lan-names")
				}
			default:
				return usagef("--wildcard %q: want on or off", wildcard)
			}
			return withServer(cmd, func(ctx context.Context, adm *client.Client) error {
				info, err := adm.EditDevice(ctx, a[0], ops.EditDevice{DeviceDNS: d})
				return report(cmd, *asJSON, info, err, "set for %s; the device fetches it within seconds", called(info))
			})
		},
	}
	cmd.Flags().StringVar(&wildcard, "wildcard", "", "the device answers for every name below its own: on or off")
	cmd.Flags().StringVar(&lan, "lan-names", "", "short names of the device's LAN come first: default, on or off")
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func dnsPreviewCmd() *cobra.Command {
	var asJSON *bool
	var from string
	cmd := &cobra.Command{
		Use:               "preview NAME [TYPE] [--from DEVICE]",
		Short:             "Say what a name will answer on a device, and why",
		Args:              args(cobra.RangeArgs(1, 2)),
		ValidArgsFunction: complete(deviceNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			q := ops.PreviewQuery{Name: a[0], From: from}
			if len(a) > 1 {
				q.Type = a[1]
			}
			return withServer(cmd, func(ctx context.Context, adm *client.Client) error {
				p, err := adm.PreviewName(ctx, q)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "dns-preview/1", p)
				}
				rows := [][]string{{"name", p.Name}, {"answer", strings.ReplaceAll(strings.Join(p.Answers, "; "), "\t", " ")}}
				if p.Rcode == "" {
					rows[1][1] = "as the nameserver says"
				} else if len(p.Answers) == 0 {
					rows[1][1] = p.Rcode
				}
				for _, st := range p.Steps {
					rows = append(rows, []string{st.Stage, st.Text})
				}
				return printTable(cmd.OutOrStdout(), rows)
			})
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "the device that asks (default: one that sees all devices)")
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
