package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/spf13/cobra"

	"weft/coord/ops"
	"weft/coord/webapi/client"
)

func auditRetentionCmd() *cobra.Command {
	show, set := auditRetentionShowCmd(), auditRetentionSetCmd()
	cmd := group("retention", "Show and set how long records stay", show, set)
	cmd.Flags().AddFlagSet(show.Flags())
	of := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if len(a) == 0 {
			return show.RunE(cmd, a)
		}
		return of(cmd, a)
	}
	return cmd
}

func auditRetentionShowCmd() *cobra.Command {
	return apiVerb{
		use: "show", short: "Show how long records stay",
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			set, err := c.AuditSettings(ctx)
			return answer{schema: "audit-settings/1", object: set, out: keepWords(set.KeepSeconds)}, err
		},
	}.command()
}

// forever is the word for retention without end.
const forever = "forever"

// keepWords writes a retention in a form that set accepts.
func keepWords(seconds int64) string {
	switch {
	case seconds == 0:
		return forever
	case seconds%86400 == 0:
		return fmt.Sprintf("%dd", seconds/86400)
	}
	return fmt.Sprintf("%ds", seconds)
}

func auditRetentionSetCmd() *cobra.Command {
	seconds := int64(0) // forever
	return apiVerb{
		use:   "set DURATION|forever",
		short: "Set how long records stay, such as 365d",
		long: `Set how long records stay, such as 365d. Once a day the server removes
those that are older, behind a checkpoint that it signs: what is left can still be
verified. The same holds for the introductions that devices report. What was
removed is gone: export it before, if it may be needed.`,
		args:  cobra.ExactArgs(1),
		words: cobra.FixedCompletions([]string{"90d", "365d", forever}, cobra.ShellCompDirectiveNoFileComp),
		check: func(_ *cobra.Command, a []string) error {
			if a[0] != forever {
				d, err := parseSpan(a[0])
				if err != nil {
					return usagef("%q: want a time such as 90d or 8760h, or forever", a[0])
				}
				seconds = int64(math.Ceil(d.Seconds()))
			}
			return nil
		},
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			set, err := c.EditAudit(ctx, ops.EditAudit{KeepSeconds: &seconds})
			said := "records are kept for ever"
			if set.KeepSeconds > 0 {
				said = "records are kept for " + keepWords(set.KeepSeconds) + "; the server removes older ones once a day"
			}
			return answer{schema: "audit-settings/1", object: set, said: said}, err
		},
	}.command()
}

func auditTrimCmd() *cobra.Command {
	var before string
	var at time.Time
	cmd := apiVerb{
		use:   "trim --before T",
		short: "Remove old records now",
		long: `Remove the records of before a time, and the introductions that devices reported,
behind a checkpoint that the server signs: what is left can still be verified.
Records of the last 24 hours stay, and that this was done is a record too.

A head that was kept elsewhere of before the checkpoint can be compared with
nothing any more: keep a new one (weft-server audit head).`,
		check: func(*cobra.Command, []string) (err error) {
			if at, err = moment("--before", before, time.Now()); err != nil {
				return err
			}
			if at.IsZero() {
				return usagef("name the records to remove: --before 365d, --before 2026-01-01")
			}
			return nil
		},
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			gone, err := c.TrimAudit(ctx, at)
			said := "there are no records from before that time"
			if gone.Last > 0 {
				said = fmt.Sprintf("removed records %d to %d", gone.First, gone.Last)
			}
			if gone.Introductions > 0 {
				said += fmt.Sprintf("; removed %d introductions", gone.Introductions)
			}
			return answer{schema: "audit-trim/1", object: gone, said: said}, err
		},
	}.command()
	cmd.Flags().StringVar(&before, "before", "", "how long ago, a day or a time: 365d, 2026-01-01 or 2026-01-01T12:00:00Z")
	cmd.Flags().SetAnnotation("before", noEnv, nil)
	return cmd
}
