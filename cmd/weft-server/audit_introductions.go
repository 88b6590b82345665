package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi/client"
)

func auditIntroductionsCmd() *cobra.Command {
	cmd := group("introductions", "Show who introduced themselves to devices, as the devices report", auditIntroductionsListCmd(), auditIntroductionsSetCmd())
	cmd.Long = `Show who introduced themselves to devices, as the devices report, and to whom they did.
Devices with a tag for which that is set report it, with whatever they ask the
server anyway, so it may come days later; weft status on a device says so.

These are claims of devices and no part of the audit's chain: a device may invent
some and keep others to itself. DOUBT says what the server knows against one.

  weft-server audit introductions set --tag camera on
  weft-server audit introductions --device gate --since 7d`
	return cmd
}

// doubtWords are the reasons to doubt a claim, for people.
var doubtWords = map[string]string{
	ops.DoubtUnknown:     "no such device ever was",
	ops.DoubtDeleted:     "it was deleted",
	ops.DoubtUnreachable: "policy lets neither reach the other",
	ops.DoubtName:        "it has another name or owner",
	ops.DoubtTime:        "it was not possible at that time",
	ops.DoubtFull:        "more reports in a day than are stored",
}

func auditIntroductionsListCmd() *cobra.Command {
	var asJSON *bool
	var device, since string
	var limit int
	cmd := &cobra.Command{
		Use:               "list [--device D] [--since T] [--limit N]",
		Short:             "List the claims of devices, the latest hour first",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := moment("--since", since, time.Now())
			if err != nil {
				return err
			}
			if limit < 0 {
				return usagef("--limit %d: want 0, for no limit, or more", limit)
			}
			return withServer(cmd, func(ctx context.Context, a *client.Client) error {
				list, err := introductions(ctx, a, ops.IntroductionQuery{Device: device, Since: from}, limit)
				if err != nil {
					return err
				}
				set, err := a.AuditSettings(ctx)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "audit-introductions/1", map[string]any{"claims_of_devices": list, "tags": set.Introductions})
				}
				if len(list) == 0 && len(set.Introductions) == 0 {
					fmt.Fprintln(cmd.ErrOrStderr(), "weft-server: no device reports introductions; switch it on for the devices with a tag: weft-server audit introductions set --tag T on")
				}
				fmt.Fprintln(cmd.OutOrStdout(), "claims of devices:")
				rows := [][]string{{"DEVICE", "SAYS THAT", "PEER", "OF", "TIMES", "FIRST", "LAST", "PATH", "SUITE", "DOUBT"}}
				for _, i := range list {
					rows = append(rows, introductionRow(i))
				}
				return printTable(cmd.OutOrStdout(), rows)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&device, "device", "", "only what this device reports: name, address or id")
	f.StringVar(&since, "since", "", "only hours that end after this time: 24h, 7d, 2026-11-29 or 2026-11-29T18:00:00Z")
	f.IntVar(&limit, "limit", 100, "how many at most; 0 for all")
	for _, name := range []string{"device", "since", "limit"} {
		f.SetAnnotation(name, noEnv, nil)
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

// introductions reads at most limit introductions, page by page; 0 means all.
func introductions(ctx context.Context, a *client.Client, q ops.IntroductionQuery, limit int) ([]store.Introduction, error) {
	list := []store.Introduction{}
	for {
		if q.Limit = auditPage; limit > 0 {
			q.Limit = min(auditPage, limit-len(list))
		}
		page, err := a.Introductions(ctx, q)
		if err != nil {
			return nil, err
		}
		list = append(list, page.Introductions...)
		if q.After = page.Next; q.After == "" || limit > 0 && len(list) >= limit {
			return list, nil
		}
	}
}

func introductionRow(i store.Introduction) []string {
	device := i.DeviceName
	if device == "" {
		device = i.Device.String()
	}
	name, says := i.Name, "it called"
	if i.Inbound {
		says = "it was called by"
	}
	switch {
	case i.IsSeveral():
		name = "others, not told apart"
	case name == "":
		name = i.Peer.String()
	}
	var doubts []string
	for _, d := range strings.Fields(i.Doubts) {
		doubts = append(doubts, doubtWords[d])
	}
	const form = "2006-01-02 15:04:05"
	return []string{device, says, name, i.User, strconv.FormatInt(i.Count, 10), i.First.Local().Format(form), i.Last.Local().Format(form), strings.Join(strings.Fields(i.Paths), ", "), strings.Join(strings.Fields(i.Suites), ", "), strings.Join(doubts, ", ")}
}

func auditIntroductionsSetCmd() *cobra.Command {
	var asJSON *bool
	var tag string
	cmd := &cobra.Command{
		Use:   "set --tag T on|off",
		Short: "Switch the reports of introductions on or off for the devices with a tag",
		Args:  args(cobra.ExactArgs(1)),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"on", "off"}, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			if a[0] != "on" && a[0] != "off" {
				return usagef("%q: want on or off", a[0])
			}
			if tag == "" {
				return usagef("name the tag of the devices: --tag T")
			}
			edit := ops.EditAudit{Report: []string{tag}}
			if a[0] == "off" {
				edit = ops.EditAudit{NoReport: []string{tag}}
			}
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				set, err := c.EditAudit(ctx, edit)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "audit-settings/1", set)
				}
				said := "no device reports introductions"
				if len(set.Introductions) > 0 {
					said = "devices with one of these tags report introductions: " + strings.Join(set.Introductions, ", ")
				}
				_, err = fmt.Fprintln(cmd.ErrOrStderr(), said)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&tag, "tag", "", "tag of the devices, with or without \"tag:\"")
	cmd.Flags().SetAnnotation("tag", noEnv, nil)
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
