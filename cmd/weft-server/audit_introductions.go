package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

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
	var device, since string
	var from time.Time
	var limit int
	cmd := apiVerb{
		use: "list [--device D] [--since T] [--limit N]", short: "List the claims of devices, the latest hour first",
		check: func(*cobra.Command, []string) (err error) {
			if from, err = moment("--since", since, time.Now()); err != nil {
				return err
			}
			if limit < 0 {
				return usagef("--limit %d: want 0, for no limit, or more", limit)
			}
			return nil
		},
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			list, err := introductions(ctx, c, ops.IntroductionQuery{Device: device, Since: from}, limit)
			if err != nil {
				return answer{}, err
			}
			set, err := c.AuditSettings(ctx)
			rows := [][]string{{"DEVICE", "SAYS THAT", "PEER", "OF", "TIMES", "FIRST", "LAST", "PATH", "SUITE", "DOUBT"}}
			for _, i := range list {
				rows = append(rows, introductionRow(i))
			}
			got := answer{schema: "audit-introductions/1", object: map[string]any{"claims_of_devices": list, "tags": set.Introductions}, out: "claims of devices:\n" + table(rows)}
			if len(list) == 0 && len(set.Introductions) == 0 {
				got.said = "weft-server: no device reports introductions; switch it on for the devices with a tag: weft-server audit introductions set --tag T on"
			}
			return got, err
		},
	}.command()
	f := cmd.Flags()
	f.StringVar(&device, "device", "", "only what this device reports: name, address or id")
	f.StringVar(&since, "since", "", "only hours that end after this time: 24h, 7d, 2026-11-29 or 2026-11-29T18:00:00Z")
	f.IntVar(&limit, "limit", 100, "how many at most; 0 for all")
	for _, name := range []string{"device", "since", "limit"} {
		f.SetAnnotation(name, noEnv, nil)
	}
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
	var tag string
	cmd := apiVerb{
		use: "set --tag T on|off", short: "Switch the reports of introductions on or off for the devices with a tag", args: cobra.ExactArgs(1),
		words: cobra.FixedCompletions([]string{"on", "off"}, cobra.ShellCompDirectiveNoFileComp),
		check: func(_ *cobra.Command, a []string) error {
			if a[0] != "on" && a[0] != "off" {
				return usagef("%q: want on or off", a[0])
			}
			if tag == "" {
				return usagef("name the tag of the devices: --tag T")
			}
			return nil
		},
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			edit := ops.EditAudit{Report: []string{tag}}
			if a[0] == "off" {
				edit = ops.EditAudit{NoReport: []string{tag}}
			}
			set, err := c.EditAudit(ctx, edit)
			said := "no device reports introductions"
			if len(set.Introductions) > 0 {
				said = "devices with one of these tags report introductions: " + strings.Join(set.Introductions, ", ")
			}
			return answer{schema: "audit-settings/1", object: set, said: said}, err
		},
	}.command()
	cmd.Flags().StringVar(&tag, "tag", "", "tag of the devices, with or without \"tag:\"")
	cmd.Flags().SetAnnotation("tag", noEnv, nil)
	return cmd
}
